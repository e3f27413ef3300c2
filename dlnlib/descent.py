"""Full-batch gradient descent on the closed form, many runs at once, with an audit of every step made.

Step rules: `Theorem` (JT18, Assumption 5), `Constant` and `LossScaled` (both outside the theorems). The steps
themselves are in `kernels`; they run on the CPU, and results go back to the device of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from dlnlib.errors import BadParameter, NonFinite
from dlnlib.losses import Loss
from dlnlib.modeldescent import descend_model
from dlnlib.models import Model
from dlnlib.networks import check_shapes, margins
from dlnlib.rules import Constant, LossScaled, Theorem, need_positive
from dlnlib.tangent import flatten, unflatten
from dlnlib.trajectory import Trajectory

__all__ = ["Constant", "Theorem", "LossScaled", "descend", "record_steps"]


@torch.no_grad()
def descend(
    weights: Sequence[Tensor],
    z: Tensor | Model,
    loss: Loss,
    rule: Constant | Theorem | LossScaled,
    steps: int,
    records: int = 20,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Trajectory:
    r"""Gradient descent W <- W - eta_t grad R(W) for a network with one output; time is sum_t eta_t.

    Records `records` points a decade of steps. A run whose risk stops being a positive finite number (it diverges, or
    underflows at e^-708) stays at its last record, and its status says at which step. The ledger counts over all
    steps, with g = grad R(W(t)):
    `violations` of JT18's descent inequality R(W(t+1)) - R(W(t)) <= -(eta/2) ||g||^2 beyond rounding;
    `largest_increase` of the risk in one step; `error_sum` = sum eta ||g||^2; `drift_sum` = sum eta^2 ||g||^2;
    `steps`, `eta` (the last one), `refreshes` of the radius, and `radius` (with `Theorem`).
    With a `models.Model` in place of z: one run of it, by `Constant`, `LossScaled`, or a rule of `steepest`, never
    underflowing; the counts are those of `modeldescent`.
    `momentum` (heavy ball) and `weight_decay` are for controls.

    Raises ShapeMismatch, BadParameter, NonFinite (risk at the start). Cost: 6 P + 4 n d operations a step and run.
    """
    if isinstance(z, Model):
        return descend_model(weights, z, loss, rule, steps, records, momentum, weight_decay)
    if not hasattr(rule, "encoded"):
        raise BadParameter(f"{rule!r} is a rule for models: pass feedforward.deep_linear(z, widths) in place of z")
    from dlnlib.kernels import compiled  # Numba is slow to import

    check_shapes(weights, z)
    need_positive(steps=steps, records=records)
    risk = loss.log_risk(margins(weights, z))
    bad = ~(risk.abs() < 700)
    if bool(bad.any()):
        raise NonFinite(f"log risk at the start is {risk[bad][0].item():.6g}, needed a number between -700 and 700")
    dims = [W.shape[-1] for W in weights] + [1]
    theta = flatten(weights).cpu().numpy().copy()
    ledger = np.zeros((len(theta), len(compiled.LEDGER)))
    ledger[:, compiled.LEDGER.index("largest_increase")] = -math.inf
    stopped = ledger[:, compiled.LEDGER.index("stopped")]
    advance = stepper(theta, dims, z, loss, rule, momentum, weight_decay, ledger)
    goals = record_steps(int(steps), records)
    points, clocks = np.empty((len(goals), *theta.shape)), np.empty((len(goals), len(theta), 2))
    points[0], clocks[0], made = theta, ledger[:, :2], 0
    for made, (last, goal) in enumerate(pairwise(goals), 1):
        advance(goal - last)
        points[made], clocks[made] = theta, ledger[:, :2]
        dead = stopped != 0
        points[made, dead], clocks[made, dead] = points[made - 1, dead], clocks[made - 1, dead]
        if dead.all():
            break
    points, clocks = points[: made + 1], clocks[: made + 1]
    settings = {
        "dynamics": "gradient descent",
        "rule": repr(rule),
        "rule_of_theorem": isinstance(rule, Theorem) and not (momentum or weight_decay),
        "loss": loss.name,
        "momentum": momentum,
        "weight_decay": weight_decay,
    }
    table = dict(zip(compiled.LEDGER, ledger.T, strict=True))
    if not isinstance(rule, Theorem):
        del table["radius"]
    return _trajectory(weights, z, loss, dims, points, clocks, table, settings)


def stepper(theta, dims, z, loss, rule, momentum, weight_decay, ledger):
    """A function that makes so many steps of all runs, theta (R, P) and ledger in place, by the kernel that suits."""
    from dlnlib.kernels import compiled, lanes

    dims = np.array(dims)
    starts = np.concatenate([[0], np.cumsum(dims[1:] * dims[:-1])])
    zt = z.T.cpu().contiguous().numpy()
    fixed = dims, starts, zt, compiled.LOSSES.index(loss.name), rule.encoded
    if lanes.suits(len(theta), dims) and not (momentum or weight_decay):
        return lambda steps: lanes.advance(theta, *fixed, steps, ledger)
    velocity = np.zeros_like(theta if momentum or weight_decay else theta[:, :0])
    return lambda steps: compiled.advance(theta, velocity, *fixed, float(momentum), float(weight_decay), steps, ledger)


def _trajectory(weights, z, loss, dims, theta, clocks, table, settings):
    lead, like = tuple(weights[0].shape[:-2]), weights[0]
    shape = (len(theta), *lead)
    path = torch.from_numpy(theta).to(like)
    layers = [W.reshape(*shape, *W.shape[2:]) for W in unflatten(path, dims)]
    step, time = like.new_tensor(clocks).unbind(-1)
    status = [_ended(int(t)) for t in table.pop("stopped")]
    return Trajectory(
        weights=layers,
        clocks={
            "step": step.reshape(shape),
            "log_time": time.log().reshape(shape),
            "log_norm": torch.linalg.vector_norm(path, dim=-1).log().reshape(shape),
            "log_inverse_risk": -loss.log_risk(margins(layers, z)),
        },
        settings=settings,
        status=status if lead else status[0],
        ledger={name: like.new_tensor(column).reshape(lead) for name, column in table.items()},
    )


def _ended(stopped):
    if stopped:
        return f"{'diverged' if stopped > 0 else 'risk underflowed'} at step {abs(stopped)}"
    return "finished"


def record_steps(steps: int, records: int) -> list[int]:
    """0, `records` log-spaced steps a decade (all of them early on), and the last step."""
    powers = range(math.ceil(records * math.log10(max(steps, 1))) + 1)
    return sorted({0, steps, *(t for i in powers if (t := round(10 ** (i / records))) <= steps)})
