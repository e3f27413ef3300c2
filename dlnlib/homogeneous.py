r"""What a network of degree L does at a finite risk: its margins, KKT residual, time, largest step; bounds for ReLU.

psi = log(1/sum_i e^{-q_i}) (a sum, as in LL20), rho = ||theta||. A deep linear network late in its run is a rank-one
chain over the predictor of `theory.at_horizon`, and an excess E that does not grow:
    rho^2 = L ||w||^{2/L} + E + O(rho^-2),  E = sum_k (||W_k||_F^2 - ||W_k||_2^2) + what no support vector sees.
Differences of the layers' norms enter at order rho^-2 only. All derived here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from dlnlib import kkt
from dlnlib.errors import BadParameter
from dlnlib.margin import MaxMargin
from dlnlib.metrics import top_singular
from dlnlib.theory import at_horizon, gap_limit

__all__ = ["Late", "late", "excess", "log_time", "largest_scaled_step", "largest_step_at", "pattern_bound"]


@dataclass(frozen=True)
class Late:
    """Predicted at T values of psi, (T,) each: psi/rho^L, q_min/rho^L, 1 - beta (`kkt.Measures`), and rho."""

    smoothed: torch.Tensor
    margin: torch.Tensor
    residual: torch.Tensor
    rho: torch.Tensor


def excess(start: list[torch.Tensor], end: list[torch.Tensor], z: torch.Tensor, solution: MaxMargin) -> float:
    """E from the balance of the start, with the directions that the end has chosen, and what no support vector sees.

    The gaps are conserved combinations (`theory.gap_limit`); the unseen part of v_2^T W_1 is frozen late in a run, and
    read off the end: it is 0 where the support vectors span.
    """
    directions = [top_singular(W)[2] for W in end[1:]]
    frame = torch.linalg.svd(z[solution.support], full_matrices=False)
    rank = int(torch.linalg.matrix_rank(z[solution.support]))
    row = directions[0] @ end[0] if directions else end[0][0]
    unseen = row - (row @ frame[2][:rank].T) @ frame[2][:rank]
    return float(sum(gap_limit(start, directions))) + float(unseen @ unseen)


def late(z: torch.Tensor, solution: MaxMargin, psi: torch.Tensor, depth: int, excess: float = 0.0) -> Late:
    """Deep linear network of `depth` at these psi (T,), of excess E; relative errors O(rho^-4) and O(psi^-2).

    rho^2 = L ||w||^{2/L} + E, and 1 - beta = (1 - cos(w, q))/L + E/(2 rho^2), q the softmax mean of z: the first term
    is O(psi^-2), the second O(psi^{-2/L}), and only the first is there from a balanced start. Raises as `at_horizon`.
    """
    rows = []
    for level in psi.tolist():
        h = at_horizon(z, solution, level + math.log(len(z)), depth)
        across = h.offset - (h.offset @ solution.direction) * solution.direction
        w = h.along * solution.direction + across
        q = torch.softmax(-(z @ w), 0) @ z
        off = (q / q.norm() - w / w.norm()).square().sum().item() / 2
        rho2 = depth * h.norm ** (2 / depth) + excess
        power = rho2 ** (depth / 2)
        rows.append((level / power, h.margin_ratio * h.norm * solution.margin / power,
                     off / depth + excess / (2 * rho2), math.sqrt(rho2)))  # fmt: skip
    return Late(*torch.tensor(rows, dtype=torch.float64).unbind(1))


def log_time(psi: torch.Tensor, degree: int, margin: float, entropy: float) -> torch.Tensor:
    r"""log t at psi, for the flow of sum e^{-q_i} whose direction has converged to one of this margin q_min/rho^L.

    d e^psi/dt = ||g||^2 with ||g||^2 = L^2 margin^{2/L} (psi + H)^{2-2/L}, H the entropy of the softmax weights:
    log t = psi - log(L^2 margin^{2/L}) - (2-2/L) log(psi + H) + log(1 + (2-2/L)/psi) + O(psi^-2) + O(rho^-4).
    The excess E cancels at order rho^-2. So R t (log t)^{2-2/L} tends to 1/(L^2 margin^{2/L}) (LL20-T4.3).
    """
    power = 2 - 2 / degree
    constant = math.log(degree**2 * margin ** (2 / degree))
    return psi - constant - power * torch.log(psi + entropy) + torch.log1p(power / psi)


def largest_scaled_step(z: torch.Tensor, solution: MaxMargin, depth: int) -> float:
    r"""c above which `descent.LossScaled(c)` is unstable late in a deep linear run: 2 L^{L+1}/lambda.

    lambda is the largest eigenvalue of the covariance of the z_i under the dual weights: `largest_step_at` its limit.
    """
    return 2 * depth ** (depth + 1) / _spread(z, solution.dual)


def largest_step_at(params: list[torch.Tensor], model) -> float:
    r"""The same c for any model, 2 L^2 rho^{2L-2}/lambda, lambda of the features `kkt.features` under p at this point.

    The curvature with which the support vectors' margins are equalised is lambda; psi is stepped by c/(L^2 rho^{2L-2}).
    """
    rho2, p = sum(float(W.square().sum()) for W in params), kkt.log_slopes(model(params)).exp()
    return 2 * model.degree**2 * rho2 ** (model.degree - 1) / _spread(kkt.features(params, model), p)


def _spread(rows: torch.Tensor, weights: torch.Tensor) -> float:
    """Largest eigenvalue of the covariance of rows (n, P) under weights (n,) of sum 1."""
    centred = (rows - weights @ rows) * weights.sqrt()[:, None]
    return torch.linalg.matrix_norm(centred, 2).item() ** 2


def pattern_bound(params: list[torch.Tensor], model) -> float:
    r"""max_j ||v_j||/2, above q_min/||theta||^2 of all theta with the activation patterns of these units.

    v_j = sum_{i on} p_i y_i x_i, p the softmax weights here: min q <= sum p_i q_i = sum_j a_j <w_j, v_j>, which is at
    most max_j ||v_j|| ||theta||^2/2. At kinks, where <w_j, x_i> = 0, any slope serves: that of `kkt.ascent`.
    """
    if len(model.shapes) != 2 or model.degree != 2:
        raise BadParameter(f"{model.name} of degree {model.degree} found, needed two layers without biases, degree 2")
    W, a = params
    moved = a[0] != 0
    return (kkt.ascent(params, model)[0][moved].norm(dim=1) / a[0][moved].abs()).max().item() / 2
