r"""Steps of descent on any model, all on log(1/risk) and so without underflow: each rule has its
own norm or noise.

`dynamics.descend(params, model, loss, rule, steps)` makes the steps and counts. To add a rule,
write one more `ModelRule`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dlnlib._checks import need_positive
from dlnlib.dynamics.rules import LossScaled
from dlnlib.errors import BadParameter
from dlnlib.losses.margin import Loss
from dlnlib.networks.model import Model, Pass

__all__ = [
    "ModelRule",
    "Seen",
    "LogLoss",
    "Steepest",
    "Adam",
    "Sample",
    "NORMS",
    "steepest_direction",
    "parameter_norm",
]


@dataclass(frozen=True)
class Seen:
    """theta (P,), the pass there, log p (n,), log mean |l'|, psi = log(1/risk), ascent g = sum p_i
    grad q_i (P,)."""

    theta: np.ndarray
    at: Pass
    log_p: np.ndarray
    log_mean: float
    psi: float
    ascent: np.ndarray


Move = Callable[[Seen], tuple[np.ndarray, float]]


class ModelRule(ABC):
    """A rule that makes whole steps of what is known at a point, not only their length."""

    @abstractmethod
    def mover(self, model: Model, loss: Loss) -> Move:
        """A function from `Seen` to the step (P,) and the logarithm of its time; it may
        remember."""


def _largest_singular(v, model):
    return max(
        float(np.linalg.norm(W, 2)) if W.ndim == 2 else float(np.linalg.norm(W))
        for W in model.parts(v)
    )


def _coordinate(g, model):
    u, k = np.zeros_like(g), np.argmax(np.abs(g))
    u[k] = np.sign(g[k])
    return u


def _orthogonal_factors(g, model):
    def factor(G):
        if G.ndim == 1 or min(G.shape) == 1:
            return G / np.linalg.norm(G)
        U, _, Vh = np.linalg.svd(G, full_matrices=False)
        return U @ Vh

    return np.concatenate([factor(G).ravel() for G in model.parts(g)])


NORMS = {
    "l2": (lambda v, model: math.sqrt(v @ v), lambda g, model: g / math.sqrt(g @ g)),
    "linf": (lambda v, model: float(np.abs(v).max()), lambda g, model: np.sign(g)),
    "l1": (lambda v, model: float(np.abs(v).sum()), _coordinate),
    "spectral": (_largest_singular, _orthogonal_factors),
}  # norm of all parameters, and the u of norm 1 that maximises <u, g>


def parameter_norm(name: str, theta: np.ndarray, model: Model) -> float:
    """||theta||: l2, linf, l1 of all parameters in a row, or the largest spectral norm of a
    layer."""
    return NORMS[name][0](theta, model)


def steepest_direction(name: str, ascent: np.ndarray, model: Model) -> np.ndarray:
    """argmax of <u, g> over ||u|| <= 1, (P,): g/||g||, sign g, one coordinate, or U V^T of each
    layer."""
    return NORMS[name][1](ascent, model)


@dataclass(frozen=True)
class LogLoss(ModelRule):
    """eta_t = alpha / R(theta_t): Euler with step alpha on the flow of log(1/R) (LL20's loss-based
    rate)."""

    alpha: float

    def __post_init__(self):
        need_positive(alpha=self.alpha)

    def mover(self, model: Model, loss: Loss) -> Move:
        return lambda seen: (
            self.alpha * math.exp(seen.log_mean + seen.psi) * seen.ascent,
            math.log(self.alpha) + seen.psi,
        )


@dataclass(frozen=True)
class Steepest(ModelRule):
    """theta += h u, u of norm 1 and steepest for -grad log R: normalised steepest descent (T24);
    time is sum of h."""

    norm: str
    h: float

    def __post_init__(self):
        need_positive(h=self.h)
        if self.norm not in NORMS:
            raise BadParameter(f"norm is {self.norm!r}, needed one of {', '.join(NORMS)}")

    def mover(self, model: Model, loss: Loss) -> Move:
        unit = NORMS[self.norm][1]
        return lambda seen: (self.h * unit(seen.ascent, model), math.log(self.h))


@dataclass(frozen=True)
class Adam(ModelRule):
    """Adam with bias correction on the risk itself; its moments are kept relative to the risk, so
    that none underflow.

    epsilon keeps its absolute meaning: it takes over once gradients of the risk are below it.
    """

    h: float
    epsilon: float = 1e-8
    beta1: float = 0.9
    beta2: float = 0.999

    def __post_init__(self):
        need_positive(h=self.h)

    def mover(self, model: Model, loss: Loss) -> Move:
        m, v, last, t = np.zeros(model.size), np.zeros(model.size), None, 0
        log_epsilon = math.log(self.epsilon) if self.epsilon > 0 else -math.inf

        def move(seen):
            nonlocal m, v, last, t
            t += 1
            scale = -seen.log_mean  # moments are in units of e^-scale
            grown = math.exp(min(scale - last, 300.0)) if last is not None else 1.0
            last = scale
            m = self.beta1 * grown * m + (1 - self.beta1) * seen.ascent
            v = self.beta2 * grown**2 * v + (1 - self.beta2) * seen.ascent**2
            epsilon = math.exp(min(log_epsilon + scale, 700.0))
            size = np.sqrt(v / (1 - self.beta2**t)) + epsilon
            with np.errstate(invalid="ignore", divide="ignore"):
                u = (m / (1 - self.beta1**t)) / size
            return self.h * np.where(size > 0, u, 0.0), math.log(self.h)

        return move


@dataclass(frozen=True)
class Sample(ModelRule):
    """theta -= eta grad l(q_i), i uniform and independent at each step.

    scaled: the step is divided by R max{1, L^2 ||theta||^(2L-2)}, R the full risk; log(1/R) then
    grows in proportion to steps. batch: the mean over all i instead of one (scaled, this is
    `LossScaled`). noise: standard deviation of Gaussian noise added to each parameter at each step.
    """

    eta: float
    seed: int = 0
    scaled: bool = False
    batch: bool = False
    noise: float = 0.0

    def __post_init__(self):
        need_positive(eta=self.eta)

    def generators(self) -> tuple[np.random.Generator, np.random.Generator]:
        """Of the samples, and of the noise."""
        return np.random.default_rng(self.seed), np.random.default_rng([self.seed, 1])

    def mover(self, model: Model, loss: Loss) -> Move:
        if self.scaled and model.degree is None:
            raise BadParameter(f"{model.name} has no degree, scaled samples need one: leave it out")
        draws, shocks = self.generators()

        def move(seen):
            n, log_eta = len(seen.log_p), math.log(self.eta)
            if self.scaled:
                size = float(seen.theta @ seen.theta)
                log_eta += seen.psi - math.log(max(1.0, LossScaled.curvature(model.degree, size)))
            i = int(draws.integers(n))
            if self.batch:
                step = math.exp(log_eta + seen.log_mean) * seen.ascent
            else:
                slope = math.exp(log_eta + seen.log_p[i] + seen.log_mean + math.log(n))
                step = slope * model.jacobian(seen.at, np.array([i]))[0]
            if self.noise:
                step = step + self.noise * shocks.standard_normal(model.size)
            return step, log_eta

        return move
