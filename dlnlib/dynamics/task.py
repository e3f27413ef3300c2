"""What a run of descent has been asked for: the one thing that every engine reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dlnlib.dynamics.recording import record_steps
from dlnlib.dynamics.rules import SmoothnessStep
from dlnlib.dynamics.trajectory import Trajectory
from dlnlib.losses.objective import Objective
from dlnlib.losses.risks import ModelRisk
from dlnlib.networks.structured import Structure

__all__ = ["Engine", "Task"]


@dataclass(frozen=True)
class Task:
    """The arguments of `dynamics.descend`, checked as far as they do not depend on the engine."""

    weights: Sequence[Tensor]
    objective: Objective | ModelRisk
    rule: object
    steps: int
    records: int = 20
    momentum: float = 0.0
    weight_decay: float = 0.0
    until: float | Tensor | None = None
    structure: Structure | None = None
    audit: bool = True

    @property
    def goals(self) -> list[int]:
        """The steps that are recorded, from 0 to the last."""
        return record_steps(self.steps, self.records)

    @property
    def plain(self) -> bool:
        """No momentum and no decay."""
        return not (self.momentum or self.weight_decay)

    def level(self, risk: Tensor) -> Tensor | None:
        """The risk that each run has to come to, shaped like `risk`; None where there is no end but
        the steps."""
        if self.until is None:
            return None
        until = torch.as_tensor(self.until, dtype=risk.dtype, device=risk.device)
        return (-until).exp().broadcast_to(risk.shape).clone()

    def settings(self, dynamics: str, **others) -> dict:
        """How the run is made, as its trajectory says."""
        return {
            "dynamics": dynamics,
            "rule": repr(self.rule),
            "rule_of_theorem": isinstance(self.rule, SmoothnessStep) and self.plain,
            "loss": self.objective.name,
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
        } | others


class Engine(Protocol):
    """A way to make steps: a module with these two functions."""

    def takes(self, task: Task) -> bool:
        """Whether it can make this run."""

    def run(self, task: Task) -> Trajectory:
        """Make it."""


def never(like: Tensor) -> Tensor:
    """Steps at which nothing has been reached yet, shaped like `like`."""
    return torch.full_like(like, math.inf)
