/* Singular values of every layer along the flow: the first grows for ever, all others come to rest. */
(function (root) {
  "use strict";

  const dln = root.dln;
  const { el, svg, shown } = dln.ui;
  const NAME = "rank-one";
  const KINDS = ["pg-curve", "pg-curve2", "pg-curve3", "pg-curve4", "pg-other"];
  const SIX = [[0.3, 0.5], [0.3, -0.3], [0.5, 0.6], [0.6, -0.5], [0.4, 0.1], [0.6, 0.2]];
  const LIMITS = { d: [2, 5], w: [2, 4], s: [0, 99], m: [0.3, 1.5] }; // m: size of the start

  function initial() {
    const state = { d: 3, w: 3, s: 1, m: 1 };
    for (const [key, text] of dln.ui.readState(NAME) || []) {
      const [least, most] = LIMITS[key] || [];
      const value = dln.ui.unpacked(text);
      if (value >= least && value <= most) state[key] = value;
    }
    return state;
  }

  dln.playgrounds[NAME] = function (host) {
    const state = initial();
    let [path, spectra, bound, position] = [null, [], 0, 0];

    const bars = svg("svg", { viewBox: "0 0 400 300", class: "pg-plot", role: "img" });
    const plot = dln.ui.plot({
      x: { low: 0, high: 1.6, log: true, name: "norm of all weights ‖W‖" },
      y: { low: -2, high: 0.3, log: true, name: "part of each layer outside rank one" },
      label: "The part of each layer outside rank one against the norm; both scales are logarithmic",
    });
    const facts = dln.ui.facts();
    const says = el("p", { class: "pg-says", "aria-live": "polite" });
    const legend = dln.ui.key(["pg-key-told", "bound from the start: √D / ‖W‖"]);
    const player = dln.ui.player(5, () => position, seek, rest);
    const format = () => (path ? `‖W‖ = ${shown(path.norm[at()])}` : "");
    const scrub = dln.ui.scrub({ player, format, seek, rest });
    const slider = dln.ui.slider(state, LIMITS, () => {
      compute();
      rest();
    });
    const depth = slider("d", "depth", 1, dln.ui.layers);
    const width = slider("w", "width", 1, (value) => String(value));
    const size = slider("m", "size of the start", 0.1, (value) => shown(value));
    const again = dln.ui.button("Another start", () => {
      state.s = (state.s + 1) % 100;
      compute();
      rest();
    });
    host.append(
      el(
        "div",
        { class: "pg-stage" },
        el("div", {}, bars),
        el(
          "div",
          { class: "pg-side" },
          el("div", { class: "pg-controls" }, player.node, scrub.node),
          plot.node,
          legend,
          facts.node
        )
      ),
      el("div", { class: "pg-controls" }, depth.node, width.node, size.node, again),
      says
    );

    const at = () => Math.round(position * (path.norm.length - 1));

    function compute() {
      const dims = [2, ...Array(state.d - 1).fill(state.w), 1];
      const start = dln.gaussian(dims, state.s, state.m);
      bound = dln.rankOneBound(start);
      path = dln.layersFlow(start, SIX, { loss: "exponential", until: 300, accuracy: 1e-6 });
      spectra = path.layers.map((layers) => layers.map(dln.singularValues));
      drawPlot();
      seek(position);
    }

    const gap = (values) => values.slice(1).reduce((total, x) => total + x * x, 0);
    const frobenius = (values) => Math.hypot(...values);

    function drawPlot() {
      const last = Math.log10(path.norm[path.norm.length - 1]);
      plot.scale({ low: Math.floor(Math.log10(path.norm[0]) * 5) / 5, high: last }, {});
      const curves = spectra[0].slice(0, -1).map((_, k) => ({
        kind: KINDS[k],
        points: spectra.map((values, n) => [
          Math.log10(path.norm[n]),
          Math.log10(Math.max(Math.sqrt(gap(values[k])) / frobenius(values[k]), 1e-6)),
        ]),
      }));
      const told = path.norm.map((norm) => [
        Math.log10(norm),
        Math.log10((Math.sqrt(bound) * Math.sqrt(state.d)) / norm),
      ]);
      plot.draw([...curves, { kind: "pg-told", points: told }]);
    }

    function seek(to) {
      position = to;
      const now = spectra[at()];
      plot.mark(Math.log10(path.norm[at()]));
      scrub.set(position);
      drawBars(now);
      facts.show({
        "largest gap": shown(Math.max(...now.map(gap))),
        "bound D, from the start": shown(bound),
        "first singular value": shown(now[0][0]),
      });
    }

    function drawBars(now) {
      const most = Math.max(...spectra[spectra.length - 1].flat()) * 1.05;
      const room = 380 / now.length;
      const nodes = now.flatMap((values, k) => {
        const step = Math.min(24, (room - 16) / values.length);
        const left = 10 + k * room;
        const columns = values.map((value, j) => {
          const height = Math.max((value / most) * 250, 1);
          return svg("rect", {
            x: left + j * step,
            y: 265 - height,
            width: step - 3,
            height,
            class: j ? "pg-bar-rest" : "pg-bar",
          });
        });
        return [...columns, svg("text", { x: left, y: 288 }, `layer ${k + 1}`)];
      });
      bars.replaceChildren(...nodes);
      const told = now.map((values, k) => `layer ${k + 1}: ${values.map((x) => shown(x, 2)).join(", ")}`);
      bars.setAttribute("aria-label", `Singular values. ${told.join("; ")}`);
    }

    function rest() {
      const { d, w, s, m } = state;
      dln.ui.writeState(NAME, [
        ["d", dln.ui.packed(d)],
        ["w", dln.ui.packed(w)],
        ["s", dln.ui.packed(s)],
        ["m", dln.ui.packed(m)],
      ]);
      says.textContent = explain();
    }

    function explain() {
      const [first, now] = [spectra[0], spectra[at()]];
      return (
        `Of ${state.d} layers, the largest first singular value went from ` +
        `${shown(Math.max(...first.map((v) => v[0])))} to ${shown(Math.max(...now.map((v) => v[0])))}. ` +
        `What the layers have besides it, at most ${shown(Math.max(...now.map(gap)))}, stays below ` +
        `D = ${shown(bound)}, which is known before the training.`
      );
    }

    compute();
    says.textContent = explain();
  };
})(typeof globalThis === "undefined" ? this : globalThis);
