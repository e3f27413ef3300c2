"""The predictor at a finite psi = log(1/risk): the slow manifold, what a start still adds to it,
and rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from dlnlib.errors import BadParameter, HypothesisNotMet, NotCertified
from dlnlib.theory.balance import balances
from dlnlib.theory.margin import MaxMargin, separating_direction

__all__ = ["Horizon", "at_horizon", "memory", "direction_exponent", "tail_direction"]


# --- the maximum margin at a finite risk ----------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Horizon:
    """w = along * u + offset on the slow manifold at a finite psi = log(1/risk), and what can be
    measured of it.

    `norm` = ||w||, `direction_error` = ||w/||w|| - u||, `margin_ratio` = min_i <w, z_i> / (||w||
    gamma); `neglected`: weight of the other points, and the loss's distance from e^{-m}, relative
    to what is kept.
    """

    psi: float
    along: float
    offset: torch.Tensor
    norm: float
    direction_error: float
    margin_ratio: float
    neglected: float


def at_horizon(
    z: torch.Tensor,
    solution: MaxMargin,
    psi: float,
    depth: int = 1,
    layers: list[torch.Tensor] | None = None,
) -> Horizon:
    """The predictor at log(1/risk) = psi for the exponential and logistic loss, support vectors
    spanning.

    psi = c gamma + ln n - lse_S(-<p, z_i>) gives c. For L = 1, p = p* exactly (up to `neglected`).
    For L > 1 a balanced flow is w' = q + (L-1) <w, q> w/||w||^2 up to time, q the softmax mean of
    the z_i, whose slow manifold is p = p* + (L-1) gamma H^-1 p*/c + ..., H the softmax covariance
    across u; the equation solved here has error O(c^-3). A start that is not balanced adds its
    memory to p, which dies as psi^(-3/L) (see `memory`). With `layers`, weights (d_{k+1}, d_k) at
    about that psi, the slow manifold is that of their own w' = K q: all orders of the memory, with
    an error of a relative O(1/c). What no support vector sees is neither in `offset` nor in `norm`.
    Raises HypothesisNotMet without p*, BadParameter when psi is too small for a slow manifold.
    Derived here.
    """
    goal = _limit_offset(solution)
    across = _across(z, solution)
    u, gamma = solution.direction, solution.margin

    def balanced(c, p, q):
        pull = (depth - 1) * (c * gamma + p @ q) / (c * c + p @ p)  # of w towards itself
        return q + pull * p + (gamma + pull * c) * (p - goal) / c

    inverse = _covariance_inverse(across, goal)
    c, p = _at_rest(z, solution, across, inverse, psi, goal, balanced)
    if layers is None or len(layers) == 1:
        return _horizon(z, solution, psi, c, p)

    order_one, K = p - goal, _metric(layers)
    # projects on what support vectors see, across u
    seen = torch.linalg.pinv(across, rtol=1e-9) @ across
    back = torch.linalg.pinv(seen @ K @ seen, rtol=1e-9, hermitian=True)

    def of_layers(c, p, q):
        speed = K @ (gamma * u + q)
        drift = order_one + 3 / len(layers) * (p - goal - order_one)  # -c dp/dc
        return back @ (seen @ speed + (u @ speed) * drift / c)

    return _horizon(z, solution, psi, *_at_rest(z, solution, across, inverse, psi, p, of_layers))


def memory(
    z: torch.Tensor, solution: MaxMargin, start: list[torch.Tensor], layers: list[torch.Tensor]
) -> torch.Tensor:
    """What an unbalanced start still adds to the offset p of `layers`, late in a run, (d,): of
    exponent -3/L in psi.

    -gamma H^-1 T_1^T delta_1/sigma_1 across u. With u_k, sigma_k, v_k the first singular triple of
    layer k, T_k the rest of it, and G_k the balance at the start, which is conserved,
        delta_k = (1 - u_k u_k^T) G_k u_k/sigma_{k+1}^2 + T_{k+1}^T delta_{k+1}/sigma_{k+1},
        delta_L = 0,
    is what the direction of W_L ... W_{k+1} has across u_k. At rest K q = 0 across u, where K (see
    `_metric`) is made of the products W_k ... W_1. Their right singular vectors have p/c - T_1^T
    delta_1/sigma_1 across u for k = 1, and p/c + O(sigma^-4) for 1 < k < L: so H (p - p*) = gamma
    ((L-1) p*/c - T_1^T delta_1/sigma_1), H the softmax covariance. The next order is a factor 1 +
    O(psi^(-1/L)). Raises HypothesisNotMet without p*. Derived here.
    """
    goal = _limit_offset(solution)
    across = _across(z, solution)
    chain, turned, upper = layers[-1].new_ones(1), layers[-1].new_zeros(1), math.inf
    for W, G in zip(
        reversed(layers),
        [torch.zeros(1, 1, dtype=z.dtype), *reversed(balances(start))],
        strict=True,
    ):
        U, s, Vh = torch.linalg.svd(W, full_matrices=False)
        u, v = (U[:, 0], Vh[0]) if U[:, 0] @ chain > 0 else (-U[:, 0], -Vh[0])
        g = G.to(u) @ u
        turned = turned + (g - (g @ u) * u) / upper**2  # delta_k
        turned = W.T @ turned / s[0] - (u @ turned) * v  # T_k^T delta_k/sigma_k
        chain, upper = W.T @ chain, s[0]
    return -solution.margin * (_covariance_inverse(across, goal) @ turned)


def _limit_offset(solution: MaxMargin) -> torch.Tensor:
    if solution.offset is None:
        raise HypothesisNotMet(
            f"p* found to be missing, needed finite: {solution.no_offset}; choose other data"
        )
    return solution.offset


def _across(z: torch.Tensor, solution: MaxMargin) -> torch.Tensor:
    """The support vectors, seen along u: (|S|, d)."""
    S = z[solution.support]
    return S - (S @ solution.direction)[:, None] * solution.direction


def _covariance_inverse(across: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Inverse of the softmax covariance across u, where support vectors see: (d, d)."""
    weights = torch.softmax(-(across @ p), 0)
    root = torch.linalg.pinv(weights.sqrt()[:, None] * across, rtol=1e-9)
    return root @ root.T


def _metric(layers: list[torch.Tensor]) -> torch.Tensor:
    """K of w' = K q, over ||W_L ... W_2||^2: (d, d).

    K = sum_k ||W_L ... W_{k+1}||^2 (W_{k-1} ... W_1)^T (W_{k-1} ... W_1).
    """
    rows = [layers[-1].new_ones(1, 1)]
    for W in reversed(layers[1:]):
        rows.append(rows[-1] @ W)
    below = torch.eye(layers[0].shape[1], dtype=layers[0].dtype, device=layers[0].device)
    K = torch.zeros_like(below)
    for W, row in zip(layers, reversed(rows), strict=True):
        K = K + (row.square().sum() / rows[-1].square().sum()) * (below.T @ below)
        below = W @ below
    return K


def _at_rest(z, solution, across, inverse, psi, p, force) -> tuple[float, torch.Tensor]:
    """c and p at which `force(c, p, q)`, near q across u, vanishes; q is the softmax mean across
    u."""
    # over that length the softmax changes
    scale = p.norm() + 1 / torch.linalg.vector_norm(across, dim=1).max()
    last = math.inf
    for _ in range(100):
        log_sum = torch.logsumexp(-(across @ p), 0).item()
        c = (psi - math.log(len(z)) + log_sum) / solution.margin
        if c <= 0:
            break
        step = inverse @ force(c, p, across.T @ torch.softmax(-(across @ p), 0))
        size = (step.norm() / scale).item()
        p = p + step
        # the second: steps of rounding, H being nearly singular
        if size <= 1e-14 or last / 2 <= size <= 1e-9:
            return c, p
        last = size
    raise BadParameter(
        f"psi = {psi:.3g} found, needed larger: this is before the slow manifold; run further"
    )


def _horizon(
    z: torch.Tensor, solution: MaxMargin, psi: float, c: float, p: torch.Tensor
) -> Horizon:
    margins = z @ (c * solution.direction + p)
    kept = margins[solution.support]
    others = (
        torch.logsumexp(-margins[~solution.support], 0) if (~solution.support).any() else -math.inf
    )
    neglected = math.exp(min(others + torch.logsumexp(-kept, 0).neg(), 0.0)) + math.exp(
        -max(kept.min().item(), 0.0)
    )
    across = p.norm().item()
    norm = math.hypot(c, across)
    sine, cosine = across / norm, c / norm
    least = c + (z[solution.support] @ p).min().item() / solution.margin  # over gamma
    return Horizon(psi, c, p, norm, sine / math.sqrt((1 + cosine) / 2), least / norm, neglected)


def direction_exponent(solution: MaxMargin, depth: int) -> float:
    """Slope of log ||w/||w|| - u|| in log ||w||: -1 if the support vectors span R^d (and p*
    exists), else -1/L.

    What the support vectors do not see is frozen in the first layer and grows as ||w||^{1 - 1/L}
    (derived here).
    """
    return -1.0 if solution.spans or depth == 1 else -1.0 / depth


def tail_direction(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit u minimising sum_i 1/<u, z_i>, and p orthogonal to u: limits of the flow for the loss
    1/(1 + m).

    The risk tends to that sum over n ||w||, so every depth tends to u (q = sum_i z_i/<u, z_i>^2 is
    parallel to u, and a depth L only adds (L-1) <w, q> w/||w||^2 to q); for L = 1, w - <w, u> u
    tends to p, the minimiser of sum_i (1 + <p, z_i>)^2/<u, z_i>^3 across u. u is the direction of
    the minimiser of sum_i 1/<v, z_i> + ||v||^2/2, by damped Newton. Raises NotSeparable, or
    NotCertified when Newton stops early. Derived here.
    """
    size = torch.linalg.vector_norm(z, dim=1).max()
    z = z / size
    eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    v = separating_direction(z)
    v = v * (1 / (z @ v)).sum() ** (1 / 3)  # the best multiple of it
    for _ in range(200):
        m = z @ v
        slope = v - (z / m[:, None] ** 2).sum(0)
        step = torch.linalg.solve((z.T * (2 / m**3)) @ z + eye, slope)
        v = v - step / (1 + (2 * (z @ step).abs() / m).amax())  # keeps the margins positive
        if step.norm() <= 1e-13 * v.norm():
            u = v / v.norm()
            m = z @ u
            across = (z - m[:, None] * u) / m[:, None] ** 1.5
            return u, torch.linalg.pinv(across) @ -(m**-1.5) / size
    raise NotCertified(
        f"Newton's last step was {step.norm() / v.norm():.1e}, needed 1e-13: uneven margins, "
        "rescale"
    )
