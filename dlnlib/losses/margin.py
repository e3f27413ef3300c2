"""Losses of the margin in the log domain: no overflow, no underflow and no lost gradient at any
margin.

The log methods are accurate to a few units in the last place; the plain ones (`values`, `slopes`)
are for step-by-step gradient descent, where an underflow to zero says that nothing moves. All
methods are elementwise on float64 tensors of any shape, `log_risk` reduces the last dimension, and
everything can be differentiated by autograd.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dlnlib.errors import BadParameter

__all__ = ["Loss", "exponential", "logistic", "polynomial", "squared", "by_name"]

LOG_TINY = -700.0  # exp of it is still a normal number, and log1p(e)/e there is 1 to the last bit


@dataclass(frozen=True)
class Loss(ABC):
    """A loss l of the margin m; `lipschitz` bounds |l'|, `smoothness` bounds |l''| (None where
    there is no bound)."""

    name: str
    at_zero: float
    lipschitz: float | None
    smoothness: float | None

    @property
    def log_at_zero(self) -> float:
        """log l(0)."""
        return math.log(self.at_zero)

    @abstractmethod
    def log_loss(self, m: Tensor) -> Tensor:
        """log l(m)."""

    @abstractmethod
    def log_slopes(self, m: Tensor) -> Tensor:
        """log |l'(m)|."""

    @abstractmethod
    def inverse(self, log_loss: Tensor) -> Tensor:
        """The margin m with log l(m) = log_loss (the smaller one where l is not monotone)."""

    @abstractmethod
    def decay(self, m: Tensor) -> Tensor:
        """-d/dm log |l'(m)|, the local rate at which slopes die with the margin."""

    def slope_sign(self, m: Tensor) -> Tensor:
        """The sign of l'(m)."""
        return torch.full_like(m, -1.0)

    def values(self, m: Tensor) -> Tensor:
        """l(m) itself: zero or infinite where float64 ends."""
        return torch.exp(self.log_loss(m))

    def slopes(self, m: Tensor) -> Tensor:
        """l'(m) itself: zero or infinite where float64 ends."""
        return self.slope_sign(m) * torch.exp(self.log_slopes(m))

    def log_risk(self, m: Tensor) -> Tensor:
        """log of the mean over the last dimension: log (1/n) sum_i l(m_i); (..., n) -> (...)."""
        return torch.logsumexp(self.log_loss(m), dim=-1) - math.log(m.shape[-1])


class Exponential(Loss):
    """l(m) = exp(-m)."""

    def log_loss(self, m: Tensor) -> Tensor:
        return -m

    def log_slopes(self, m: Tensor) -> Tensor:
        return -m

    def inverse(self, log_loss: Tensor) -> Tensor:
        return -log_loss

    def decay(self, m: Tensor) -> Tensor:
        return torch.ones_like(m)

    def slopes(self, m: Tensor) -> Tensor:
        return -torch.exp(-m)


class Logistic(Loss):
    """l(m) = log(1 + exp(-m))."""

    # l(CROSSING) = 1, where log l changes sign; in two parts, as CROSSING is irrational.
    CROSSING = (-0.5413248546129181, 1.8138570925507326e-17)

    def log_loss(self, m: Tensor) -> Tensor:
        # Three forms, each used where it keeps full *relative* accuracy; arguments are clamped so
        # that the two forms not selected by `where` stay finite and send no NaN back through
        # autograd.
        h = (m - self.CROSSING[0]) - self.CROSSING[1]
        e = torch.exp(-m.clamp(min=-0.1, max=-LOG_TINY))
        right = -m + torch.log(torch.log1p(e) / e)  # l = e (1 - e/2 + ...), e = exp(-m)
        low = m.clamp(max=-1.0)
        left = torch.log(-low + torch.log1p(torch.exp(low)))
        near = torch.log1p(torch.log1p((1 - 1 / math.e) * torch.expm1(-h.clamp(min=-0.5, max=0.5))))
        return torch.where(h > 0.5, right, torch.where(h < -0.5, left, near))

    def log_slopes(self, m: Tensor) -> Tensor:
        return logsigmoid(-m)

    def inverse(self, log_loss: Tensor) -> Tensor:
        small = log_loss.clamp(min=LOG_TINY, max=0.0).exp()
        right = -log_loss - torch.log(torch.expm1(small) / small)
        big = log_loss.clamp(min=0.0).exp()
        return torch.where(log_loss < 0, right, -big - torch.log1p(-torch.exp(-big)))

    def decay(self, m: Tensor) -> Tensor:
        return torch.sigmoid(m)

    def values(self, m: Tensor) -> Tensor:
        return -logsigmoid(m)  # softplus of torch drops exp(-x) beyond its threshold of 20

    def slopes(self, m: Tensor) -> Tensor:
        return -torch.sigmoid(-m)


class Polynomial(Loss):
    """l(m) = 1/(1 + m) for m >= 0 and 1 - m for m < 0: once continuously differentiable, slow
    tail."""

    def log_loss(self, m: Tensor) -> Tensor:
        return torch.where(m >= 0, -torch.log1p(m.clamp(min=0)), torch.log1p(-m.clamp(max=0)))

    def log_slopes(self, m: Tensor) -> Tensor:
        return -2 * torch.log1p(m.clamp(min=0))

    def inverse(self, log_loss: Tensor) -> Tensor:
        return torch.where(
            log_loss <= 0, torch.expm1(-log_loss.clamp(max=0)), -torch.expm1(log_loss.clamp(min=0))
        )

    def decay(self, m: Tensor) -> Tensor:
        return torch.where(m >= 0, 2 / (1 + m.clamp(min=0)), 0.0)

    def values(self, m: Tensor) -> Tensor:
        return torch.where(m >= 0, 1 / (1 + m.clamp(min=0)), 1 - m)

    def slopes(self, m: Tensor) -> Tensor:
        return -((1 + m.clamp(min=0)) ** -2)


class Squared(Loss):
    """l(m) = (1 - m)^2 / 2: not a loss of Assumption 1 (l' changes sign at m = 1, where both logs
    are -inf)."""

    def log_loss(self, m: Tensor) -> Tensor:
        return 2 * self.log_slopes(m) - math.log(2)

    def log_slopes(self, m: Tensor) -> Tensor:
        return torch.where(
            m < 0.5, torch.log1p(-m.clamp(max=0.5)), torch.log(torch.abs(m.clamp(min=0.5) - 1))
        )

    def slope_sign(self, m: Tensor) -> Tensor:
        return torch.sign(m - 1)

    def inverse(self, log_loss: Tensor) -> Tensor:
        return -torch.expm1((log_loss + math.log(2)) / 2)

    def decay(self, m: Tensor) -> Tensor:
        return 1 / (1 - m)

    def values(self, m: Tensor) -> Tensor:
        return (1 - m) ** 2 / 2

    def slopes(self, m: Tensor) -> Tensor:
        return m - 1


exponential = Exponential("exponential", at_zero=1.0, lipschitz=None, smoothness=None)
logistic = Logistic("logistic", at_zero=math.log(2), lipschitz=1.0, smoothness=0.25)
polynomial = Polynomial("polynomial", at_zero=1.0, lipschitz=1.0, smoothness=2.0)
squared = Squared("squared", at_zero=0.5, lipschitz=None, smoothness=1.0)


def by_name(name: str) -> Loss:
    """The loss of that name; raises `BadParameter` with the names there are."""
    known = {loss.name: loss for loss in (exponential, logistic, polynomial, squared)}
    if name not in known:
        raise BadParameter(
            f"loss is {name!r}, needed one of {', '.join(known)}: pick one of these names"
        )
    return known[name]
