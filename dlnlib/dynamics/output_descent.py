"""Full-batch gradient descent of networks with several outputs on the closed form, many runs at
once.

F(W) = l(W_L ... W_1 X, Y) has dF/dW_k = (W_L ... W_{k+1})^T G (W_{k-1} ... W_1)^T with G = l'(W X,
Y) X^T (d_L, d_0). X (d_0, n) and Y (d_L, n) hold one sample a column; l is one of `losses.scores`,
or any object with the same methods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib._checks import need_momentum_and_decay, need_positive
from dlnlib.dynamics.recording import flat, record, record_steps
from dlnlib.dynamics.rules import Constant, LossScaled, Schedule, SmoothnessStep
from dlnlib.dynamics.trajectory import Trajectory
from dlnlib.errors import BadParameter, NonFinite, ShapeMismatch
from dlnlib.losses.scores import EPS, CrossEntropy
from dlnlib.networks.product import check_shapes

__all__ = ["descend_outputs"]


@torch.no_grad()
def descend_outputs(
    weights: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    loss,
    rule: Constant | SmoothnessStep | LossScaled | Schedule,
    steps: int,
    records: int = 20,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Trajectory:
    r"""Gradient descent V <- momentum V - eta_t (grad F + weight_decay W), W <- W + V from V = 0,
    any d_L.

    x (d_0, n) and y (d_L, n), with or without the runs of the weights; loss: `squared_error`,
    `mean_squared_error`, `cross_entropy`, or an object like them. Clocks: step, log_time (of sum_t
    eta_t; their mean over layers where these have steps of their own), log_norm, log_inverse_risk.
    A run that is no longer finite stays at its last record, and its status says at which step. The
    ledger counts as in `dynamics.descend`: `violations` of F(W(t+1)) - F(W(t)) <= -(1/2) sum_k
    eta_k ||dF/dW_k||^2, and so on; with `SmoothnessStep` also `radius`. That rule's beta(R) bounds
    the smoothness for several outputs as for one, given the constants of a loss that is a mean over
    samples of norm at most 1: `SmoothnessStep.for_loss(loss, x.mT)`. A risk of 0 is no end;
    `LossScaled` then rests.

    Raises ShapeMismatch, BadParameter, NonFinite. Cost a step and run: 3 L - 2 products and two
    with the data.
    """
    need_positive(steps=steps, records=records)
    need_momentum_and_decay(momentum, weight_decay)
    x, y = _checked(weights, x, y, loss)
    rule.check(len(weights), int(steps))
    descent = _Descent([flat(W) for W in weights], x, y, loss, rule, momentum, weight_decay)
    start = descent.risk()
    if not bool(start.isfinite().all()):
        raise NonFinite(
            f"risk at the start is {start[~start.isfinite()][0].item()}, needed a number: lower "
            "the scale"
        )
    settings = {
        "dynamics": "gradient descent, several outputs",
        "rule": repr(rule),
        "rule_of_theorem": isinstance(rule, SmoothnessStep) and not (momentum or weight_decay),
        "loss": getattr(loss, "name", repr(loss)),
        "momentum": momentum,
        "weight_decay": weight_decay,
    }
    lead, goals = weights[0].shape[:-2], record_steps(int(steps), records)
    path = record(descent.state, descent.advance, descent.observe, goals, lead, settings)
    names = [
        name for name in descent.ledger if name != "radius" or isinstance(rule, SmoothnessStep)
    ]
    path.ledger.update({name: descent.ledger[name].reshape(lead) for name in names})
    return path


class _Descent:
    """R runs under way: layers, velocities, the ledger."""

    def __init__(self, layers, x, y, loss, rule, momentum, decay):
        self.layers, self.x, self.y, self.loss, self.rule = layers, x, y, loss, rule
        self.momentum, self.decay = momentum, decay
        self.velocity = [torch.zeros_like(W) for W in layers] if momentum else []
        names = (
            "steps",
            "time",
            "eta",
            "radius",
            "refreshes",
            "violations",
            "error_sum",
            "drift_sum",
        )
        self.ledger = {name: layers[0].new_zeros(len(layers[0])) for name in names}
        self.ledger["largest_increase"] = layers[0].new_full((len(layers[0]),), -math.inf)
        self.state = [*layers, *self.velocity, *self.ledger.values()]
        # of a score: d_k terms in each layer, and d_0 with x_i, times the longest ||x_i||
        terms = sum(W.shape[-2] for W in layers) + 2 * layers[0].shape[-1]
        self.rounding = EPS * terms * torch.linalg.vector_norm(x, dim=-2).amax(-1)

    def risk(self):
        return self.loss.value(self._rows()[0] @ self.x, self.y)

    def observe(self):
        return self.layers, {"risk": self.risk(), "time": self.ledger["time"].clone()}

    def _here(self):
        """Products above each layer, risk and slope."""
        rows, both = self._rows(), getattr(self.loss, "value_and_slope", None)
        scores = rows[0] @ self.x
        if both:
            return rows, *both(scores, self.y)
        return rows, self.loss.value(scores, self.y), self.loss.slope(scores, self.y)

    def advance(self, first, last):
        rows, risk, slope = self._here()
        for t in range(first, last):
            sizes = self._sizes()
            eta = self.rule.lengths(t, risk, sizes, self.ledger)  # (L, R)
            squares = self._step(rows, slope @ self.x.mT, eta)
            slopes, before = torch.linalg.vector_norm(slope, 1, (-2, -1)), risk
            rows, risk, slope = self._here()
            allowed = 8 * EPS * before + self.rounding * slopes * sizes.prod(0).sqrt()
            self._enter(eta, squares, before, risk - before, allowed)

    def _rows(self):
        """W_L ... W_{k+1} for k = 0, ..., L - 1."""
        rows = [self.layers[-1]]
        for W in reversed(self.layers[:-1]):
            rows.append(torch.bmm(rows[-1], W))
        return rows[::-1]

    def _sizes(self):
        """||W_k||_F^2, (L, R)."""
        return torch.stack([_square(W) for W in self.layers])

    def _step(self, rows, a, eta):
        """Update all layers from a = G; returns ||dF/dW_k||^2, (L, R)."""
        squares = []
        for k, W in enumerate(self.layers):
            last = k + 1 == len(self.layers)
            G = a if last else torch.bmm(rows[k + 1].mT, a)
            a = a if last else torch.bmm(a, W.mT)  # before W changes
            squares.append(_square(G))
            descent = torch.add(G, W, alpha=self.decay) if self.decay else G
            moving = self.velocity[k].mul_(self.momentum) if self.momentum else W
            moving.addcmul_(descent, eta[k, :, None, None], value=-1)
            if self.momentum:
                W.add_(moving)
        return torch.stack(squares)

    def _enter(self, eta, squares, before, change, allowed):
        """Audit a step; the ledger of a run that is no longer finite does not change."""
        live, moved = before.isfinite(), (eta * squares).sum(0)
        ledger, mean = self.ledger, eta.mean(0)
        ledger["steps"] += live
        ledger["time"] += live * mean
        ledger["eta"].copy_(torch.where(live, mean, ledger["eta"]))
        # an undefined risk is a violation as well
        ledger["violations"] += live & ~(change + moved / 2 <= allowed)
        ledger["error_sum"] += torch.where(live, moved, 0.0)
        ledger["drift_sum"] += torch.where(live, (eta.square() * squares).sum(0), 0.0)
        largest = torch.fmax(ledger["largest_increase"], change)
        ledger["largest_increase"].copy_(torch.where(live, largest, ledger["largest_increase"]))


def _square(A):
    return torch.linalg.vector_norm(A, dim=(-2, -1)).square()


def _checked(weights, x, y, loss):
    """Data as (d, n), or (R, d, n) where they have runs; everything fits and is finite."""
    check_shapes(weights)
    runs = tuple(weights[0].shape[:-2])
    for name, A, rows in (("x", x, weights[0].shape[-1]), ("y", y, weights[-1].shape[-2])):
        if (
            A.ndim < 2
            or A.shape[-2:] != (rows, x.shape[-1])
            or tuple(A.shape[:-2]) not in ((), runs)
        ):
            raise ShapeMismatch(
                f"{name} has shape {tuple(A.shape)}, needed {rows} rows, one column a sample, "
                f"with or without the runs {runs}: change it"
            )
    for name, A in (("x", x), ("y", y), *((f"layer {k}", W) for k, W in enumerate(weights, 1))):
        if not bool(A.isfinite().all()):
            raise NonFinite(
                f"{name} has a NaN or an infinity, needed finite numbers: mend the input"
            )
    if not (callable(getattr(loss, "value", None)) and callable(getattr(loss, "slope", None))):
        raise BadParameter(
            f"loss is {loss!r}, needed an object with value(scores, y) and slope(scores, y): see "
            "losses.squared_error"
        )
    if isinstance(loss, CrossEntropy) and (
        bool((y < 0).any()) or bool(((y.sum(-2) - 1).abs() > 1e-12).any())
    ):
        raise BadParameter(
            "y has a column that is not a probability, needed entries from 0 up that add to 1: "
            "give one-hot columns"
        )
    return tuple(flat(A) if A.ndim > 2 else A for A in (x, y))
