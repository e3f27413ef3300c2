"""Assumption 2 of JT18: a start with grad R(W) != 0 and R(W) <= l(0); checked, and drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dlnlib.errors import DlnError, InitialRiskTooHigh, VanishingGradient
from dlnlib.losses.gradients import log_risk_gradient, relative_slopes
from dlnlib.losses.margin import Loss
from dlnlib.networks.product import check_shapes, margins

__all__ = ["REDRAW", "meeting_assumption_2", "check_assumption_2"]

REDRAW = 1_000_000  # seeds of second and later attempts: apart from those of other runs


def meeting_assumption_2(
    start: Callable[[int], list[Tensor]],
    z: Tensor,
    loss: Loss,
    seed: int = 0,
    runs: Sequence[int] = (),
    tries: int = 1000,
) -> list[Tensor]:
    """Starts with grad R(W) != 0 and R(W) <= l(0), by redrawing: `start(seed)` gives the weights of
    one run.

    Run i uses the first of the seeds s, s + 10^6, s + 2 10^6, ... (s = seed + i) that qualifies, so
    that no two runs share a start. Raises what `check_assumption_2` raised last when none of
    `tries` draws qualifies.
    """
    chosen = [_first_legal(start, z, loss, seed + i, tries) for i in range(math.prod(runs))]
    return [
        torch.stack(layer).reshape(*runs, *layer[0].shape) for layer in zip(*chosen, strict=True)
    ]


def check_assumption_2(weights: Sequence[Tensor], z: Tensor, loss: Loss) -> None:
    """Raise `VanishingGradient` or `InitialRiskTooHigh` unless grad R(W) != 0 and R(W) <= l(0) in
    every run.

    The gradient counts as zero below 1e-12 of its natural size, sum_i |l'(m_i)| ||z_i|| times the
    largest product of all norms but one. Source: JT18, Assumption 2.
    """
    check_shapes(weights, z)
    m = margins(weights, z)
    slopes = relative_slopes(m, loss).abs() @ torch.linalg.vector_norm(z, dim=-1)
    norms = torch.stack([torch.linalg.matrix_norm(W) for W in weights])
    others = torch.stack(
        [norms[torch.arange(len(weights)) != k].prod(0) for k in range(len(weights))]
    ).amax(0)
    gradient = sum(g.square().sum((-2, -1)) for g in log_risk_gradient(weights, z, loss)).sqrt()
    vanishing = gradient <= 1e-12 * slopes * others
    if bool(vanishing.any()):
        value = gradient[vanishing].min().item()
        raise VanishingGradient(
            f"gradient of log risk at the start has norm {value:.1e}, needed more than rounding: "
            "start off the saddle"
        )
    log_risk = loss.log_risk(m)
    # room for rounding: W_1 = 0 has R = l(0) and is legal
    if bool((log_risk > loss.log_at_zero + 1e-14).any()):
        value = log_risk.max().exp().item()
        raise InitialRiskTooHigh(
            f"initial risk is {value:.6g}, needed at most l(0) = {loss.at_zero:.6g}: change the "
            "seed or lower the scale"
        )


def _first_legal(
    start: Callable[[int], list[Tensor]], z: Tensor, loss: Loss, seed: int, tries: int
) -> list[Tensor]:
    last: DlnError | None = None
    for attempt in range(tries):
        weights = start(seed + REDRAW * attempt)
        try:
            check_assumption_2(weights, z, loss)
            return weights
        except (InitialRiskTooHigh, VanishingGradient) as error:
            last = error
    raise type(last)(f"{last} (none of {tries} draws from seed {seed} qualified)")
