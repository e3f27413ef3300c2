/* Modes of a deep linear network on the squared loss: each waits at the saddle, then escapes. */
(function (root) {
  "use strict";

  const dln = root.dln;
  const { el, svg, shown } = dln.ui;
  const NAME = "plateau";
  const KINDS = ["pg-curve", "pg-curve2", "pg-curve3"];
  const SHARES = Array.from({ length: 199 }, (_, k) => (k + 1) / 200);
  const LIMITS = { d: [1, 5], e: [-4, -0.5], a: [0.2, 3], b: [0.2, 3], c: [0.2, 3] };

  function initial() {
    const state = { d: 3, e: -2, a: 2.4, b: 1.4, c: 0.8 };
    for (const [key, text] of dln.ui.readState(NAME) || []) {
      const [least, most] = LIMITS[key] || [];
      const value = dln.ui.unpacked(text);
      if (value >= least && value <= most) state[key] = value;
    }
    return state;
  }

  /** When the product of mode s passes these shares of s; the first is its start. */
  function course(s, start, depth) {
    const shares = [start / s, ...SHARES.filter((share) => share > start / s)];
    const times = [0, ...dln.modeTimes(s, start, depth, shares.slice(1))];
    return shares.map((share, k) => [times[k], share * s]);
  }

  dln.playgrounds[NAME] = function (host) {
    const state = initial();
    const plot = dln.ui.plot({
      height: 300,
      x: { low: 0, high: 10, name: "time" },
      y: { low: 0, high: 3, name: "what the network has learnt of each mode" },
      label: "Three modes against time: each stays near zero, then rises to its value",
    });
    const loss = dln.ui.plot({
      height: 300,
      x: { low: 0, high: 10, name: "time" },
      y: { low: 0, high: 5, name: "loss" },
      label: "The loss against time: a staircase of plateaus",
    });
    const says = el("p", { class: "pg-says", "aria-live": "polite" });
    const slider = dln.ui.slider(state, LIMITS, () => {
      draw();
      rest();
    });
    host.append(
      el("div", { class: "pg-stage pg-even" }, plot.node, loss.node),
      dln.ui.key(
        ["pg-key-a", "mode a"],
        ["pg-key-b", "mode b"],
        ["pg-key-c", "mode c"],
        ["pg-key-told", "half learnt, predicted"]
      ),
      el(
        "div",
        { class: "pg-controls" },
        slider("d", "depth", 1, dln.ui.layers).node,
        slider("e", "start", 0.1, (value) => `product ${shown(Math.pow(10, value), 2)}`).node,
        slider("a", "mode a", 0.05, (value) => shown(value)).node,
        slider("b", "mode b", 0.05, (value) => shown(value)).node,
        slider("c", "mode c", 0.05, (value) => shown(value)).node
      ),
      says
    );

    function read() {
      const start = Math.pow(10, state.e);
      const modes = ["a", "b", "c"].map((key) => {
        const s = state[key];
        const begin = Math.min(start, s / 4);
        return { key, s, path: course(s, begin, state.d), half: dln.modeTimes(s, begin, state.d, [0.5])[0] };
      });
      return modes;
    }

    function draw() {
      const modes = read();
      const ends = modes.map(({ path }) => path[path.length - 1][0]);
      const high = 1.05 * Math.max(...ends);
      const top = 1.1 * Math.max(...modes.map(({ s }) => s));
      plot.scale({ high }, { high: top });
      const curves = modes.map(({ path, s }, k) => ({ kind: KINDS[k], points: [...path, [high, s]] }));
      const marks = modes.map(({ half }) => ({ kind: "pg-told", points: [[half, 0], [half, top]] }));
      plot.draw([...marks, ...curves]);
      const total = modes.reduce((sum, { s }) => sum + s * s, 0) / 2;
      loss.scale({ high }, { high: 1.05 * total });
      const points = Array.from({ length: 400 }, (_, k) => {
        const time = (k / 399) * high;
        return [time, modes.reduce((sum, mode) => sum + Math.pow(mode.s - value(mode, time), 2) / 2, 0)];
      });
      loss.draw([{ kind: "pg-curve", points }]);
    }

    /** What is learnt of a mode at this time, between its recorded points. */
    function value({ path, s }, time) {
      const i = path.findIndex(([t]) => t > time);
      if (i < 0) return s;
      const [[t0, x0], [t1, x1]] = [path[i - 1], path[i]];
      return x0 + ((x1 - x0) * (time - t0)) / (t1 - t0);
    }

    function explain() {
      const order = read().sort((one, two) => one.half - two.half);
      const told = order.map(({ key, half }) => `${key} at time ${shown(half)}`).join(", ");
      return (
        `With ${dln.ui.layers(state.d)} the modes are half learnt in this order: ${told}. ` +
        (state.d > 1
          ? "Zero is a saddle: the larger a mode, the sooner it leaves; the smaller the start, the longer all wait."
          : "One layer has no saddle, and no mode waits.")
      );
    }

    function rest() {
      const fields = Object.entries(state).map(([key, x]) => [key, dln.ui.packed(x)]);
      dln.ui.writeState(NAME, fields);
      says.textContent = explain();
    }

    draw();
    says.textContent = explain();
  };
})(typeof globalThis === "undefined" ? this : globalThis);
