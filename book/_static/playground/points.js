/* Points of two classes in the plane: examples, their state in the address, and how they look. */
(function (root) {
  "use strict";

  const dln = root.dln;
  const { svg, shown, packed, unpacked } = dln.ui;
  const NAME = "support-vectors";
  const UNIT = 180; // of the picture's 400, for a length of 1
  const EDGE = 1.08; // points stay within this
  const DEEPEST = 6;

  const EXAMPLES = {
    eight: {
      name: "eight points",
      points: [
        [-0.1, 0.7, 1], [0.22, 0.62, 1], [0.62, 0.16, 1], [0.72, 0.7, 1],
        [-0.75, 0.12, -1], [-0.38, -0.45, -1], [-0.3, -0.85, -1], [0.15, -0.9, -1],
      ],
      start: [0.35, -0.25],
    },
    six: {
      name: "the book’s six points",
      points: [
        [0.3, 0.5, 1], [-0.3, 0.3, -1], [0.5, 0.6, 1], [-0.6, 0.5, -1], [0.4, 0.1, 1], [-0.6, -0.2, -1],
      ],
      start: [0.1, 0.4],
    },
    one: {
      name: "one support vector",
      points: [[0.3, 0, 1], [-0.5, -0.6, -1], [0.6, -0.2, 1], [-0.45, -0.3, -1]],
      start: [0.2, 0.4],
    },
    mixed: {
      name: "not separable",
      points: [
        [0.5, 0.4, 1], [-0.4, 0.6, 1], [0.1, -0.6, 1], [-0.5, -0.3, -1], [0.6, -0.3, -1], [0.1, 0.3, -1],
      ],
      start: [0.35, -0.25],
    },
  };

  /** An example as a state of its own. */
  const copy = (example) => ({
    points: example.points.map(([x, y, label]) => ({ at: [x, y], label })),
    start: [...example.start],
  });

  function initial() {
    const state = { depth: 3, loss: "logistic", ...copy(EXAMPLES.eight) };
    const fields = dln.ui.readState(NAME);
    if (!fields) return state;
    const pair = (text) => text.split("x").map((part) => clamp(unpacked(part)));
    const points = [];
    for (const [key, text] of fields) {
      if (key === "d" && Number(text) >= 1 && Number(text) <= DEEPEST) state.depth = Number(text);
      if (key === "l") state.loss = text === "e" ? "exponential" : "logistic";
      if (key === "s" && pair(text).length === 2) state.start = pair(text);
      if ((key === "a" || key === "b") && pair(text).length === 2) {
        points.push({ at: pair(text), label: key === "a" ? 1 : -1 });
      }
    }
    return points.length ? { ...state, points } : state;
  }

  const clamp = (x) => Math.max(-EDGE, Math.min(EDGE, x || 0));

  function save({ depth, loss, start, points }) {
    const pair = ([x, y]) => `${packed(x)}x${packed(y)}`;
    dln.ui.writeState(NAME, [
      ["d", depth],
      ["l", loss[0]],
      ["s", pair(start)],
      ...points.map(({ at, label }) => [label > 0 ? "a" : "b", pair(at)]),
    ]);
  }

  // --- the picture ------------------------------------------------------------------------------

  const px = ([x, y]) => [200 + UNIT * x, 200 - UNIT * y];

  /** A line through 0 across the direction of this angle, `away` from it. */
  function across(angle, away, kind) {
    const [c, d] = [Math.cos(angle), Math.sin(angle)];
    const end = (far) => px([away * c - far * d, away * d + far * c]);
    const [[x1, y1], [x2, y2]] = [end(2), end(-2)];
    return svg("line", { x1, y1, x2, y2, class: kind });
  }

  function sides(angle) {
    const turn = `rotate(${(-angle * 180) / Math.PI} 200 200)`;
    return svg(
      "g",
      { transform: turn },
      svg("rect", { x: 200, y: -200, width: 400, height: 800, class: "pg-side-a" }),
      svg("rect", { x: -200, y: -200, width: 400, height: 800, class: "pg-side-b" })
    );
  }

  // --- points that can be moved -----------------------------------------------------------------

  /** A node that can be dragged and nudged, at `position()`; `set` moves it, `rest` follows. */
  function handle(plane, attributes, { position, set, rest, keys }, ...shapes) {
    const node = svg("g", { tabindex: 0, role: "slider", ...attributes }, ...shapes);
    node.setAttribute("aria-valuemin", -EDGE);
    node.setAttribute("aria-valuemax", EDGE);
    node.append(svg("circle", { r: 20, class: "pg-reach" }));
    const to = (at) => set(at.map(clamp));
    dln.ui.draggable(plane, node, {
      move: ([x, y]) => to([(x - 200) / UNIT, (200 - y) / UNIT]),
      nudge: (step) => to(position().map((x, k) => x + step[k])),
      rest,
      keys,
    });
    return node;
  }

  /** Puts a node where its point is and says so. */
  function place(node, at, more = "") {
    const [x, y] = px(at);
    node.setAttribute("transform", `translate(${x.toFixed(2)} ${y.toFixed(2)})`);
    node.setAttribute("aria-valuenow", at[0].toFixed(2));
    node.setAttribute("aria-valuetext", `${shown(at[0], 2)} right, ${shown(at[1], 2)} up${more}`);
  }

  const marker = (label) =>
    label > 0
      ? svg("circle", { r: 7.5, class: "pg-shape" })
      : svg("rect", { x: -7, y: -7, width: 14, height: 14, class: "pg-shape" });

  dln.points = { EXAMPLES, copy, initial, save, px, across, sides, handle, place, marker };
})(typeof globalThis === "undefined" ? this : globalThis);
