"""Single-sample descent, compiled, for millions of steps: the rule `steepest.Sample` on networks of
`feedforward` without biases, linear or ReLU.

On other models the same rule goes through `model_descent`, about twenty times slower.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

from dlnlib.dynamics.steepest import Sample
from dlnlib.dynamics.task import Task
from dlnlib.dynamics.trajectory import Trajectory
from dlnlib.losses.risks import ModelRisk
from dlnlib.networks.feed_forward import FeedForward

__all__ = ["takes", "run"]

_BLOCK = 100_000  # steps drawn at a time
_LOSSES = ("exponential", "logistic", "squared")


def takes(task: Task) -> bool:
    """Samples of a linear or ReLU network, with a loss that is compiled."""
    if not (isinstance(task.rule, Sample) and isinstance(task.objective, ModelRisk)):
        return False
    model, loss = task.objective.model, task.objective.loss
    known = loss.name == "exponential" or (loss.name in _LOSSES and not task.rule.scaled)
    free = task.plain and task.until is None and task.structure is None
    return isinstance(model, FeedForward) and _is_plain(model) and known and free


def run(task: Task) -> Trajectory:
    """Make the steps of one run. A run that leaves 1e100 stops at its last finite record.

    Beside the usual clocks, `least_margin` is the smallest normalised margin min_j q_j/||theta||^L
    over the steps since the record before, inf at the first. Totals, for the exponential loss (0
    for others): `decreases_l2` of the smoothed margin psi/||theta||^L from points with psi =
    log(1/sum exp(-q_j)) > 0, and `largest_decrease_l2`, relative. Cost: about 2 n P ns a step, with
    `batch` 3 times that.
    """
    model, loss, like = task.objective.model, task.objective.loss, task.weights[0]
    theta = model.flat(task.weights).copy()
    seen = np.array([math.inf, 0.0, 0.0, -math.inf])
    advance = _stepper(task, theta, seen)
    points, made, least, status = [theta.copy()], [0], [math.inf], "finished"
    for last, goal in pairwise(task.goals):
        seen[0] = math.inf
        if not advance(goal - last):
            status = f"diverged before step {goal}"
            break
        points.append(theta.copy())
        made.append(goal)
        least.append(seen[0])
    path = like.new_tensor(np.array(points))
    weights = model.parts(path)
    totals = {"steps": made[-1], "decreases_l2": seen[1], "largest_decrease_l2": seen[2]}
    return Trajectory(
        weights=weights,
        clocks={
            "step": like.new_tensor(made),
            "log_norm": torch.linalg.vector_norm(path, dim=1).log(),
            "log_inverse_risk": -loss.log_risk(model(weights)),
            "least_margin": like.new_tensor(least),
        },
        settings=task.settings("stochastic gradient descent", model=model.name),
        status=status,
        totals={name: torch.tensor(total) for name, total in totals.items()},
        model=model,
    )


def _is_plain(model: FeedForward) -> bool:
    """No biases, skips or other activations than ReLU."""
    others = any(model.bias) or model.skip or model.residual
    return not others and set(model.activations) <= {"linear", "relu"}


def _stepper(task: Task, theta: np.ndarray, seen: np.ndarray) -> Callable[[int], bool]:
    """A function that makes so many steps, theta in place; whether all of it stays finite."""
    from dlnlib._kernels import single_sample as kernel

    model, rule, name = task.objective.model, task.rule, task.objective.loss.name
    numbers = (kernel.EXPONENTIAL, kernel.LOGISTIC, kernel.SQUARED)
    loss = dict(zip(_LOSSES, numbers, strict=True))[name]
    dims = np.array([model.shapes[0][1], *(shape[0] for shape in model.shapes)])
    rectified = np.array([kind == "relu" for kind in model.activations] + [False])
    fixed = dims, np.array(model.starts), rectified, model.x, model.y, loss
    draws, shocks = rule.generators()

    def advance(steps: int) -> bool:
        for first in range(0, steps, _BLOCK):
            many = min(_BLOCK, steps - first)
            drawn = draws.integers(len(model.x), size=many)
            push = np.empty((0, 0))
            if rule.noise:
                push = rule.noise * shocks.standard_normal((many, model.size))
            how = float(rule.eta), rule.scaled, rule.batch
            if kernel.advance(theta, *fixed, drawn, push, *how, seen) >= 0:
                return False
        return bool(np.isfinite(theta).all())

    return advance
