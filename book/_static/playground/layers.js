/* The mathematics of networks with layers, of modes and of steps: what `flow.js` is for the plane.
 * Classic script, no drawing; tests/test_playground.py compares it with dlnlib to 1e-6. */
(function (root) {
  "use strict";

  const dln = root.dln;
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const dot = (a, b) => a.reduce((total, x, i) => total + x * b[i], 0);

  // --- layers: matrices as lists of rows ----------------------------------------------------------

  /** Normal numbers of this seed, always the same ones. */
  dln.normals = function (seed) {
    let state = (seed + 1) * 0x9e3779b9;
    const uniform = () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
    };
    return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  };

  /** Layers of these sizes with normal entries of standard deviation scale / sqrt(inputs). */
  dln.gaussian = function (dims, seed, scale) {
    const normal = dln.normals(seed);
    return dims.slice(1).map((rows, k) =>
      Array.from({ length: rows }, () =>
        Array.from({ length: dims[k] }, () => (normal() * scale) / Math.sqrt(dims[k]))
      )
    );
  };

  const times = (W, v) => W.map((row) => dot(row, v));
  const back = (W, a) => W[0].map((_, j) => sum(W.map((row, i) => a[i] * row[j])));

  /** W_k ... W_1 q for k = 0, 1, ..., and W_L ... W_{k+1} for k = L, ..., 0 (lists of vectors). */
  function chains(layers, q) {
    const below = [q];
    layers.forEach((W, k) => below.push(times(W, below[k])));
    const above = [[1]];
    [...layers].reverse().forEach((W, k) => above.push(back(W, above[k])));
    return { below, above: above.reverse() };
  }

  /** The direction of steepest descent of the risk, of length 1, in all layers. */
  function descent(layers, z, loss) {
    const w = chains(layers, z[0]).above[0];
    const p = dln.shares(z.map((x) => dot(w, x)), loss);
    const q = z[0].map((_, j) => sum(z.map((x, i) => p[i] * x[j])));
    const { below, above } = chains(layers, q);
    const slopes = layers.map((W, k) => above[k + 1].map((a) => below[k].map((b) => a * b)));
    const size = Math.sqrt(sum(slopes.flat(2).map((x) => x * x)));
    return slopes.map((W) => W.map((row) => row.map((x) => x / size)));
  }

  const add = (layers, parts) =>
    layers.map((W, k) =>
      W.map((row, i) => row.map((x, j) => parts.reduce((y, [h, V]) => y + h * V[k][i][j], x)))
    );
  const length = (layers) => Math.sqrt(sum(layers.flat(2).map((x) => x * x)));

  // Dormand and Prince's pair of order 5.
  const DP = [
    [1 / 5],
    [3 / 40, 9 / 40],
    [44 / 45, -56 / 15, 32 / 9],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
    [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
  ];
  const DP_ERROR = [71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40];

  /** Gradient flow of these layers on the risk of z, with the length of the path as its clock,
   * until log(1/risk) = `until`: the layers and log(1/risk) after every step. */
  dln.layersFlow = function (layers, z, { loss, until, accuracy = 1e-9, most = 4000 }) {
    const psi = (here) => {
      const w = chains(here, z[0]).above[0];
      return dln.logInverseRisk(z.map((x) => dot(w, x)), loss);
    };
    let [here, first] = [layers, descent(layers, z, loss)];
    let h = 1e-3 * length(layers);
    const path = { layers: [here], psi: [psi(here)], norm: [length(here)], reached: false };
    for (let n = 0; n < most && path.psi[path.psi.length - 1] < until; n++) {
      const slopes = [first];
      let next = here;
      for (const row of DP) {
        next = add(here, row.map((a, i) => [h * a, slopes[i]]));
        slopes.push(descent(next, z, loss));
      }
      const wrong = add(
        here.map((W) => W.map((row) => row.map(() => 0))),
        DP_ERROR.map((e, i) => [h * e, slopes[i]])
      );
      const error = length(wrong) / (accuracy * length(here));
      if (error <= 1) {
        [here, first] = [next, slopes[6]];
        path.layers.push(here);
        path.psi.push(psi(here));
        path.norm.push(length(here));
      }
      h *= Math.min(4, Math.max(0.2, 0.9 * Math.pow(error, -0.2) || 0.2));
    }
    path.reached = path.psi[path.psi.length - 1] >= until;
    return path;
  };

  // --- singular values, balances ------------------------------------------------------------------

  const transpose = (W) => W[0].map((_, j) => W.map((row) => row[j]));
  const product = (A, B) => A.map((row) => transpose(B).map((column) => dot(row, column)));

  /** Eigenvalues of a symmetric matrix, largest first, by Jacobi's rotations. */
  function eigenvalues(symmetric) {
    const A = symmetric.map((row) => [...row]);
    const n = A.length;
    for (let sweep = 0; sweep < 30; sweep++) {
      for (let p = 0; p < n; p++) {
        for (let q = p + 1; q < n; q++) {
          if (A[p][q] === 0) continue;
          const theta = (A[q][q] - A[p][p]) / (2 * A[p][q]);
          const t = Math.sign(theta || 1) / (Math.abs(theta) + Math.hypot(theta, 1));
          const [c, s] = [1 / Math.hypot(t, 1), t / Math.hypot(t, 1)];
          for (let k = 0; k < n; k++) {
            [A[k][p], A[k][q]] = [c * A[k][p] - s * A[k][q], s * A[k][p] + c * A[k][q]];
          }
          for (let k = 0; k < n; k++) {
            [A[p][k], A[q][k]] = [c * A[p][k] - s * A[q][k], s * A[p][k] + c * A[q][k]];
          }
        }
      }
    }
    return A.map((row, i) => row[i]).sort((a, b) => b - a);
  }

  /** Singular values of a layer, largest first. */
  dln.singularValues = function (W) {
    const small = W.length <= W[0].length ? product(W, transpose(W)) : product(transpose(W), W);
    return eigenvalues(small).map((x) => Math.sqrt(Math.max(x, 0)));
  };

  /** ||W||_F^2 - ||W||_2^2. */
  dln.rankOneGap = (W) => sum(dln.singularValues(W).slice(1).map((x) => x * x));

  /** D of Ji and Telgarsky's Lemma 2, from the start alone. */
  dln.rankOneBound = function (layers) {
    const sizes = layers.map((W) => sum(W.flat().map((x) => x * x)));
    const spreads = layers.slice(1).map((above, k) => {
      const A = product(transpose(above), above);
      const B = product(layers[k], transpose(layers[k]));
      const G = A.map((row, i) => row.map((x, j) => x - B[i][j]));
      return Math.max(...eigenvalues(G).map(Math.abs));
    });
    return Math.max(...sizes) - sizes[sizes.length - 1] + sum(spreads);
  };

  // --- modes and plateaus --------------------------------------------------------------------------

  /** When a mode of the squared loss reaches each of these shares of its end: from balanced layers
   * of depth L and product `start`, the product obeys dx/dt = L x^(2-2/L) (s - x), so that
   *   t = integral dx / (L x^(2-2/L) (s - x)),
   * here with log(x / (s - x)) as the variable, by Simpson's rule. */
  dln.modeTimes = function (s, start, depth, shares) {
    const pace = (y) => {
      const x = s / (1 + Math.exp(-y)); // dx = x (s - x) / s dy
      return Math.pow(x, 2 / depth - 1) / (depth * s);
    };
    const logit = (share) => Math.log(share / (1 - share));
    let [from, time] = [logit(start / s), 0];
    return shares.map((share) => {
      const to = logit(share);
      const parts = Math.max(2, Math.ceil(Math.abs(to - from) / 0.05));
      const h = (to - from) / parts;
      for (let k = 0; k < parts; k++) {
        const y = from + k * h;
        time += (h / 6) * (pace(y) + 4 * pace(y + h / 2) + pace(y + h));
      }
      from = to;
      return time;
    });
  };

  // --- steps -----------------------------------------------------------------------------------------

  /** Gradient descent on (1 - a^L)^2 / 2 in every of L equal layers a: a <- a + eta a^(L-1) (1 - a^L).
   * The products a^L after `skip` steps, `keep` of them; shorter where it diverges. */
  dln.steps = function (depth, eta, start, skip, keep) {
    const found = [];
    let a = start;
    for (let k = 0; k < skip + keep; k++) {
      if (k >= skip) found.push(Math.pow(a, depth));
      a += eta * Math.pow(a, depth - 1) * (1 - Math.pow(a, depth));
      if (!(Math.abs(a) < 10)) break;
    }
    return found;
  };

  /** The step beyond which the solution a = 1 repels: 2 over the curvature L. */
  dln.criticalStep = (depth) => 2 / depth;
})(typeof globalThis === "undefined" ? this : globalThis);
