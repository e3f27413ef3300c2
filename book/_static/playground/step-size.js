/* Gradient descent on the simplest deep network with every step: rest, two values in turn, chaos. */
(function (root) {
  "use strict";

  const dln = root.dln;
  const { el, svg, shown } = dln.ui;
  const NAME = "step-size";
  const [WIDE, HIGH, LEFT, BOTTOM] = [560, 300, 40, 36]; // of the picture
  const MOST = 1.8; // of the product, on the picture

  dln.playgrounds[NAME] = function (host) {
    const state = { d: 2, e: 1.15 }; // e: the step over the critical one
    for (const [key, text] of dln.ui.readState(NAME) || []) {
      const value = dln.ui.unpacked(text);
      if (key === "d" && value >= 1 && value <= 5) state.d = Math.round(value);
      if (key === "e" && value >= 0.2 && value <= 1.8) state.e = value;
    }
    const dots = el("canvas", { width: 2 * WIDE, height: 2 * HIGH, "aria-hidden": "true" });
    const over = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", class: "pg-over" });
    const course = dln.ui.plot({
      height: HIGH,
      x: { low: 0, high: 60, name: "step" },
      y: { low: 0, high: MOST, name: "product of the layers" },
      label: "The product of the layers, step after step",
    });
    const says = el("p", { class: "pg-says", "aria-live": "polite" });
    const depth = dln.ui.range({
      label: "depth",
      min: 1,
      max: 5,
      step: 1,
      value: state.d,
      format: dln.ui.layers,
      oninput: (value) => change({ d: value }),
    });
    const step = dln.ui.range({
      label: "step over the critical one",
      min: 0.2,
      max: 1.8,
      step: 0.005,
      value: state.e,
      format: (value) => shown(value),
      oninput: (value) => change({ e: value }),
    });
    step.node.classList.add("pg-wide");
    host.append(
      el(
        "div",
        { class: "pg-stage pg-even" },
        el("div", { class: "pg-layers" }, dots, over),
        course.node
      ),
      el("div", { class: "pg-controls" }, depth.node, step.node),
      says
    );

    const eta = () => state.e * dln.criticalStep(state.d);
    const px = (ratio) => LEFT + ((ratio - 0.2) / 1.6) * (WIDE - LEFT - 12);
    const py = (product) => HIGH - BOTTOM - (product / MOST) * (HIGH - BOTTOM - 10);

    function drawDots() {
      const pen = dots.getContext("2d");
      pen.setTransform(2, 0, 0, 2, 0, 0);
      pen.clearRect(0, 0, WIDE, HIGH);
      pen.fillStyle = root.getComputedStyle(host).getPropertyValue("--pg-a");
      for (let x = LEFT; x < WIDE - 12; x += 0.5) {
        const ratio = 0.2 + (1.6 * (x - LEFT)) / (WIDE - LEFT - 12);
        const found = dln.steps(state.d, ratio * dln.criticalStep(state.d), 0.9, 400, 80);
        for (const product of found) pen.fillRect(x, py(product), 0.7, 0.7);
      }
    }

    function drawOver() {
      const line = (x, kind) => svg("line", { x1: x, x2: x, y1: 10, y2: HIGH - BOTTOM, class: kind });
      const label = (x, y, text, anchor) => svg("text", { x, y, "text-anchor": anchor }, text);
      over.replaceChildren(
        line(px(1), "pg-told"),
        line(px(state.e), "pg-cursor"),
        svg("line", { x1: LEFT, x2: WIDE - 12, y1: HIGH - BOTTOM, y2: HIGH - BOTTOM, class: "pg-grid" }),
        label(px(1) + 6, 24, "critical step 2/L", "start"),
        label(LEFT, 24, "products that recur", "start"),
        ...[0.5, 1, 1.5].map((ratio) => label(px(ratio), HIGH - BOTTOM + 18, shown(ratio), "middle")),
        ...[0, 1].map((product) => label(LEFT - 8, py(product) + 5, shown(product), "end")),
        label(WIDE - 12, HIGH - 2, "step over the critical one", "end")
      );
    }

    function draw(all) {
      if (all) drawDots();
      drawOver();
      const products = dln.steps(state.d, eta(), 0.9, 0, 61);
      const kinds = [{ kind: "pg-told", points: [[0, 1], [60, 1]] }];
      course.draw([...kinds, { kind: "pg-curve", points: products.map((x, k) => [k, x]) }]);
      over.setAttribute("aria-label", explain());
    }

    function explain() {
      const found = dln.steps(state.d, eta(), 0.9, 2000, 64);
      const distinct = [...new Set(found.map((x) => x.toFixed(6)))];
      const begin = `Step ${shown(eta())}, ${shown(state.e)} times the critical ${shown(dln.criticalStep(state.d))}: `;
      if (found.length < 64) return begin + "the iteration diverges.";
      if (distinct.length === 1) return begin + `it comes to rest at ${shown(found[0])}.`;
      if (distinct.length <= 16) {
        return begin + `it repeats ${distinct.length} values in turn, from ${shown(Math.min(...found))} to ${shown(Math.max(...found))}.`;
      }
      return begin + `it never repeats: chaos between ${shown(Math.min(...found))} and ${shown(Math.max(...found))}.`;
    }

    function change(next) {
      const all = "d" in next;
      Object.assign(state, next);
      draw(all);
      says.textContent = explain();
      dln.ui.writeState(NAME, Object.entries(state).map(([key, x]) => [key, dln.ui.packed(x)]));
    }

    draw(true);
    says.textContent = explain();
    new MutationObserver(drawDots).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  };
})(typeof globalThis === "undefined" ? this : globalThis);
