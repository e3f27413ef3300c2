/* Points in the plane, the line that a deep linear network comes to, and the line that was predicted
 * from the points alone. */
(function (root) {
  "use strict";

  const dln = root.dln;
  const { el, svg, shown } = dln.ui;
  const { EXAMPLES, copy, px, across } = dln.points;
  const END = Math.log(1e6); // of log ||w||
  const DEPTHS = [1, 2, 3, 4, 5, 6];
  const MOST = 16; // points

  function explain(state, solution, here) {
    if (!solution.separable) {
      const { indices, weights } = solution.certificate;
      const terms = indices.map((i, k) => `${shown(weights[k], 2)} z${i + 1}`).join(" + ");
      return (
        `No line through the centre separates these points: ${terms} = 0, with z = label times ` +
        "point. The risk has a least value above 0, nothing diverges, and the theorem does not apply."
      );
    }
    const degrees = (x) => `${((x * 180) / Math.PI).toFixed(1).replace("-", "−")}°`;
    const count = solution.support.length;
    const told =
      `Margin ${shown(solution.margin)}, held by ${count} support ` +
      `vector${count > 1 ? "s" : ""}; predicted direction ${degrees(solution.angle)}. `;
    const met =
      `At ‖w‖ = ${shown(Math.exp(here.logNorm))} the network of depth ${state.depth} points to ` +
      `${degrees(solution.angle + here.delta)}. `;
    if (solution.spans) return told + met;
    return (
      told + met + "One support vector does not span the plane: depth now matters, and the distance " +
      `falls only like ‖w‖ to the power −1/${state.depth}.`
    );
  }

  dln.playgrounds["support-vectors"] = function (host) {
    let state = dln.points.initial();
    let [solution, path, position, others, nodes] = [null, null, 0, [], []];

    const [ground, lines, marks] = [svg("g", {}), svg("g", {}), svg("g", {})];
    const plane = svg(
      "svg",
      { viewBox: "0 0 400 400", class: "pg-plane", role: "group", "aria-label": "Points of two classes" },
      ground,
      lines,
      marks
    );
    const plot = dln.ui.plot({
      x: { low: -1, high: 6, log: true, name: "norm ‖w‖" },
      y: { low: -6, high: 0.5, log: true, name: "distance from the predicted direction" },
      label: "Distance from the predicted direction against the norm; both scales are logarithmic",
    });
    const legend = dln.ui.key(
      ["pg-key-line", "the network"],
      ["pg-key-told", "predicted"],
      ["pg-key-ring", "support"],
      ["pg-key-start", "start"]
    );
    const says = el("p", { class: "pg-says", "aria-live": "polite" });
    const facts = dln.ui.facts();

    const player = dln.ui.player(6, () => position, seek, rest);
    const format = () => (path ? `‖w‖ = ${shown(Math.exp(now().logNorm))}` : "no path");
    const scrub = dln.ui.scrub({ player, format, seek, rest });
    const depth = dln.ui.range({
      label: "depth",
      min: 1,
      max: 6,
      step: 1,
      value: state.depth,
      format: dln.ui.layers,
      oninput: (value) => change({ depth: value }),
    });
    const loss = dln.ui.select({
      label: "loss",
      value: state.loss,
      options: { logistic: "logistic", exponential: "exponential" },
      onchange: (value) => change({ loss: value }),
    });
    const names = Object.entries(EXAMPLES).map(([key, example]) => [key, example.name]);
    const example = dln.ui.select({
      label: "data",
      value: root.location.hash ? "" : "eight",
      options: { "": "yours", ...Object.fromEntries(names) },
      onchange: (key) => key && change(copy(EXAMPLES[key])),
    });
    const adders = [1, -1].map((label) => {
      const node = dln.ui.button(label > 0 ? "+ ●" : "+ ■", () => add(label));
      node.setAttribute("aria-label", label > 0 ? "Add a round point" : "Add a square point");
      return node;
    });
    const training = el("div", { class: "pg-controls" }, player.node, scrub.node);
    host.append(
      el(
        "div",
        { class: "pg-stage" },
        el("div", {}, plane, legend),
        el("div", { class: "pg-side" }, training, plot.node, facts.node)
      ),
      el("div", { class: "pg-controls" }, depth.node, loss.node, example.node, ...adders),
      says
    );

    const now = () => dln.pathAt(path, position * path.clock[path.clock.length - 1]);

    function change(next) {
      state = { ...state, ...next };
      if (next.points) build();
      compute();
      rest();
    }

    function add(label) {
      if (state.points.length >= MOST) return;
      example.set("");
      const at = [label * (0.3 + 0.1 * (state.points.length % 4)), label * 0.5];
      change({ points: [...state.points, { at, label }] });
    }

    /** The prediction and the path; less exactly while something is dragged. */
    function compute(rough) {
      const z = state.points.map(({ at, label }) => [label * at[0], label * at[1]]);
      solution = dln.maxMargin(z);
      const run = (depth, accuracy) =>
        dln.balancedFlow(z, { ...state, depth, until: END, accuracy });
      path = solution.separable ? run(state.depth, rough ? 1e-5 : 1e-8) : null;
      const rest = path && !rough ? DEPTHS.filter((depth) => depth !== state.depth) : [];
      others = rest.map((depth) => run(depth, 1e-5));
      draw();
    }

    function seek(at) {
      position = at;
      if (path) turn();
    }

    /** What moves with the path. */
    function turn() {
      const here = now();
      const angle = solution.angle + here.delta;
      ground.replaceChildren(dln.points.sides(angle));
      const { angle: told, margin } = solution;
      const edges = [margin, -margin].map((away) => across(told, away, "pg-margin"));
      lines.replaceChildren(...edges, across(told, 0, "pg-predicted"), across(angle, 0, "pg-line"));
      plot.mark(here.logNorm / Math.LN10);
      scrub.set(position);
      const offset = Math.abs(solution.offset) / Math.exp(here.logNorm);
      facts.show({
        "distance, measured": shown(2 * Math.abs(Math.sin(here.delta / 2))),
        "predicted: ‖p*‖ / ‖w‖": solution.spans ? shown(offset) : "needs two support vectors",
        risk: `exp(−${shown(here.psi)})`.replace("−−", ""),
      });
    }

    function draw() {
      if (path) turn();
      else fail();
      state.points.forEach(({ at }, i) => {
        const holds = solution.separable
          ? solution.support.includes(i)
          : solution.certificate.indices.includes(i);
        nodes[i].classList.toggle("pg-holds", holds);
        dln.points.place(nodes[i], at, holds && path ? ", a support vector" : "");
      });
      dln.points.place(nodes[nodes.length - 1], state.start);
      drawPlot();
    }

    /** In place of lines: the convex combination of the z_i that is 0. */
    function fail() {
      const z = solution.certificate.indices.map((i) => {
        const { at, label } = state.points[i];
        return at.map((x) => label * x);
      });
      const corners = z.map((x) => px(x).join(",")).join(" ");
      ground.replaceChildren();
      lines.replaceChildren(
        svg("polygon", { points: corners, class: "pg-proof" }),
        svg("circle", { cx: 200, cy: 200, r: 4, class: "pg-zero" })
      );
      facts.show({});
      scrub.set(0);
    }

    function drawPlot() {
      const log = (delta) => Math.log10(Math.max(2 * Math.abs(Math.sin(delta / 2)), 1e-12));
      const curve = ({ logNorm, delta }, kind) => ({
        kind,
        points: logNorm.map((s, i) => [s / Math.LN10, log(delta[i])]),
      });
      const curves = others.map((other) => curve(other, "pg-other"));
      if (path) curves.push(curve(path, "pg-curve"));
      if (path && solution.spans) {
        const size = Math.log10(Math.abs(solution.offset));
        curves.push({ kind: "pg-told", points: [[-1, size + 1], [6, size - 6]] });
      }
      plot.draw(curves);
    }

    /** One node a point, and the start's, which stay while they are moved. */
    function build() {
      nodes = state.points.map(({ label }, i) => {
        const set = (at) => {
          state.points[i].at = at;
          compute(true);
        };
        const keys = { Delete: () => remove(i), Backspace: () => remove(i), Enter: () => flip(i) };
        const node = dln.points.handle(
          plane,
          {
            class: `pg-point ${label > 0 ? "pg-a" : "pg-b"}`,
            "aria-label": `${label > 0 ? "Round" : "Square"} point ${i + 1}`,
          },
          { position: () => state.points[i].at, set, rest: settle, keys },
          svg("circle", { r: 13, class: "pg-ring" }),
          dln.points.marker(label)
        );
        node.addEventListener("dblclick", () => flip(i));
        return node;
      });
      const set = (at) => {
        state.start = Math.hypot(...at) > 0.01 ? at : state.start;
        compute(true);
      };
      const start = dln.points.handle(
        plane,
        { class: "pg-point pg-start", "aria-label": "Start of the training: the direction it has" },
        { position: () => state.start, set, rest: settle },
        svg("path", { d: "M0-9L8 0L0 9L-8 0Z", class: "pg-shape" })
      );
      nodes.push(start);
      marks.replaceChildren(...nodes);
    }

    function flip(i) {
      change({ points: state.points.map((p, k) => (k === i ? { ...p, label: -p.label } : p)) });
      nodes[i].focus();
    }

    function remove(i) {
      if (state.points.length <= 2) return;
      change({ points: state.points.filter((_, k) => k !== i) });
      nodes[Math.min(i, state.points.length - 1)].focus();
    }

    /** After a move: exactly, and in words. */
    function settle() {
      example.set("");
      compute();
      rest();
    }

    function rest() {
      dln.points.save(state);
      says.textContent = explain(state, solution, path && now());
    }

    build();
    compute();
    says.textContent = explain(state, solution, path && now());
    if (host.dataset.play && !dln.ui.still()) player.start();
  };
})(typeof globalThis === "undefined" ? this : globalThis);
