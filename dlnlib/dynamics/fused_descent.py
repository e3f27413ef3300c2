"""Constant steps on ||Omega o (W_L ... W_1 - M)||_F^2 / 2 with nothing between the products: each
update is one product that adds to its layer.

Small networks that stand for large ones (`theory.compression`) make most of their steps here.
"""

from __future__ import annotations

from itertools import repeat

import torch
from torch import Tensor

from dlnlib._checks import one_a_layer
from dlnlib.dynamics.product_descent import chain, started
from dlnlib.dynamics.recording import flat, record
from dlnlib.dynamics.rules import Constant
from dlnlib.dynamics.task import Task, never
from dlnlib.dynamics.trajectory import Trajectory
from dlnlib.losses.targets import Factorisation

__all__ = ["takes", "run", "advance"]


def takes(task: Task) -> bool:
    """Constant steps on all matrices towards a target."""
    constant = isinstance(task.rule, Constant) and task.structure is None
    return constant and isinstance(task.objective, Factorisation)


def run(task: Task) -> Trajectory:
    """Make the steps of the task; no audit."""
    task = started(task)
    task.rule.check(len(task.weights), task.steps)
    runs = task.weights[0].shape[:-2]
    steps = _Fused(task, runs)
    path = record(
        state=steps.state,
        advance=steps.advance,
        observe=steps.observe,
        goals=task.goals,
        runs=runs,
        settings=task.settings("gradient descent"),
        done=steps.done,
    )
    if steps.level is not None:
        path.totals["reached"] = steps.reached.reshape(runs)
    return path


class _Fused:
    """R runs under way."""

    def __init__(self, task: Task, runs: torch.Size):
        self.task, self.objective = task, task.objective.in_rows()
        self.layers = [flat(W) for W in task.weights]
        self.velocity = [torch.zeros_like(W) for W in self.layers] if task.momentum else []
        self.etas = one_a_layer(task.rule.eta, len(self.layers))
        none = self.layers[0].new_zeros(len(self.layers[0]))
        level = task.level(none.reshape(runs))
        self.level = None if level is None else level.reshape(-1)
        self.reached, self.made = never(none), 0
        self.state = [*self.layers, *self.velocity, self.reached]

    def observe(self) -> tuple[list[Tensor], dict[str, Tensor]]:
        risk = self.objective.value(chain(self.layers)[0])
        self._enter([2 * risk], self.made)
        time = self.made * sum(self.etas) / len(self.etas)
        return self.layers, {"risk": risk, "time": torch.full_like(risk, time)}

    def done(self) -> bool:
        """Whether all runs have come to the level asked for."""
        return self.level is not None and bool(self.reached.isfinite().all())

    def advance(self, first: int, last: int) -> None:
        self.made = last
        left = advance(
            self.layers,
            self.objective,
            self.etas,
            last - first,
            self.task.weight_decay,
            self.task.momentum,
            self.velocity,
            watch=self.level is not None,
        )
        self._enter(left, first)

    def _enter(self, left: list[Tensor], first: int) -> None:
        """Where steps `first`, ... left twice these risks: the first with one low enough."""
        if self.level is None:
            return
        there = torch.stack(left) <= 2 * self.level
        step = (first + there.int().argmax(0)).to(self.reached)
        found = there.any(0) & self.reached.isinf()
        self.reached.copy_(torch.where(found, step, self.reached))


@torch.no_grad()
def advance(
    layers: list[Tensor],
    objective: Factorisation,
    etas: list[float],
    steps: int,
    decay: float = 0.0,
    momentum: float = 0.0,
    velocity: list[Tensor] | None = None,
    watch: bool = False,
) -> list[Tensor]:
    """The bare steps, in place, on layers (R, ., .) of R runs; nothing is checked. A layer of step
    0 is frozen.

    Returns ||Omega o (W - M)||_F^2 (R,) before each step, where `watch` asks for it. Cost a step: 3
    L - 3 products.
    """
    target, mask = objective.target, objective.mask
    moving, seen = velocity or layers, []
    keep = [1.0 if velocity else 1 - eta * decay for eta in etas]
    for _ in repeat(None, steps):
        for V, W, eta in zip(velocity or (), layers, etas, strict=False):
            V.mul_(momentum).sub_(W, alpha=eta * decay)
        above = chain(layers)
        a = above[0] - target
        if mask is not None:
            a.mul_(mask)
        if watch:
            seen.append(a.square().sum((-2, -1)))
        for k, row in enumerate(above[1:]):
            after = torch.bmm(a, layers[k].mT)  # before the layer changes
            if etas[k]:
                moving[k].baddbmm_(row.mT, a, beta=keep[k], alpha=-etas[k])
            a = after
        if keep[-1] != 1:
            moving[-1].mul_(keep[-1])
        moving[-1].sub_(a, alpha=etas[-1])
        for V, W in zip(velocity or (), layers, strict=False):
            W.add_(V)
    return seen
