"""Single-sample descent with a constant step, for millions of steps.

`steepest.Sample` makes the same steps on any model, about twenty times slower; here networks are
those of `feedforward` without biases, linear or ReLU, and the steps are compiled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from dlnlib._checks import need_positive
from dlnlib.dynamics.recording import record_steps
from dlnlib.errors import BadParameter
from dlnlib.losses.margin import Loss
from dlnlib.networks.feed_forward import FeedForward

__all__ = ["Samples", "descend_stochastic"]

_BLOCK = 100_000  # steps drawn at a time


@dataclass(frozen=True)
class Samples:
    """T records of one run: steps (T,), weights[k] (T, *shape), least (T,), falls (T,),
    largest_fall, status.

    least: smallest normalised margin min_j q_j/||theta||^L over the steps since the record before;
    inf at the first. falls: decreases so far of the smoothed margin psi/||theta||^L from points
    with psi = log(1/sum exp(-q_j)) > 0, and largest_fall the largest, relative (exponential loss; 0
    for others).
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
        """The smallest normalised margin over all steps after the first record at `step` or
        later."""
        after = self.steps > self.steps[self.steps >= step][0]
        return self.least[after].min().item()


@torch.no_grad()
def descend_stochastic(
    start: Sequence[Tensor],
    model: FeedForward,
    loss: Loss,
    eta: float,
    steps: int,
    seed: int = 0,
    scaled: bool = False,
    batch: bool = False,
    noise: float = 0.0,
    per_decade: int = 10,
) -> Samples:
    r"""theta <- theta - eta grad l(q_i(theta)), i uniform and independent at each step.

    scaled: the step is divided by R max{1, L^2 ||theta||^(2L-2)}, R the full risk of the
    exponential loss; log(1/R) then grows in proportion to steps. batch: the mean over all i instead
    of one (scaled, this is `descent.LossScaled`). noise: standard deviation of Gaussian noise added
    to each parameter at each step. A run that leaves 1e100 stops at its last finite record. Cost:
    about 2 n P ns a step, with `batch` 3 times that. Raises BadParameter for models with biases,
    skips, or other activations, and for other losses.
    """
    from dlnlib._kernels import single_sample as samples

    kinds = {
        "exponential": samples.EXPONENTIAL,
        "logistic": samples.LOGISTIC,
        "squared": samples.SQUARED,
    }
    if loss.name not in kinds or (scaled and loss.name != "exponential"):
        raise BadParameter(
            f"loss is {loss.name}, needed one of {', '.join(kinds)}, exponential where scaled"
        )
    if (
        any(model.bias)
        or model.skip
        or model.residual
        or not set(model.activations) <= {"linear", "relu"}
    ):
        raise BadParameter(
            f"{model.name} has biases, skips or other activations: needed a linear or ReLU network"
        )
    need_positive(eta=eta, steps=steps, per_decade=per_decade)

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
            stopped = samples.advance(
                theta,
                *fixed,
                draws.integers(len(model.x), size=many),
                push,
                float(eta),
                scaled,
                batch,
                seen,
            )
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
    return Samples(
        tensor(made), model.parts(tensor(np.array(points))), lowest, falls, float(seen[2]), status
    )
