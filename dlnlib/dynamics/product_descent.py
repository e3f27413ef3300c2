"""Descent on any objective of the product W = W_L ... W_1, in torch, many runs at once, with an
audit of every step.

dF/dW_k = (W_L ... W_{k+1})^T G (W_{k-1} ... W_1)^T with G = dF/dW (d_L, d_0): the chain is the same
for every objective, which gives G alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from dlnlib.dynamics.recording import flat, record
from dlnlib.dynamics.rules import SmoothnessStep, StepRule
from dlnlib.dynamics.task import Task, never
from dlnlib.dynamics.totals import Step, Totals
from dlnlib.dynamics.trajectory import Trajectory
from dlnlib.errors import BadParameter, NonFinite
from dlnlib.losses.objective import Look
from dlnlib.losses.scores import EPS
from dlnlib.networks.structured import Structure

__all__ = ["takes", "run", "started", "chain"]


def takes(task: Task) -> bool:
    """Any objective of the product."""
    return True


def run(task: Task) -> Trajectory:
    """Make the steps of the task."""
    if not isinstance(task.rule, StepRule):
        raise BadParameter(
            f"{task.rule!r} is a rule for models: pass networks.deep_linear(z, widths) in place of "
            "z"
        )
    task = started(task)
    task.rule.check(len(task.weights), task.steps)
    descent = _Descent(task)
    path = record(
        state=descent.state,
        advance=descent.advance,
        observe=descent.observe,
        goals=task.goals,
        runs=descent.runs,
        settings=task.settings("gradient descent"),
        done=descent.done,
    )
    if descent.blind:
        return path
    if not isinstance(task.rule, SmoothnessStep):
        del descent.totals["radius"]
    path.totals.update({name: a.reshape(descent.runs) for name, a in descent.totals.items()})
    return path


def started(task: Task) -> Task:
    """The task with the runs of its data given to its weights, where these have none; all of it
    fits."""
    structure, runs = task.structure or Structure(), task.objective.runs
    weights = list(task.weights)
    if runs and weights[0].ndim == structure.entry:
        weights = [A.expand(*runs, *A.shape) for A in weights]
    layers = structure.layers(weights)
    task.objective.check(layers)
    risk = task.objective.risk(layers)
    if not bool(risk.isfinite().all()):
        raise NonFinite(
            f"risk at the start is {risk[~risk.isfinite()][0].item()}, needed a number: lower the "
            "scale"
        )
    return replace(task, weights=weights, structure=structure)


def chain(layers: list[Tensor]) -> list[Tensor]:
    """Products W_L ... W_{k+1} for k = 0, ..., L - 1, of layers (R, ., .)."""
    rows = [layers[-1]]
    for W in reversed(layers[:-1]):
        rows.append(torch.bmm(rows[-1], W))
    return rows[::-1]


def _gradients(layers: list[Tensor], rows: list[Tensor], slope: Tensor) -> list[Tensor]:
    """dF/dW_k (R, d_{k+1}, d_k) from the products above each layer and dF/dW."""
    a, found = slope, []
    for W, above in zip(layers[:-1], rows[1:], strict=True):
        found.append(torch.bmm(above.mT, a))
        a = torch.bmm(a, W.mT)
    return [*found, a]


class _Here(NamedTuple):
    """Layers, the products above each, and the objective there."""

    layers: list[Tensor]
    rows: list[Tensor]
    seen: Look

    def sizes(self) -> Tensor:
        """||W_k||_F^2, (L, R)."""
        return torch.stack([_square(W) for W in self.layers])


class _Descent:
    """R runs under way: the numbers that move, their velocities, totals."""

    def __init__(self, task: Task):
        entry, first = task.structure.entry, task.weights[0]
        self.task = task
        self.runs = first.shape[: first.ndim - entry]
        self.objective = task.objective.in_rows()
        self.numbers = [flat(A, entry) for A in task.weights]
        self.velocity = [torch.zeros_like(A) for A in self.numbers] if task.momentum else []
        each = self.numbers[0].new_zeros(len(self.numbers[0]))
        self.totals = Totals(each)
        self.level = task.level(each.reshape(self.runs))
        if self.level is not None:
            self.level = self.level.reshape(-1)
            self.totals["reached"] = never(each)
        self.state = [*self.numbers, *self.velocity, *self.totals.values()]
        self.unit = EPS * _terms(self._layers())

    def observe(self) -> tuple[list[Tensor], dict[str, Tensor]]:
        layers = self._layers()
        risk = self.objective.value(chain(layers)[0])
        return layers, {"risk": risk, "time": self.totals["time"].clone()}

    def done(self) -> bool:
        """Whether all runs have come to the level asked for."""
        return self.level is not None and bool(self.totals["reached"].isfinite().all())

    @property
    def blind(self) -> bool:
        """Whether steps can be made, and are to be made, without the risk."""
        unwatched = not self.task.audit and self.level is None
        return unwatched and self.task.rule.known(0, len(self.numbers)) is not None

    def advance(self, first: int, last: int) -> None:
        if self.blind:
            self._advance_blindly(first, last)
            return
        here = self._here(first)
        for t in range(first, last):
            before, sizes = here.seen, here.sizes()
            eta = self.task.rule.lengths(t, before.value, sizes, self.totals)  # (L, R)
            squares = self._step(_gradients(here.layers, here.rows, before.slope), eta)
            here = self._here(t + 1)
            reach = before.stiffness * sizes.prod(0).sqrt()
            rounding = 8 * EPS * before.value + self.unit * reach
            self.totals.enter(Step(eta, squares, before.value, here.seen.value, rounding))

    def _advance_blindly(self, first: int, last: int) -> None:
        for t in range(first, last):
            layers = self._layers()
            rows = chain(layers)
            etas = self.task.rule.known(t, len(layers))
            gradients = _gradients(layers, rows, self.objective.slope(rows[0]))
            self._move(self.task.structure.moves(gradients), etas)
            self.totals["time"] += sum(etas) / len(etas)

    def _layers(self) -> list[Tensor]:
        return self.task.structure.layers(self.numbers)

    def _here(self, step: int) -> _Here:
        layers = self._layers()
        rows = chain(layers)
        seen = self.objective.look(rows[0])
        if self.level is not None:
            reached = self.totals["reached"]
            reached[(seen.value <= self.level) & reached.isinf()] = step
        return _Here(layers, rows, seen)

    def _step(self, gradients: list[Tensor], eta: Tensor) -> Tensor:
        """Move all numbers; returns the squared norms of the moves before their lengths, (L, R)."""
        moves = self.task.structure.moves(gradients)
        self._move(moves, eta)
        return torch.stack([_square(move) for move in moves])

    def _move(self, moves: list[Tensor], etas: Tensor | list[float]) -> None:
        momentum, decay = self.task.momentum, self.task.weight_decay
        for k, (A, move) in enumerate(zip(self.numbers, moves, strict=True)):
            descent = torch.add(move, A, alpha=decay) if decay else move
            if not momentum:
                _subtract(A, descent, etas[k])
                continue
            _subtract(self.velocity[k].mul_(momentum), descent, etas[k])
            A.add_(self.velocity[k])


def _subtract(A: Tensor, move: Tensor, eta: Tensor | float) -> None:
    """A <- A - eta move in place, with eta a number or one a run (R,)."""
    if isinstance(eta, float):
        A.sub_(move, alpha=eta)
    else:
        A.addcmul_(move, eta.reshape(-1, *[1] * (A.ndim - 1)), value=-1)


def _terms(layers: list[Tensor]) -> int:
    """Terms that an entry of W and its data add up: d_k in each layer, and d_0 with a sample."""
    return sum(W.shape[-2] for W in layers) + 2 * layers[0].shape[-1]


def _square(A: Tensor) -> Tensor:
    """||A||^2 of each run, (R,)."""
    return torch.linalg.vector_norm(A, dim=tuple(range(1, A.ndim))).square()
