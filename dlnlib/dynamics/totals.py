"""Totals over all steps of a run in torch, and the audit of each by JT18's descent inequality."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Step", "Totals"]

_FROM_ZERO = ("steps", "time", "eta", "radius", "refreshes", "violations", "error_sum", "drift_sum")


@dataclass(frozen=True)
class Step:
    """A step of R runs: lengths and squared gradients of the layers (L, R), risk before and after
    (R,), rounding (R,)."""

    eta: Tensor
    squares: Tensor
    before: Tensor
    after: Tensor
    rounding: Tensor


class Totals(dict[str, Tensor]):
    """Sums and counts by name, (R,) each, changed in place; those of a run that is no longer finite
    stay."""

    def __init__(self, like: Tensor):
        super().__init__({name: torch.zeros_like(like) for name in _FROM_ZERO})
        self["largest_increase"] = torch.full_like(like, -math.inf)

    def enter(self, step: Step) -> None:
        """Count a step; it violates the inequality where F(W(t+1)) - F(W(t)) > -(1/2) sum_k eta_k
        ||dF/dW_k||^2."""
        live = step.before.isfinite()
        length = step.eta.mean(0)
        change = step.after - step.before
        gained = (step.eta * step.squares).sum(0)
        moved = (step.eta.square() * step.squares).sum(0)
        # an undefined risk is a violation as well
        sound = change + gained / 2 <= step.rounding
        self["steps"] += live
        self["time"] += live * length
        self["violations"] += live & ~sound
        self["error_sum"] += torch.where(live, gained, 0.0)
        self["drift_sum"] += torch.where(live, moved, 0.0)
        self._set("eta", live, length)
        self._set("largest_increase", live, torch.fmax(self["largest_increase"], change))

    def _set(self, name: str, where: Tensor, values: Tensor) -> None:
        self[name].copy_(torch.where(where, values, self[name]))
