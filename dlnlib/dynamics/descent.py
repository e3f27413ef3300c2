"""Gradient descent: one driver for every objective, rule and structure, many runs at once.

An objective says what is lowered (`losses.objective`), a rule how long the steps are (`rules`,
`steepest`), a structure what is moved (`networks.structured`). Engines make the steps; the first
that takes a task runs it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib._checks import need_momentum_and_decay, need_positive
from dlnlib.dynamics import (
    fused_descent,
    margin_descent,
    model_descent,
    product_descent,
    sample_descent,
)
from dlnlib.dynamics.arguments import objective_or_pair
from dlnlib.dynamics.rules import StepRule
from dlnlib.dynamics.steepest import ModelRule
from dlnlib.dynamics.task import Engine, Task
from dlnlib.dynamics.trajectory import Trajectory
from dlnlib.losses.objective import Objective
from dlnlib.losses.risks import ModelRisk
from dlnlib.networks.structured import Structure

__all__ = ["ENGINES", "descend"]

# Fast ones first; the last takes any objective that is a function of the product.
ENGINES: tuple[Engine, ...] = (
    margin_descent,
    sample_descent,
    model_descent,
    fused_descent,
    product_descent,
)


@objective_or_pair
@torch.no_grad()
def descend(
    weights: Sequence[Tensor],
    objective: Objective | ModelRisk,
    rule: StepRule | ModelRule,
    steps: int,
    records: int = 20,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    until: float | Tensor | None = None,
    structure: Structure | None = None,
    audit: bool = True,
) -> Trajectory:
    r"""Gradient descent V <- momentum V - eta_t (grad F + weight_decay W), W <- W + V from V = 0;
    time is sum_t eta_t.

    objective   F: `MarginRisk`, `ScoreRisk`, `Factorisation`, `CovarianceRisk`, `ModelRisk`, or an
                `Objective` of your own. Data z and a loss of margins, `descend(weights, z, loss,
                rule, steps)`, stand for `MarginRisk(z, loss)`; a model and a loss for `ModelRisk`.
    rule        `Constant` (one eta, or one a layer), `SmoothnessStep`, `LossScaled`, `Schedule`;
                for models `Constant`, `LossScaled` and those of `steepest`.
    records     recorded points a decade of steps.
    until       log(1/risk) at which to stop, (*runs) or one for all: at the first record where each
                run has come to it; the total `reached` says at which step, infinite where it did
                not.
    structure   what moves, where it is not the matrices themselves: `networks.Kernels`,
                `Projected`, `Preconditioned`; weights are then its numbers, the trajectory holds
                matrices.
    audit       False: steps of `Constant` or `Schedule` in torch are made without counting (no
                totals), small ones some three times as fast.

    Clocks: step, log_time (the mean over layers where these have steps of their own), log_norm,
    log_inverse_risk. A run that is no longer finite (with margins: whose risk is no longer a
    positive number) stays at its last record, and its status says at which step. Totals over all
    steps, with g = grad F(W(t)): `violations` of JT18's descent inequality F(W(t+1)) - F(W(t)) <=
    -(1/2) sum_k eta_k ||g_k||^2 beyond rounding; `largest_increase` of F in a step; `error_sum` =
    sum eta ||g||^2; `drift_sum` = sum eta^2 ||g||^2; `steps`, `time`, `eta` (the last one),
    `refreshes` of the radius, and `radius` (with `SmoothnessStep`). Constant steps on a
    `Factorisation` are fused into products, and not audited. Totals of models:
    `model_descent`, and `sample_descent` with the rule `Sample`.

    Raises ShapeMismatch, BadParameter, NonFinite (data, weights, risk at the start). Cost a step
    and run: margins 6 P + 4 n d operations, else 3 L - 3 products and those of the slope.
    """
    need_positive(steps=steps, records=records)
    need_momentum_and_decay(momentum, weight_decay)
    task = Task(
        weights=weights,
        objective=objective,
        rule=rule,
        steps=int(steps),
        records=records,
        momentum=momentum,
        weight_decay=weight_decay,
        until=until,
        structure=structure,
        audit=audit,
    )
    return next(engine for engine in ENGINES if engine.takes(task)).run(task)
