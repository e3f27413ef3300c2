r"""What a network of degree L does at a finite risk: its margins, KKT residual, time, largest step;
bounds for ReLU.

psi = log(1/sum_i e^{-q_i}) (a sum, as in LL20), rho = ||theta||. A deep linear network late in its
run is a rank-one chain over the predictor of `theory.at_horizon`, ||W_k||_2^2 = s^2 + tilt_k with
product ||w||^2, and an excess E:
    rho^2 = L s^2 + E,  E = sum_k (||W_k||_F^2 - ||W_k||_2^2) + what no support vector sees,
both with limits. The tilts, of sum 0, enter at order rho^-2 only: L s^2 = L ||w||^{2/L} +
O(rho^-2). All derived here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from dlnlib.errors import BadParameter, HypothesisNotMet
from dlnlib.measure.layers import top_singular
from dlnlib.measure.stationarity import ascent_direction, log_slopes, subgradients
from dlnlib.theory.balance import gap_limit
from dlnlib.theory.finite_risk import at_horizon
from dlnlib.theory.margin import MaxMargin

__all__ = [
    "BalanceChain",
    "balance_chain",
    "LatePhase",
    "late_phase",
    "log_time",
    "slowest_spread",
    "largest_scaled_step",
    "largest_step_at",
    "pattern_bound",
]


@dataclass(frozen=True)
class LatePhase:
    """Predicted at T values of psi, (T,) each: psi/rho^L, q_min/rho^L, 1 - beta
    (`measure.KKTMeasures`), and rho."""

    smoothed: torch.Tensor
    margin: torch.Tensor
    residual: torch.Tensor
    rho: torch.Tensor


@dataclass(frozen=True)
class BalanceChain:
    """What a start makes of rho^2 beyond the chain: `excess` E, and `tilts` (L,) of sum 0."""

    excess: float
    tilts: torch.Tensor


def balance_chain(
    start: list[torch.Tensor], end: list[torch.Tensor], z: torch.Tensor, solution: MaxMargin
) -> BalanceChain:
    """E and the tilts from the balance of the start, with the directions that the end has chosen.

    Gaps have limits that the balance fixes (`theory.gap_limit`), differences of squared norms are
    conserved; the part of v_2^T W_1 that no support vector sees is frozen late in a run, and read
    off the end: 0 where they span.
    """
    directions = [top_singular(W)[2] for W in end[1:]]
    frame = torch.linalg.svd(z[solution.support], full_matrices=False)[2]
    frame = frame[: int(torch.linalg.matrix_rank(z[solution.support]))]
    row = directions[0] @ end[0] if directions else end[0][0]
    unseen = (row - (row @ frame.T) @ frame).square().sum()
    gaps = torch.stack(gap_limit(start, directions))
    squares = torch.stack([W.square().sum() for W in start]) - gaps
    squares[0] -= unseen
    return BalanceChain(float(gaps.sum() + unseen), squares - squares.mean())


def late_phase(
    z: torch.Tensor,
    solution: MaxMargin,
    psi: torch.Tensor,
    depth: int,
    chain: BalanceChain | None = None,
) -> LatePhase:
    """Deep linear network of `depth` at these psi (T,), balanced or with the chain of its start;
    error O(rho^-4).

    1 - beta = (1 - cos(w, q))/L + E/(2 rho^2) + O(rho^-4), q the softmax mean of z: the first term
    is O(psi^-2), the second O(psi^{-2/L}), and only the first is there from a balanced start.
    Raises as `at_horizon`.
    """
    chain = chain or BalanceChain(0.0, torch.zeros(depth, dtype=torch.float64))
    rows = []
    for level in psi.tolist():
        h = at_horizon(z, solution, level + math.log(len(z)), depth)
        w = h.along * solution.direction + h.offset
        q = torch.softmax(-(z @ w), 0) @ z
        off = (q / q.norm() - w / w.norm()).square().sum().item() / 2
        squares = _squares(h.norm, chain.tilts)
        rho2 = squares.sum().item() + chain.excess
        power, excess = (
            rho2 ** (depth / 2),
            (squares.sum() * (1 / squares).sum()).item() / depth**2 - 1,
        )
        excess += chain.excess * (1 / squares).sum().item() / depth**2  # beta^-2 - 1
        rows.append(
            (
                level / power,
                h.margin_ratio * h.norm * solution.margin / power,
                off / depth - math.expm1(-math.log1p(excess) / 2),
                math.sqrt(rho2),
            )
        )
    return LatePhase(*torch.tensor(rows, dtype=torch.float64).unbind(1))


def _squares(norm: float, tilts: torch.Tensor) -> torch.Tensor:
    """s^2 + tilts of product norm^2, by Newton from above: the logarithm of the product is concave
    and increasing."""
    s2 = max(norm ** (2 / len(tilts)), 1e-3 * norm ** (2 / len(tilts)) - float(tilts.min()))
    for _ in range(60):
        step = (2 * math.log(norm) - (s2 + tilts).log().sum().item()) / (
            1 / (s2 + tilts)
        ).sum().item()
        s2 = max(s2 + step, 1e-3 * (s2 + float(tilts.min())) - float(tilts.min()))
        if abs(step) <= 1e-15 * s2:
            break
    return s2 + tilts


def log_time(psi: torch.Tensor, degree: int, margin: float, entropy: float) -> torch.Tensor:
    r"""log t at psi, for the flow of sum e^{-q_i} whose direction has converged to one of this
    margin q_min/rho^L.

    d e^psi/dt = ||g||^2 with ||g||^2 = L^2 margin^{2/L} (psi + H)^{2-2/L}, H the entropy of the
    softmax weights: log t = psi - log(L^2 margin^{2/L}) - (2-2/L) log(psi + H) + log(1 +
    (2-2/L)/psi) + O(psi^-2) + O(rho^-4). The excess E cancels at order rho^-2. So R t (log
    t)^{2-2/L} tends to 1/(L^2 margin^{2/L}) (LL20-T4.3).
    """
    power = 2 - 2 / degree
    constant = math.log(degree**2 * margin ** (2 / degree))
    return psi - constant - power * torch.log(psi + entropy) + torch.log1p(power / psi)


def largest_scaled_step(z: torch.Tensor, solution: MaxMargin, depth: int) -> float:
    r"""c above which `descent.LossScaled(c)` is unstable late in a deep linear run: 2
    L^{L+1}/lambda.

    lambda is the largest eigenvalue of the covariance of the z_i under the dual weights:
    `largest_step_at` its limit.
    """
    return 2 * depth ** (depth + 1) / _spread(z, solution.dual)


def largest_step_at(params: list[torch.Tensor], model) -> float:
    r"""The same c for any model, 2 L^2 rho^{2L-2}/lambda, lambda of the features
    `measure.subgradients` under p at this point.

    The curvature with which the support vectors' margins are equalised is lambda; psi is stepped by
    c/(L^2 rho^{2L-2}).
    """
    rho2, p = sum(float(W.square().sum()) for W in params), log_slopes(model(params)).exp()
    return (
        2 * model.degree**2 * rho2 ** (model.degree - 1) / _spread(subgradients(params, model), p)
    )


def slowest_spread(z: torch.Tensor, solution: MaxMargin) -> float:
    """Smallest eigenvalue, of those not 0, of the covariance of the z_i under the dual weights;
    raises as `_spread`."""
    values = _scatter(z, solution.dual)
    return float(values[values > 1e-9 * values[0]].min()) ** 2


def _spread(rows: torch.Tensor, weights: torch.Tensor) -> float:
    """Largest eigenvalue of the covariance of rows (n, P) under weights (n,) of sum 1; raises
    HypothesisNotMet at 0."""
    return float(_scatter(rows, weights)[0]) ** 2


def _scatter(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    values = torch.linalg.svdvals((rows - weights @ rows) * weights.sqrt()[:, None])
    if values[0] <= 1e-12 * rows.norm():
        raise HypothesisNotMet(
            "a single support vector found, needed two: no margins to equalise, so every step is "
            "stable; choose other data"
        )
    return values


def pattern_bound(params: list[torch.Tensor], model) -> float:
    r"""max_j ||v_j||/2, above q_min/||theta||^2 of all theta with the activation patterns of these
    units.

    v_j = sum_{i on} p_i y_i x_i, p the softmax weights here: min q <= sum p_i q_i = sum_j a_j <w_j,
    v_j>, which is at most max_j ||v_j|| ||theta||^2/2. At kinks, where <w_j, x_i> = 0, any slope
    serves: that of `measure.ascent_direction`.
    """
    if len(model.shapes) != 2 or model.degree != 2:
        raise BadParameter(
            f"{model.name} of degree {model.degree} found, needed two layers without biases, "
            "degree 2"
        )
    W, a = params
    moved = a[0] != 0
    return (
        ascent_direction(params, model)[0][moved].norm(dim=1) / a[0][moved].abs()
    ).max().item() / 2
