"""Step rules of gradient descent: the one of the theorem, and three that it does not cover."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlnlib._checks import need_positive, one_a_layer
from dlnlib.errors import BadParameter, StepRuleViolated
from dlnlib.losses.margin import Loss

__all__ = ["StepRule", "Schedule", "Constant", "SmoothnessStep", "LossScaled"]


class StepRule(ABC):
    """How long the steps of gradient descent are."""

    @abstractmethod
    def lengths(self, t: int, risk: Tensor, sizes: Tensor, totals: dict[str, Tensor]) -> Tensor:
        """What the steps in torch read: eta of all layers, (L, R), from risk (R,) and squared norms
        of the layers (L, R); it may keep totals (R,) of its own."""

    def known(self, t: int, depth: int) -> list[float] | None:
        """eta of all layers at step t, where it depends on nothing else; None for other rules."""
        return None

    def check(self, depth: int, steps: int) -> None:  # noqa: B027  most rules fit any run
        """Raise `BadParameter` where the rule does not fit a run of this depth and length."""


@dataclass(frozen=True)
class Schedule(StepRule):
    """Any step sizes: `etas[t]` or `etas(t)` is eta_t, one positive number, or one a layer."""

    etas: Sequence[float | Sequence[float]] | Callable[[int], float | Sequence[float]]

    def check(self, depth: int, steps: int) -> None:
        given = math.inf if callable(self.etas) else len(self.etas)
        if given < steps:
            raise BadParameter(f"schedule has {given} steps, needed {steps}: give one eta a step")
        self.known(0, depth)

    def lengths(self, t: int, risk: Tensor, sizes: Tensor, totals: dict[str, Tensor]) -> Tensor:
        return sizes.new_tensor(self.known(t, len(sizes)))[:, None].expand_as(sizes)

    def known(self, t: int, depth: int) -> list[float]:
        return one_a_layer(self.etas(t) if callable(self.etas) else self.etas[t], depth)


@dataclass(frozen=True)
class Constant(StepRule):
    """The same step size `eta` throughout: outside JT18, Theorem 3, which lets the step shrink as
    the norms grow.

    A tuple gives each layer its own, 0 for a frozen one.
    """

    eta: float | Sequence[float]

    def __post_init__(self):
        one_a_layer(self.eta, None)

    def check(self, depth: int, steps: int) -> None:
        one_a_layer(self.eta, depth)

    def lengths(self, t: int, risk: Tensor, sizes: Tensor, totals: dict[str, Tensor]) -> Tensor:
        return sizes.new_tensor(self.known(t, len(sizes)))[:, None].expand_as(sizes)

    def known(self, t: int, depth: int) -> list[float]:
        return one_a_layer(self.eta, depth)


@dataclass(frozen=True)
class SmoothnessStep(StepRule):
    """eta_t = min{1/beta(R_t), 1} with beta(R) = 2 L^2 R^(2L-2) (smoothness + lipschitz): JT18,
    Lemma 5, Assumption 5.

    R_t becomes max_k ||W_k||_F + slack + room when max_k ||W_k||_F > R_t - slack, and only then.
    With slack = 1 the whole step stays in B(R_t). `for_loss` checks the hypotheses; the bare
    constructor is for controls.
    """

    smoothness: float
    lipschitz: float
    slack: float = 1.0
    room: float = 0.05

    def __post_init__(self):
        need_positive(
            smoothness=self.smoothness, lipschitz=self.lipschitz, slack=self.slack, room=self.room
        )

    @classmethod
    def for_loss(cls, loss: Loss, z: Tensor) -> SmoothnessStep:
        """The rule with the constants of the loss; `StepRuleViolated` where there are none or some
        ||z_i|| > 1."""
        if loss.smoothness is None or loss.lipschitz is None:
            raise StepRuleViolated(
                f"{loss.name} loss has smoothness {loss.smoothness} and Lipschitz constant "
                f"{loss.lipschitz}, needed "
                "two numbers (JT18, Assumption 4): take the logistic loss"
            )
        longest = torch.linalg.vector_norm(z, dim=-1).max().item()
        if longest > 1 + 1e-12:
            raise StepRuleViolated(
                f"largest ||z_i|| is {longest:.6g}, needed at most 1: scale the data"
            )
        return cls(loss.smoothness, loss.lipschitz)

    def lengths(self, t: int, risk: Tensor, sizes: Tensor, totals: dict[str, Tensor]) -> Tensor:
        depth, largest, radius = len(sizes), sizes.amax(0).sqrt(), totals["radius"]
        outgrown = largest > radius - self.slack
        radius.copy_(torch.where(outgrown, largest + self.slack + self.room, radius))
        totals["refreshes"] += outgrown
        smoothness = 2 * depth**2 * radius ** (2 * depth - 2) * (self.smoothness + self.lipschitz)
        return (1 / smoothness).clamp(max=1.0).expand_as(sizes)


@dataclass(frozen=True)
class LossScaled(StepRule):
    """eta_t = c / (R(W) max{1, L^2 ||W||^(2L-2)}), all weights stacked: outside the theorem, and
    far faster.

    For the exponential and the logistic loss |l'| and |l''| are at most l, so that R is smooth with
    a constant of about R(W) L^2 ||W||^(2L-2) near W; log(1/risk) then grows in proportion to the
    number of steps. c = 1 is a safe choice.
    """

    c: float

    def __post_init__(self):
        need_positive(c=self.c)

    @staticmethod
    def curvature(depth: int, size: Tensor | float) -> Tensor | float:
        """L^2 ||W||^(2L-2), from ||W||^2."""
        return depth**2 * size ** (depth - 1)

    def lengths(self, t: int, risk: Tensor, sizes: Tensor, totals: dict[str, Tensor]) -> Tensor:
        curvature = self.curvature(len(sizes), sizes.sum(0))
        eta = self.c / (risk * curvature.clamp(min=1.0))
        # at e^-709 nothing is left to descend
        return torch.where(eta < math.inf, eta, 0.0).expand_as(sizes)
