/* The mathematics of the playgrounds: points in the plane, z_i = y_i x_i, and lines through the
 * origin. Classic script, one namespace; no drawing here. tests/test_playground.py compares it with
 * dlnlib to 1e-6.
 */
(function (root) {
  "use strict";

  const dln = (root.dln = root.dln || {});
  const TIE = 1e-10; // margins this close, over the largest point, are equal

  const dot = (a, b) => a[0] * b[0] + a[1] * b[1];
  const norm = (a) => Math.hypot(a[0], a[1]);
  const sum = (values) => values.reduce((total, value) => total + value, 0);

  // --- the data alone ---------------------------------------------------------------------------

  /** Nearest points to 0 of every vertex and edge of the hull of z: one of them, normalised, is the
   * direction of maximum margin. */
  function candidates(z) {
    const found = z.filter((v) => norm(v) > 0);
    z.forEach((a, i) => {
      for (const b of z.slice(i + 1)) {
        const d = [b[0] - a[0], b[1] - a[1]];
        const t = -dot(a, d) / dot(d, d);
        if (t > 0 && t < 1) found.push([a[0] + t * d[0], a[1] + t * d[1]]);
      }
    });
    return found.filter((v) => norm(v) > 0);
  }

  /** Weights of sum 1 with sum_i a_i z_i = 0, on two or three points, or null: proof that no line
   * separates. Of all triangles around 0 the one in which the least weight is largest. */
  function certificate(z) {
    const cross = (a, b) => a[0] * b[1] - a[1] * b[0];
    let best = null;
    const consider = (indices, weights) => {
      const total = sum(weights);
      const least = Math.min(...weights) / total;
      if (total > 0 && least >= 0 && !(best && least <= best.least)) {
        best = { least, indices, weights: weights.map((a) => a / total) };
      }
    };
    z.forEach((a, i) => {
      if (norm(a) === 0) consider([i], [1]);
      for (let j = i + 1; j < z.length; j++) {
        if (Math.abs(cross(a, z[j])) <= 1e-12 && dot(a, z[j]) < 0) {
          consider([i, j], [norm(z[j]), norm(a)]);
        }
        for (let k = j + 1; k < z.length; k++) {
          const [p, q, r] = [cross(z[j], z[k]), cross(z[k], a), cross(a, z[j])];
          const turn = Math.sign(p + q + r);
          if (turn) consider([i, j, k], [turn * p, turn * q, turn * r]);
        }
      }
    });
    return best;
  }

  /** q with sum_i t_i exp(-q t_i) = 0, by bisection of a monotone function; t of both signs. */
  function offset(t) {
    const pull = (q) => {
      const most = Math.max(...t.map((x) => -q * x));
      return sum(t.map((x) => x * Math.exp(-q * x - most)));
    };
    let [low, high] = [-1, 1];
    while (pull(low) < 0) low *= 2;
    while (pull(high) > 0) high *= 2;
    for (let k = 0; k < 200; k++) {
      const middle = (low + high) / 2;
      if (pull(middle) > 0) low = middle;
      else high = middle;
    }
    return (low + high) / 2;
  }

  /** The maximum margin of z: separable, margin, direction, angle, support (indices), spans (two
   * support vectors or more), offset (p* along the direction turned by 90 degrees, or null), and
   * certificate where no line separates. */
  dln.maxMargin = function (z) {
    const size = Math.max(...z.map(norm));
    let [margin, direction] = [-Infinity, [1, 0]];
    for (const v of candidates(z)) {
      const u = [v[0] / norm(v), v[1] / norm(v)];
      const least = Math.min(...z.map((x) => dot(u, x)));
      if (least > margin) [margin, direction] = [least, u];
    }
    if (!(margin > 1e-12 * size)) return { separable: false, certificate: certificate(z) };
    const across = [-direction[1], direction[0]];
    const support = z.flatMap((x, i) => (dot(direction, x) - margin <= TIE * size ? [i] : []));
    const t = support.map((i) => dot(across, z[i]));
    const around = Math.min(...t) < -TIE * size && Math.max(...t) > TIE * size;
    const alone = t.every((x) => Math.abs(x) <= TIE * size);
    return {
      separable: true,
      margin,
      direction,
      angle: Math.atan2(direction[1], direction[0]),
      support,
      spans: around,
      offset: around ? offset(t) : alone ? 0 : null,
    };
  };

  // --- losses, in the log domain ----------------------------------------------------------------

  const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
  const sigmoid = (x) => (x > 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));

  /** log l(m), log |l'(m)|, and how fast the latter falls with m. */
  dln.losses = {
    exponential: { value: (m) => -m, slope: (m) => -m, decay: () => 1 },
    logistic: {
      value: (m) => (m > 36 ? -m : Math.log(softplus(-m))),
      slope: (m) => -softplus(m),
      decay: sigmoid,
    },
  };

  function softmax(logs) {
    const most = Math.max(...logs);
    const weights = logs.map((x) => Math.exp(x - most));
    const total = sum(weights);
    return weights.map((x) => x / total);
  }

  /** log(1/risk) of these margins. */
  dln.logInverseRisk = function (margins, loss) {
    const logs = margins.map(dln.losses[loss].value);
    const most = Math.max(...logs);
    return Math.log(logs.length) - most - Math.log(sum(logs.map((x) => Math.exp(x - most))));
  };

  /** Shares p_i of the points in the gradient: |l'(m_i)| over their sum. */
  dln.shares = (margins, loss) => softmax(margins.map(dln.losses[loss].slope));

  // --- the flow from a balanced start ------------------------------------------------------------

  // The L-stable method of order 4 of Hairer and Wanner (Solving ODEs II, IV.6), and its estimate.
  const GAMMA = 1 / 4;
  const NODES = [1 / 4, 3 / 4, 11 / 20, 1 / 2, 1];
  const STAGES = [
    [],
    [1 / 2],
    [17 / 50, -1 / 25],
    [371 / 1360, -137 / 2720, 15 / 544],
    [25 / 24, -49 / 48, 125 / 16, -85 / 12],
  ];
  const ERROR = [25 / 24 - 59 / 48, -49 / 48 + 17 / 96, 125 / 16 - 225 / 32, 0, 1 / 4];
  const ACCURACY = 1e-9; // of a step
  const LONGEST = 0.1; // a step of log ||w||: cubic interpolation between steps stays below 1e-7

  /** Speeds along and across w = e^s (cos, sin) of (axis + delta), and how fast their ratio changes
   * with delta. From a balanced start of depth L the end-to-end vector obeys
   *   dw/dt ~ ||w||^(2-2/L) (I + (L-1) w w^T/||w||^2) g,   g = sum_i p_i z_i,
   * whatever the width: so d delta / d log ||w|| = across / (L along). */
  function field({ frame, depth, loss }, s, delta) {
    const { slope, decay } = dln.losses[loss];
    const [c, d, r] = [Math.cos(delta), Math.sin(delta), Math.exp(s)];
    const logs = frame.map(([a, t]) => slope(r * (a * c + t * d)));
    const most = Math.max(...logs);
    let [total, A, B, pace] = [0, 0, 0, 0]; // sums over p, of margins over r and of their change
    let [dA, dB] = [0, 0];
    frame.forEach(([a, t], i) => {
      const p = Math.exp(logs[i] - most);
      const [along, across] = [a * c + t * d, t * c - a * d];
      const falls = p * r * decay(r * along) * across; // of p, as delta grows
      total += p;
      A += p * along;
      B += p * across;
      pace += falls;
      dA -= falls * along;
      dB -= falls * across;
    });
    [A, B, pace] = [A / total, B / total, pace / total];
    dA = dA / total + pace * A + B;
    dB = dB / total + pace * B - A;
    return { A: depth * A, B, rate: B / (depth * A), slope: (dB * A - B * dA) / (depth * A * A) };
  }

  // The unknown of a step is y = ||w|| delta, which comes to rest at p*, so that late steps are long:
  // dy / d log ||w|| = ||w|| rate + y.

  /** Newton's iteration for one stage: y = base + h GAMMA y'; null: not found. */
  function stage(problem, s, base, guess, h) {
    const r = Math.exp(s);
    let y = guess;
    for (let k = 0; k < 12; k++) {
      const here = field(problem, s, y / r);
      if (!(here.A > 0)) return null;
      const step =
        (y - base - h * GAMMA * (r * here.rate + y)) / (1 - h * GAMMA * (here.slope + 1));
      y -= step;
      if (!(Math.abs(step) < r)) return null;
      if (Math.abs(step) <= 1e-12 * (1 + Math.abs(y))) break;
    }
    return y;
  }

  function implicitStep(problem, s, delta, h) {
    const slopes = [];
    const start = Math.exp(s) * delta;
    let y = start;
    for (let i = 0; i < 5; i++) {
      const base = start + h * sum(STAGES[i].map((a, j) => a * slopes[j]));
      y = stage(problem, s + NODES[i] * h, base, y, h);
      if (y === null) return { delta, error: Infinity };
      slopes.push((y - base) / (h * GAMMA));
    }
    const end = y / Math.exp(s + h);
    const damped = 1 - h * GAMMA * (field(problem, s + h, end).slope + 1);
    const error = h * sum(ERROR.map((e, i) => e * slopes[i]));
    return { delta: end, error: Math.abs(error / damped) / (1 + Math.abs(y)) };
  }

  /** A step of Runge and Kutta along the path, where the norm falls or hardly grows. */
  function pathStep(problem, s, delta, h) {
    const unit = (x, y) => {
      const { A, B } = field(problem, x, y);
      const size = Math.hypot(A, B) || 1;
      return [A / size, B / size];
    };
    const k1 = unit(s, delta);
    const k2 = unit(s + (h / 2) * k1[0], delta + (h / 2) * k1[1]);
    const k3 = unit(s + (h / 2) * k2[0], delta + (h / 2) * k2[1]);
    const k4 = unit(s + h * k3[0], delta + h * k3[1]);
    const mix = (i) => (h / 6) * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i]);
    return [s + mix(0), delta + mix(1)];
  }

  /** Gradient flow of a deep linear network from a balanced start with predictor `start`, until
   * log ||w|| = `until`. Returns clock (0 and up), logNorm, delta (angle from the axis of maximum
   * margin) and its rate at every step, and whether it got there. */
  dln.balancedFlow = function (z, { depth, loss, start, until, accuracy }) {
    const solution = dln.maxMargin(z);
    const u = solution.separable ? solution.direction : [1, 0];
    const frame = z.map((x) => [dot(u, x), u[0] * x[1] - u[1] * x[0]]);
    const problem = { frame, depth, loss };
    let s = Math.log(norm(start));
    let delta = Math.atan2(u[0] * start[1] - u[1] * start[0], dot(u, start));
    let [clock, h] = [0, 0.01];
    const path = { frame, loss, clock: [], logNorm: [], delta: [], rate: [], reached: false };
    const record = () => {
      path.clock.push(clock);
      path.logNorm.push(s);
      path.delta.push(delta);
      path.rate.push(field(problem, s, delta).rate);
    };
    record();
    const goal = accuracy || ACCURACY;
    for (let k = 0; k < 6000 && s < until - 1e-12; k++) {
      const { A, B } = field(problem, s, delta);
      if (A <= 0.2 * Math.abs(B)) {
        const length = 0.02 / (1 + 0.3 * Math.exp(s));
        const before = s;
        [s, delta] = pathStep(problem, s, delta, length);
        clock += Math.max(Math.abs(s - before), length / 2);
        if (s < -12) return path; // into the saddle at 0
      } else {
        h = Math.min(h, until - s, LONGEST);
        const tried = implicitStep(problem, s, delta, h);
        const factor = 0.9 * Math.pow(goal / tried.error, 0.25);
        const good = factor >= 0.9;
        if (good) [s, delta, clock] = [s + h, tried.delta, clock + h];
        h *= Math.min(5, Math.max(0.2, factor || 0.2)); // NaN: the stages were not found
        if (h < 1e-9) return path;
        if (!good) continue;
      }
      record();
    }
    path.reached = s >= until - 1e-9;
    return path;
  };

  /** The last index whose clock is at most `clock`. */
  function find(clocks, clock) {
    let [low, high] = [0, clocks.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (clocks[middle] <= clock) low = middle;
      else high = middle;
    }
    return low;
  }

  function hermite(x, x0, x1, y0, y1, d0, d1) {
    const [h, t] = [x1 - x0, (x - x0) / (x1 - x0)];
    const [a, b] = [t * t * (3 - 2 * t), t * (1 - t)];
    return y0 * (1 - a) + y1 * a + h * b * ((1 - t) * d0 - t * d1);
  }

  /** log ||w|| and delta of a path at this clock, the margins there, and psi = log(1/risk). */
  dln.pathAt = function (path, clock) {
    const { clock: c, logNorm: n, delta: d, rate: k } = path;
    const last = c.length - 1;
    if (last < 1) return state(path, n[0], d[0]);
    const i = find(c, Math.min(clock, c[last]));
    const t = Math.min(Math.max((clock - c[i]) / (c[i + 1] - c[i]), 0), 1);
    const s = n[i] * (1 - t) + n[i + 1] * t;
    const grows = Math.abs(n[i + 1] - n[i] - c[i + 1] + c[i]) < 1e-12;
    if (grows) return state(path, s, hermite(s, n[i], n[i + 1], d[i], d[i + 1], k[i], k[i + 1]));
    return state(path, s, d[i] * (1 - t) + d[i + 1] * t);
  };

  function state({ frame, loss }, logNorm, delta) {
    const [r, c, d] = [Math.exp(logNorm), Math.cos(delta), Math.sin(delta)];
    const margins = frame.map(([a, t]) => r * (a * c + t * d));
    return { logNorm, delta, margins, psi: dln.logInverseRisk(margins, loss) };
  }
})(typeof globalThis === "undefined" ? this : globalThis);
