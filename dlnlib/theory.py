"""What the theorems predict, from data and initial weights alone: margins, bounds, limits, rates, constants.

Nothing here sees a trajectory. `weights[k]` has shape (*runs, d_{k+1}, d_k); G_k = W_{k+1}^T W_{k+1} - W_k W_k^T is the
conserved balance of layers k and k+1. The maximum margin itself is solved in `margin` and exported from here too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from dlnlib.errors import BadParameter, HypothesisNotMet, NotCertified
from dlnlib.linalg import numerical_rank
from dlnlib.margin import MaxMargin, max_margin, separating

__all__ = ["MaxMargin", "max_margin", "separating", "spread", "narrowest", "rank_one_bound", "gap_bounds",
           "alignment_bound", "gap_limit", "misalignment_limit", "product_misalignment_limit", "ball_smoothness",
           "product_floor", "gradient_floor", "Horizon", "at_horizon", "memory", "direction_exponent", "tail_direction"]

HULL_DIMENSIONS = 8  # Qhull's facets multiply quickly beyond


# --- data ----------------------------------------------------------------------------------------------------------

def spread(z: torch.Tensor, solution: MaxMargin) -> float:
    """alpha = min over unit xi orthogonal to u of max_{i in S} <xi, z_i> (JT18-Lem3), xi in the span of the data.

    It is the distance from 0 to the boundary of the convex hull of the support vectors projected along u: positive
    exactly when they span and every one has a multiplier above 0, and exactly 0 otherwise. In one dimension (nothing
    is orthogonal to u) it is infinite. Raises NotCertified for tied support vectors in more than 9 dimensions.
    """
    return narrowest(z, solution)[0]


def narrowest(z: torch.Tensor, solution: MaxMargin) -> tuple[float, torch.Tensor | None]:
    """`spread`, and a unit xi (d,) that attains it: normal to the nearest facet; None where alpha is 0 or infinite."""
    if not solution.spans_data or solution.offset is None:
        return 0.0, None
    S = z[solution.support].cpu().numpy()
    u = solution.direction.cpu().numpy()
    size = np.abs(S).max()
    across = (S - np.outer(S @ u, u)) / size
    rank = numerical_rank(S) - 1
    if rank == 0:
        return math.inf, None
    frame = np.linalg.svd(across, full_matrices=False)[2][:rank]
    normals, distances = _facets(across @ frame.T)
    nearest = distances.argmin()
    return float(size * distances[nearest]), z.new_tensor(normals[nearest] @ frame)


def _facets(Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outward unit normals and distances from 0 of the facets of the hull of Y (n, rank), which has 0 inside."""
    count, rank = Y.shape
    if rank == 1:
        return np.array([[1.0], [-1.0]]), np.array([Y.max(), -Y.min()])
    if count == rank + 1:  # a simplex: barycentric coordinates at 0 are the dual, their slopes the facet normals
        rows = np.linalg.inv(np.vstack([Y.T, np.ones(count)]))
        slopes = np.linalg.norm(rows[:, :-1], axis=1)
        return -rows[:, :-1] / slopes[:, None], rows[:, -1] / slopes
    if rank > HULL_DIMENSIONS:
        raise NotCertified(f"{count} tied support vectors in {rank + 1} dimensions found, needed at most "
                           f"{HULL_DIMENSIONS + 1} dimensions for the facets of their hull: take fewer features")
    from scipy.spatial import ConvexHull

    facets = ConvexHull(Y).equations
    return facets[:, :-1], -facets[:, -1]


# --- rank one and alignment ------------------------------------------------------------------------------------------

def rank_one_bound(weights: list[torch.Tensor]) -> torch.Tensor:
    """D = max_k ||W_k||_F^2 - ||W_L||_F^2 + sum_k ||G_k||_2 at the start, of shape (*runs) (JT18-Lem2)."""
    frobenius = torch.stack([_squared(W) for W in weights])
    spectral = [torch.linalg.eigvalsh(G).abs().amax(-1) for G in _balances(weights)]
    return frobenius.amax(0) - frobenius[-1] + sum(spectral)


def gap_bounds(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    """Bounds of ||W_k||_F^2 - ||W_k||_2^2 at all times, one a layer, (*runs) each, and each at most D.

    sum_{j >= k} (lambda_max(G_j) - tr G_j) at the start: Weyl's inequality as in JT18-Lem2, with the largest eigenvalue
    where the lemma has the norm. One output. Derived here.
    """
    bounds = [torch.zeros_like(weights[-1][..., 0, 0])]
    for G in reversed(_balances(weights)):
        bounds.append(bounds[-1] + torch.linalg.eigvalsh(G)[..., -1] - G.diagonal(dim1=-2, dim2=-1).sum(-1))
    return bounds[::-1]


def alignment_bound(start: list[torch.Tensor], norms: list[torch.Tensor]) -> list[torch.Tensor]:
    """Upper bounds of the misalignments 1 - <v_{k+1}, u_k>^2, one for each pair of adjacent layers (JT18-Lem2 C2).

    (D + ||W_{k+1}(0)||_2^2 + ||W_k(0)||_2^2) / ||W_{k+1}||_2^2, with norms[k] = ||W_{k+1}||_2 of shape (*times, *runs).
    """
    if len(norms) != len(start) - 1:
        raise BadParameter(f"{len(norms)} norms for {len(start)} layers found, needed those of layers 2 to L")
    D = rank_one_bound(start)
    first = [torch.linalg.matrix_norm(W, 2) ** 2 for W in start]
    return [(D + first[k + 1] + first[k]) / norm**2 for k, norm in enumerate(norms)]


def gap_limit(start: list[torch.Tensor], directions: list[torch.Tensor]) -> list[torch.Tensor]:
    """Limits of ||W_k||_F^2 - ||W_k||_2^2, shape (*runs), given e_k = lim v_{k+1} of shape (*runs, d_k), k < L.

    With v_{k+1} at some times, (*times, *runs, d_k), for e_k: upper bounds at those times, short by O(||W||^-2).

    gap_k = sum_{j >= k} (e_j^T G_j e_j - tr G_j): the trace of G_k is the difference of the squared Frobenius norms,
    and W_k W_k^T = W_{k+1}^T W_{k+1} - G_k gives ||W_k||_2^2 = ||W_{k+1}||_2^2 - e_k^T G_k e_k + O(||W||^-2). One
    output: the last gap is 0. The sign of e_k is free. Derived here.
    """
    gaps = [torch.zeros_like(start[-1][..., 0, 0])]
    for G, e in zip(reversed(_balances(start)), reversed(directions), strict=True):
        trace = G.diagonal(dim1=-2, dim2=-1).sum(-1)
        gaps.append(gaps[-1] + (e * _apply(G, e)).sum(-1) - trace)
    return list(torch.broadcast_tensors(*gaps[::-1]))


def misalignment_limit(start: list[torch.Tensor], directions: list[torch.Tensor]) -> list[torch.Tensor]:
    """Limits of (1 - <v_{k+1}, u_k>^2) ||W_{k+1}||_2^4 = ||G_k e_k - <e_k, G_k e_k> e_k||^2, with e_k = lim v_{k+1}.

    First-order perturbation of the top eigenvector of W_{k+1}^T W_{k+1} by -G_k; relative error O(||W||^-2). Derived.
    """
    limits = []
    for G, e in zip(_balances(start), directions, strict=True):
        g = _apply(G, e)
        limits.append((g - (g * e).sum(-1, keepdim=True) * e).square().sum(-1))
    return limits


def product_misalignment_limit(start: list[torch.Tensor], directions: list[torch.Tensor]) -> torch.Tensor:
    """Limit of (1 - |<w / prod_k ||W_k||_F, v_1>|) ||W_1||_2^2 = (1/2) sum_k gap_k, of shape (*runs) (JT18-Thm1 C5).

    ||W_k||_F = ||W_k||_2 (1 + gap_k / (2 ||W_k||_2^2)), and the angles only enter at order ||W||^-4. Derived.
    """
    return sum(gap_limit(start, directions)) / 2


def _balances(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    return [above.mT @ above - below @ below.mT for below, above in zip(weights, weights[1:], strict=False)]


def _apply(G: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
    return (G @ e[..., None])[..., 0]


def _squared(W: torch.Tensor) -> torch.Tensor:
    return W.square().sum((-2, -1))


# --- balls of radius R -----------------------------------------------------------------------------------------------

def ball_smoothness(depth: int, radius, beta: float, G: float):
    """beta(R) = 2 L^2 R^{2L-2} (beta + G), on max_k ||W_k||_F <= R with R >= 1 and ||x_i|| <= 1 (JT18-Lem5)."""
    return 2 * depth**2 * radius ** (2 * depth - 2) * (beta + G)


def product_floor(log_risk: torch.Tensor, radius, loss) -> torch.Tensor:
    """||W_L ... W_2|| >= r/R, where l(r) is a risk not exceeded later, ||W_1||_F <= R, ||x_i|| <= 1 (JT18-Lem1)."""
    return loss.inverse(torch.as_tensor(log_risk, dtype=torch.float64)) / radius


def gradient_floor(margin: float, depth: int, radius, loss) -> torch.Tensor:
    """log of gamma |l'(R^L)|, below log ||grad R(w)|| in the ball, if |l'| is falling and ||x_i|| <= 1 (JT18-Lem1).

    ||dR/dW_1||_F = ||W_L ... W_2|| ||grad R(w)|| is then at least `product_floor` times its exponential.
    """
    return math.log(margin) + loss.log_slopes(torch.as_tensor(radius, dtype=torch.float64) ** depth)


# --- the maximum margin at a finite risk -----------------------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class Horizon:
    """w = along * u + offset on the slow manifold at a finite psi = log(1/risk), and what can be measured of it.

    `norm` = ||w||, `direction_error` = ||w/||w|| - u||, `margin_ratio` = min_i <w, z_i> / (||w|| gamma);
    `neglected`: weight of the other points, and the loss's distance from e^{-m}, relative to what is kept.
    """

    psi: float
    along: float
    offset: torch.Tensor
    norm: float
    direction_error: float
    margin_ratio: float
    neglected: float


def at_horizon(z: torch.Tensor, solution: MaxMargin, psi: float, depth: int = 1,
               layers: list[torch.Tensor] | None = None) -> Horizon:
    """The predictor at log(1/risk) = psi for the exponential and logistic loss, support vectors spanning.

    psi = c gamma + ln n - lse_S(-<p, z_i>) gives c. For L = 1, p = p* exactly (up to `neglected`). For L > 1 a balanced
    flow is w' = q + (L-1) <w, q> w/||w||^2 up to time, q the softmax mean of the z_i, whose slow manifold is
    p = p* + (L-1) gamma H^-1 p*/c + ..., H the softmax covariance across u; the equation solved here has error O(c^-3).
    A start that is not balanced adds its memory to p, which dies as psi^(-3/L) (see `memory`). With `layers`, weights
    (d_{k+1}, d_k) at about that psi, the slow manifold is that of their own w' = K q: all orders of the memory, with an
    error of a relative O(1/c). What no support vector sees is neither in `offset` nor in `norm`.
    Raises HypothesisNotMet without p*, BadParameter when psi is too small for a slow manifold. Derived here.
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
    seen = torch.linalg.pinv(across, rtol=1e-9) @ across  # projects on what support vectors see, across u
    back = torch.linalg.pinv(seen @ K @ seen, rtol=1e-9, hermitian=True)

    def of_layers(c, p, q):
        speed = K @ (gamma * u + q)
        drift = order_one + 3 / len(layers) * (p - goal - order_one)  # -c dp/dc
        return back @ (seen @ speed + (u @ speed) * drift / c)

    return _horizon(z, solution, psi, *_at_rest(z, solution, across, inverse, psi, p, of_layers))


def memory(z: torch.Tensor, solution: MaxMargin, start: list[torch.Tensor], layers: list[torch.Tensor]) -> torch.Tensor:
    """What an unbalanced start still adds to the offset p of `layers`, late in a run, (d,): of exponent -3/L in psi.

    -gamma H^-1 T_1^T delta_1/sigma_1 across u. With u_k, sigma_k, v_k the first singular triple of layer k, T_k the
    rest of it, and G_k the balance at the start, which is conserved,
        delta_k = (1 - u_k u_k^T) G_k u_k/sigma_{k+1}^2 + T_{k+1}^T delta_{k+1}/sigma_{k+1},  delta_L = 0,
    is what the direction of W_L ... W_{k+1} has across u_k. At rest K q = 0 across u, where K (see `_metric`) is made
    of the products W_k ... W_1. Their right singular vectors have p/c - T_1^T delta_1/sigma_1 across u for k = 1, and
    p/c + O(sigma^-4) for 1 < k < L: so H (p - p*) = gamma ((L-1) p*/c - T_1^T delta_1/sigma_1), H the softmax
    covariance. The next order is a factor 1 + O(psi^(-1/L)). Raises HypothesisNotMet without p*. Derived here.
    """
    goal = _limit_offset(solution)
    across = _across(z, solution)
    chain, turned, upper = layers[-1].new_ones(1), layers[-1].new_zeros(1), math.inf
    for W, G in zip(reversed(layers), [torch.zeros(1, 1, dtype=z.dtype), *reversed(_balances(start))], strict=True):
        U, s, Vh = torch.linalg.svd(W, full_matrices=False)
        u, v = (U[:, 0], Vh[0]) if U[:, 0] @ chain > 0 else (-U[:, 0], -Vh[0])
        g = G.to(u) @ u
        turned = turned + (g - (g @ u) * u) / upper**2  # delta_k
        turned = W.T @ turned / s[0] - (u @ turned) * v  # T_k^T delta_k/sigma_k
        chain, upper = W.T @ chain, s[0]
    return -solution.margin * (_covariance_inverse(across, goal) @ turned)


def _limit_offset(solution: MaxMargin) -> torch.Tensor:
    if solution.offset is None:
        raise HypothesisNotMet(f"p* found to be missing, needed finite: {solution.no_offset}; choose other data")
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
    """c and p at which `force(c, p, q)`, near q across u, vanishes; q is the softmax mean across u."""
    scale = p.norm() + 1 / torch.linalg.vector_norm(across, dim=1).max()  # over that length the softmax changes
    last = math.inf
    for _ in range(100):
        log_sum = torch.logsumexp(-(across @ p), 0).item()
        c = (psi - math.log(len(z)) + log_sum) / solution.margin
        if c <= 0:
            break
        step = inverse @ force(c, p, across.T @ torch.softmax(-(across @ p), 0))
        size = (step.norm() / scale).item()
        p = p + step
        if size <= 1e-14 or last / 2 <= size <= 1e-9:  # the second: steps of rounding, H being nearly singular
            return c, p
        last = size
    raise BadParameter(f"psi = {psi:.3g} found, needed larger: this is before the slow manifold; run further")


def _horizon(z: torch.Tensor, solution: MaxMargin, psi: float, c: float, p: torch.Tensor) -> Horizon:
    margins = z @ (c * solution.direction + p)
    kept = margins[solution.support]
    others = torch.logsumexp(-margins[~solution.support], 0) if (~solution.support).any() else -math.inf
    neglected = math.exp(min(others + torch.logsumexp(-kept, 0).neg(), 0.0)) + math.exp(-max(kept.min().item(), 0.0))
    across = p.norm().item()
    norm = math.hypot(c, across)
    sine, cosine = across / norm, c / norm
    least = c + (z[solution.support] @ p).min().item() / solution.margin  # over gamma
    return Horizon(psi, c, p, norm, sine / math.sqrt((1 + cosine) / 2), least / norm, neglected)


def direction_exponent(solution: MaxMargin, depth: int) -> float:
    """Slope of log ||w/||w|| - u|| in log ||w||: -1 if the support vectors span R^d (and p* exists), else -1/L.

    What the support vectors do not see is frozen in the first layer and grows as ||w||^{1 - 1/L} (derived here).
    """
    return -1.0 if solution.spans or depth == 1 else -1.0 / depth


def tail_direction(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit u minimising sum_i 1/<u, z_i>, and p orthogonal to u: limits of the flow for the loss 1/(1 + m).

    The risk tends to that sum over n ||w||, so every depth tends to u (q = sum_i z_i/<u, z_i>^2 is parallel to u, and
    a depth L only adds (L-1) <w, q> w/||w||^2 to q); for L = 1, w - <w, u> u tends to p, the minimiser of
    sum_i (1 + <p, z_i>)^2/<u, z_i>^3 across u. u is the direction of the minimiser of
    sum_i 1/<v, z_i> + ||v||^2/2, by damped Newton. Raises NotSeparable, or NotCertified when Newton stops early.
    Derived here.
    """
    size = torch.linalg.vector_norm(z, dim=1).max()
    z = z / size
    eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    v = separating(z)
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
    raise NotCertified(f"Newton's last step was {step.norm() / v.norm():.1e}, needed 1e-13: uneven margins, rescale")
