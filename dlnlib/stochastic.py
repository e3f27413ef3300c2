r"""Single-sample descent with a constant step, for millions of steps, and what its noise does to a linear predictor.

`steepest.Sample` makes the same steps on any model, about twenty times slower; here networks are those of `feedforward`
without biases, linear or ReLU, and the steps are compiled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from dlnlib.errors import BadParameter, HypothesisNotMet
from dlnlib.feedforward import FeedForward
from dlnlib.losses import Loss
from dlnlib.margin import MaxMargin
from dlnlib.rules import need_positive

__all__ = ["Samples", "descend", "Fluctuation", "fluctuation", "linear_noise"]

_BLOCK = 100_000  # steps drawn at a time


@dataclass(frozen=True)
class Samples:
    """T records of one run: steps (T,), weights[k] (T, *shape), least (T,), falls (T,), largest_fall, status.

    least: smallest normalised margin min_j q_j/||theta||^L over the steps since the record before; inf at the first.
    falls: decreases so far of the smoothed margin psi/||theta||^L from points with psi = log(1/sum exp(-q_j)) > 0, and
    largest_fall the largest, relative (exponential loss; 0 for others).
    """

    steps: Tensor
    weights: list[Tensor]
    least: Tensor
    falls: Tensor
    largest_fall: float
    status: str

    @property
    def final(self) -> list[Tensor]:
        """Weights at the last record."""
        return [W[-1] for W in self.weights]

    def since(self, step: int) -> float:
        """The smallest normalised margin over all steps after the first record at `step` or later."""
        after = self.steps > self.steps[self.steps >= step][0]
        return self.least[after].min().item()


@torch.no_grad()
def descend(start: Sequence[Tensor], model: FeedForward, loss: Loss, eta: float, steps: int, seed: int = 0,
            scaled: bool = False, batch: bool = False, noise: float = 0.0,
            per_decade: int = 10) -> Samples:  # fmt: skip
    r"""theta <- theta - eta grad l(q_i(theta)), i uniform and independent at each step.

    scaled: the step is divided by R max{1, L^2 ||theta||^(2L-2)}, R the full risk of the exponential loss; log(1/R)
    then grows in proportion to steps. batch: the mean over all i instead of one (scaled, this is
    `descent.LossScaled`). noise: standard deviation of Gaussian noise added to each parameter at each step.
    A run that leaves 1e100 stops at its last finite record. Cost: about 2 n P ns a step, with `batch` 3 times that.
    Raises BadParameter for models with biases, skips, or other activations, and for other losses.
    """
    from dlnlib.kernels import samples

    kinds = {"exponential": samples.EXPONENTIAL, "logistic": samples.LOGISTIC, "squared": samples.SQUARED}
    if loss.name not in kinds or (scaled and loss.name != "exponential"):
        raise BadParameter(f"loss is {loss.name}, needed one of {', '.join(kinds)}, exponential where scaled")
    if any(model.bias) or model.skip or model.residual or not set(model.activations) <= {"linear", "relu"}:
        raise BadParameter(f"{model.name} has biases, skips or other activations: needed a linear or ReLU network")
    need_positive(eta=eta, steps=steps, per_decade=per_decade)
    from dlnlib.descent import record_steps

    theta = model.flat(start).copy()
    dims = np.array([model.shapes[0][1], *(shape[0] for shape in model.shapes)])
    rectified = np.array([kind == "relu" for kind in model.activations] + [False])
    fixed = dims, np.array(model.starts), rectified, model.x, model.y, kinds[loss.name]
    draws, shocks = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    points, made, rows, status = [theta.copy()], [0], [(math.inf, 0.0)], "finished"
    seen = np.array([math.inf, 0.0, 0.0, -math.inf])
    for last, goal in pairwise(record_steps(int(steps), per_decade)):
        seen[0], stopped = math.inf, -1
        for first in range(last, goal, _BLOCK):
            many = min(_BLOCK, goal - first)
            push = noise * shocks.standard_normal((many, model.size)) if noise else np.empty((0, 0))
            stopped = samples.advance(theta, *fixed, draws.integers(len(model.x), size=many), push, float(eta), scaled,
                                      batch, seen)  # fmt: skip
            if stopped >= 0:
                break
        if stopped >= 0 or not np.isfinite(theta).all():
            status = f"diverged before step {goal}"
            break
        points.append(theta.copy())
        made.append(goal)
        rows.append((seen[0], seen[1]))
    tensor = start[0].new_tensor
    lowest, falls = tensor(rows).unbind(1)
    return Samples(tensor(made), model.parts(tensor(np.array(points))), lowest, falls, float(seen[2]), status)


# --- the noise of one layer ------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Fluctuation:
    """After k steps: Cov(w - w^ log k) -> covariance / k in the span of the support vectors, (d, d).

    spread: k Var(R eta k gamma^2) -> spread = n sum a_i^2 - 1. rate: least eigenvalue of M; the law needs it above 1/2.
    """

    covariance: Tensor
    spread: float
    rate: float


def fluctuation(z: Tensor, solution: MaxMargin) -> Fluctuation:
    r"""Law of the noise of single-sample descent with constant step on <w, z_i>, exponential or logistic loss.

    With alpha = a/gamma^2, w^ = u/gamma, M = sum alpha_i z_i z_i^T and D = n sum alpha_i^2 z_i z_i^T - w^ w^^T, the
    remainder delta = w - w^ log(eta k) - w~ obeys d delta = -M delta dk/k + noise of covariance D dk/k^2, so that
    Cov(delta) = S/k with (M - 1/2) S + S (M - 1/2) = D. Raises HypothesisNotMet where M has an eigenvalue of 1/2 or
    less on the span of the support vectors (the noise then dies more slowly, like k^-2 lambda). Derived here.
    """
    S, a, gamma = z[solution.support], solution.dual[solution.support], solution.margin
    alpha = a / gamma**2
    basis = torch.linalg.svd(S, full_matrices=False)[2][: int(torch.linalg.matrix_rank(S))].T
    T, w = S @ basis, basis.T @ solution.direction / gamma
    rates, axes = torch.linalg.eigh((T.T * alpha) @ T)
    if rates[0] <= 0.5:
        raise HypothesisNotMet(f"least eigenvalue of M is {rates[0].item():.3g}, needed above 1/2: no 1/k law")
    D = axes.T @ (len(z) * (T.T * alpha**2) @ T - torch.outer(w, w)) @ axes
    covariance = basis @ axes @ (D / (rates[:, None] + rates - 1)) @ axes.T @ basis.T
    return Fluctuation(covariance, len(z) * a.square().sum().item() - 1, rates[0].item())


def linear_noise(z: Tensor, start: Tensor, eta: float, steps: Tensor) -> tuple[Tensor, Tensor]:
    r"""Mean and covariance of w after these steps (T,), to first order in the noise: (T, d) and (T, d, d).

    Exponential loss, one layer, single samples: with R the mean risk, dw/dk = -eta grad R(w), and
    dC/dk = -eta (H C + C H) + eta^2 (mean_j e^(-2 q_j) z_j z_j^T - grad R grad R^T), H the Hessian of R. What is
    neglected is of relative order eta at the start and R later. Source: van Kampen's expansion; derived here.
    """
    from scipy.integrate import solve_ivp

    Z, d = z.numpy(), z.shape[1]

    def slope(s, state):
        w, C = state[:d], state[d:].reshape(d, d)
        e = np.exp(-Z @ w)
        H, grad = (Z.T * e) @ Z / len(Z), -(Z.T @ e) / len(Z)
        dC = -eta * (H @ C + C @ H) + eta**2 * ((Z.T * e**2) @ Z / len(Z) - np.outer(grad, grad))
        return math.exp(s) * np.concatenate([-eta * grad, dC.ravel()])  # s = log(1 + k)

    at = np.log1p(steps.numpy())
    found = solve_ivp(slope, (0.0, at[-1]), np.concatenate([start.numpy(), np.zeros(d * d)]), "LSODA", at,
                      rtol=1e-8, atol=1e-12).y.T  # fmt: skip
    return z.new_tensor(found[:, :d]), z.new_tensor(found[:, d:]).reshape(-1, d, d)
