/* What all playgrounds share: elements, controls, plots, dragging, the state in the address. */
(function (root) {
  "use strict";

  const dln = (root.dln = root.dln || {});
  const SVG = "http://www.w3.org/2000/svg";

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...(children || []));
    return element;
  }

  const el = (tag, attributes, ...children) =>
    fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) =>
    fill(document.createElementNS(SVG, tag), attributes, children);

  /** A number for readers: three digits, a real minus sign, powers of ten where they are needed. */
  function shown(x, digits = 3) {
    if (!Number.isFinite(x)) return String(x);
    const size = Math.abs(x);
    if (size !== 0 && (size < 1e-3 || size >= 1e5)) {
      const [head, power] = x.toExponential(digits - 1).split("e");
      return `${head.replace("-", "−")}·10${superscript(Number(power))}`;
    }
    return String(Number(x.toPrecision(digits))).replace("-", "−");
  }

  const superscript = (n) => String(n).replace(/./g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);

  /** A labelled slider; `format` makes the words that stand beside it and that are read out. */
  function range({ label, min, max, step, value, format, oninput }) {
    const output = el("output", {});
    const input = el("input", { type: "range", min, max, step, value });
    const say = () => {
      output.textContent = format(Number(input.value));
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => {
      say();
      oninput(Number(input.value));
    });
    say();
    const node = el("label", { class: "pg-control" }, el("span", {}, label), input, output);
    const set = (x) => {
      input.value = x;
      say();
    };
    return { node, input, set };
  }

  /** How far training has come, 0 to 1: moved by hand, it stops what plays. */
  function scrub({ player, format, seek, rest }) {
    const moved = (value) => {
      if (player.playing()) player.stop();
      seek(value / 1000);
    };
    const made = range({ label: "training", min: 0, max: 1000, step: 1, value: 0, format, oninput: moved });
    made.input.addEventListener("change", rest);
    made.node.classList.add("pg-wide");
    return { node: made.node, set: (part) => made.set(Math.round(1000 * part)) };
  }

  /** A slider of one field of the state; afterwards `changed` is called. */
  const slider = (state, limits, changed) => (key, label, step, format) =>
    range({
      label,
      min: limits[key][0],
      max: limits[key][1],
      step,
      value: state[key],
      format,
      oninput(value) {
        state[key] = value;
        changed();
      },
    });

  const layers = (count) => `${count} layer${count > 1 ? "s" : ""}`;

  function select({ label, options, value, onchange }) {
    const made = Object.entries(options).map(([key, text]) => el("option", { value: key }, text));
    const input = el("select", { onchange: () => onchange(input.value) }, ...made);
    input.value = value;
    const node = el("label", { class: "pg-control" }, el("span", {}, label), input);
    return { node, set: (x) => (input.value = x) };
  }

  const button = (text, onclick) => el("button", { type: "button", class: "pg-button", onclick }, text);

  const still = () => root.matchMedia("(prefers-reduced-motion: reduce)").matches;

  // --- the state in the address ---------------------------------------------------------------
  // #pg_NAME_d3_p300xm200: letters, digits and underscores only, since pages use it as a selector.

  const packed = (x) => String(Math.round(x * 1000)).replace("-", "m");
  const unpacked = (text) => Number(text.replace("m", "-")) / 1000;

  /** Fields [letter, text] of this playground in the address, or null. */
  function readState(name) {
    const [mark, found, ...fields] = root.location.hash.slice(1).split("_");
    if (mark !== "pg" || found !== name) return null;
    return fields.map((field) => [field[0], field.slice(1)]);
  }

  function writeState(name, fields) {
    const hash = ["#pg", name, ...fields.map(([key, text]) => key + text)].join("_");
    try {
      root.history.replaceState(null, "", hash);
    } catch {
      // an address that this browser does not let a page from disk change: nothing is lost but it
    }
  }

  // --- dragging -------------------------------------------------------------------------------

  /** Lets `node`, in the picture `plane`, be moved by mouse, touch, pen and arrow keys. `move` gets
   * a position in the units of the picture, `nudge` a step of one hundredth (with Shift: of ten). */
  function draggable(plane, node, { move, nudge, rest, keys }) {
    const where = (event) => {
      const at = new DOMPoint(event.clientX, event.clientY);
      const { x, y } = at.matrixTransform(plane.getScreenCTM().inverse());
      return [x, y];
    };
    node.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.preventDefault();
      node.setPointerCapture(event.pointerId);
      node.focus();
      const moved = (e) => move(where(e));
      node.addEventListener("pointermove", moved);
      const end = () => {
        node.removeEventListener("pointermove", moved);
        rest();
      };
      node.addEventListener("lostpointercapture", end, { once: true });
    });
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    node.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      const other = keys && keys[event.key];
      if (!step && !other) return;
      event.preventDefault();
      const size = event.shiftKey ? 0.1 : 0.01;
      if (step) nudge([step[0] * size, step[1] * size]);
      else other();
      rest();
    });
  }

  // --- plots ----------------------------------------------------------------------------------

  const BOX = { left: 52, right: 16, top: 12, bottom: 44 };

  function ticks(low, high, log) {
    if (log) {
      const every = Math.ceil((Math.floor(high) - Math.ceil(low) + 1) / 6);
      const first = Math.ceil(low / every) * every;
      const found = [];
      for (let k = first; k <= high + 1e-9; k += every) found.push([k, `10${superscript(k)}`]);
      return found;
    }
    const rough = (high - low) / 5;
    const power = Math.pow(10, Math.floor(Math.log10(rough)));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
    const found = [];
    for (let x = Math.ceil(low / step) * step; x <= high + 1e-9 * step; x += step) {
      found.push([x, shown(Math.abs(x) < 1e-9 * step ? 0 : x)]);
    }
    return found;
  }

  /** An empty plot: `draw(curves)` with curves { points, class, width }, in the units of the axes
   * (logarithms to base 10 where `log`); `mark(x)` moves the cursor. */
  function plot({ width = 560, height = 235, x, y, label }) {
    const inner = svg("g", { class: "pg-curves" });
    const axes = svg("g", { class: "pg-axes" });
    const cursor = svg("line", { class: "pg-cursor", x1: -9, x2: -9, y1: BOX.top, y2: height - BOX.bottom });
    const picture = svg("svg", {
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": label,
      class: "pg-plot",
    });
    const clip = `pg-clip-${(plot.count = (plot.count || 0) + 1)}`;
    const frame = {
      x: BOX.left,
      y: BOX.top,
      width: width - BOX.left - BOX.right,
      height: height - BOX.top - BOX.bottom,
    };
    const path = svg("clipPath", { id: clip }, svg("rect", frame));
    inner.setAttribute("clip-path", `url(#${clip})`);
    picture.append(path, axes, inner, cursor);
    const px = (v) => frame.x + ((v - x.low) / (x.high - x.low)) * frame.width;
    const py = (v) => frame.y + (1 - (v - y.low) / (y.high - y.low)) * frame.height;

    function drawAxes() {
      const bottom = frame.y + frame.height;
      const lines = ticks(x.low, x.high, x.log).flatMap(([v, text]) => [
        svg("line", { x1: px(v), x2: px(v), y1: frame.y, y2: bottom, class: "pg-grid" }),
        svg("text", { x: px(v), y: bottom + 18, "text-anchor": "middle" }, text),
      ]);
      const levels = ticks(y.low, y.high, y.log).flatMap(([v, text]) => [
        svg("line", { x1: frame.x, x2: frame.x + frame.width, y1: py(v), y2: py(v), class: "pg-grid" }),
        svg("text", { x: frame.x - 6, y: py(v) + 5, "text-anchor": "end" }, text),
      ]);
      const across = svg("text", { x: frame.x + frame.width, y: height - 4, "text-anchor": "end" }, x.name);
      const up = svg("text", { x: frame.x + frame.width - 6, y: frame.y + 16, "text-anchor": "end" }, y.name);
      axes.replaceChildren(...lines, ...levels, across, up);
    }

    drawAxes();
    return {
      node: picture,
      draw(curves) {
        inner.replaceChildren(
          ...curves.map(({ points, kind, node }) => {
            if (node) return node(px, py);
            const line = points.map(([a, b]) => `${px(a).toFixed(1)},${py(b).toFixed(1)}`).join(" ");
            return svg("polyline", { points: line, class: kind });
          })
        );
      },
      mark(at) {
        cursor.setAttribute("x1", px(at));
        cursor.setAttribute("x2", px(at));
      },
      scale(nextX, nextY) {
        Object.assign(x, nextX);
        Object.assign(y, nextY);
        drawAxes();
      },
    };
  }

  /** Names and numbers beside a picture: `show({ name: value })`. */
  function facts() {
    const node = el("dl", { class: "pg-facts" });
    const show = (values) => {
      const rows = Object.entries(values);
      if (node.children.length !== rows.length) {
        node.replaceChildren(...rows.map(() => el("div", {}, el("dt", {}), el("dd", {}))));
      }
      rows.forEach(([name, value], i) => {
        node.children[i].firstChild.textContent = name;
        node.children[i].lastChild.textContent = value;
      });
    };
    return { node, show };
  }

  /** What the signs in a picture mean: [kind, words]. */
  const key = (...rows) =>
    el("p", { class: "pg-key" }, ...rows.map(([kind, words]) => el("span", { class: kind }, words)));

  // --- time -----------------------------------------------------------------------------------

  const PLAY = "▶ Train";

  /** A play button over a position from 0 to 1; with reduced motion it goes to the end at once. */
  function player(seconds, position, change, rest) {
    let [frame, from, begun] = [0, 0, 0];
    const node = button(PLAY, () => (frame ? stop() : start()));
    node.classList.add("pg-play");
    function stop() {
      root.cancelAnimationFrame(frame);
      frame = 0;
      node.textContent = PLAY;
      rest();
    }
    function step(now) {
      const at = Math.min(from + (now - begun) / (1000 * seconds), 1);
      change(at);
      if (at >= 1) stop();
      else frame = root.requestAnimationFrame(step);
    }
    function start() {
      if (still()) {
        change(1);
        return rest();
      }
      from = position() >= 0.999 ? 0 : position();
      begun = root.performance.now();
      node.textContent = "❚❚ Pause";
      frame = root.requestAnimationFrame(step);
    }
    return { node, start, stop, playing: () => frame !== 0 };
  }

  dln.ui = {
    el, svg, shown, layers, range, slider, scrub, select, button, still, packed, unpacked, readState, writeState,
    draggable, plot, facts, key, player,
  };

  /** Every playground adds itself here; the page's own are then put where it asks for them. */
  dln.playgrounds = dln.playgrounds || {};

  function mountAll() {
    for (const host of document.querySelectorAll(".dln-playground[data-name]")) {
      const mount = dln.playgrounds[host.dataset.name];
      if (!mount) continue;
      host.replaceChildren();
      mount(host);
      host.classList.add("pg-ready");
    }
  }

  if (typeof document !== "undefined") document.addEventListener("DOMContentLoaded", mountAll);
})(typeof globalThis === "undefined" ? this : globalThis);
