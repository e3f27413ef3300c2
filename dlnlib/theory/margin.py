"""The maximum margin gamma = max_{||u||=1} min_i <u, z_i>, its dual, support vectors and offset p*,
certified.

A conic solver gives a guess, Lawson and Hanson's least-distance method (NNLS) the active set, least
squares with refinement the digits. The certificate trusts none of them: for a unit u and any a in
the simplex
    min_i <u, z_i>  <=  gamma  <=  ||z^T a||,
and both ends are evaluated with exact sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from dlnlib.errors import BadData, NonFinite, NotCertified, NotSeparable
from dlnlib.theory._linalg import column_sizes, exact_sums, nnls, numerical_rank, solve
from dlnlib.theory._offset import offset

__all__ = [
    "GAP",
    "ROUNDING",
    "MaxMargin",
    "max_margin",
    "separating_direction",
    "HULL_DIMENSIONS",
    "spread",
    "narrowest",
]

GAP = 1e-10  # largest certified relative duality gap that is let through
ROUNDING = np.finfo(np.float64).eps


@dataclass(frozen=True, eq=False)
class MaxMargin:
    """gamma = margin, attained by the unit vector `direction` (d,).

    `dual` (n,) sums to 1 and ||z^T dual|| = gamma; where it is not unique, it is the one that the
    flow selects. `support` (n,) bool: margin gamma up to rounding; `active` (n,) bool: multiplier
    above 0. `spans`: the support vectors span R^d (JT18, Assumption 3); `spans_data`: they span
    what all the data span. `offset` (d,) is p*, or None, and then `no_offset` says why. `gap`:
    certified relative duality gap.
    """

    direction: torch.Tensor
    margin: float
    dual: torch.Tensor
    support: torch.Tensor
    active: torch.Tensor
    spans: bool
    spans_data: bool
    offset: torch.Tensor | None
    no_offset: str
    gap: float


def max_margin(z: torch.Tensor) -> MaxMargin:
    """Maximum margin of z (n, d), with a certified relative duality gap of at most 1e-10.

    Raises NotSeparable (with a certificate), NotCertified (the gap was not reached), BadData,
    NonFinite. Cost: an interior-point solve, and one (d+1) x |S| least-squares problem for each
    change of the active set.
    """
    Z, size = _normalised(z)
    basis, v, multipliers = _polished(Z, _guess(Z))
    u = v / np.linalg.norm(v)
    low = _least_margin(Z, u)
    support = np.zeros(len(Z), dtype=bool)
    support[basis] = True
    support |= Z @ u - low <= _tie_tolerance(Z, Z[basis], u)
    dual, p, reason = offset(Z, support, basis, multipliers, u)
    gap = _relative_gap(low, _dual_norm(Z, dual))
    if gap > GAP:
        raise NotCertified(
            f"relative duality gap {gap:.1e} at a margin of about {low:.1e} max ||z_i|| found, "
            f"needed at most {GAP:.0e}: the margin is too small for float64, rescale the features"
        )
    rank = numerical_rank(Z[support])
    tensor = z.new_tensor
    return MaxMargin(
        direction=tensor(u),
        margin=float(low * size),
        dual=tensor(dual),
        support=torch.tensor(support, device=z.device),
        active=torch.tensor(dual > 0, device=z.device),
        spans=rank == Z.shape[1],
        spans_data=rank == numerical_rank(Z),
        offset=None if p is None else tensor(p / size),
        no_offset=reason,
        gap=gap,
    )


def separating_direction(z: torch.Tensor) -> torch.Tensor:
    """A unit direction (d,) with <u, z_i> > 0 for all i, checked with exact sums.

    Raises NotSeparable, with weights a >= 0 of sum 1 and ||z^T a|| <= 1e-10 max_i ||z_i||, or
    NotCertified when neither was found. Separability does not depend on the units of the features,
    so columns are rescaled first.
    """
    Z, _ = _normalised(z)
    return z.new_tensor(_separating(Z))


# --- the solution ---------------------------------------------------------------------------------


def _guess(Z: np.ndarray) -> float:
    """A rough value of gamma: from the conic solver, or where that fails from a separating
    direction."""
    import clarabel
    from scipy import sparse

    n, d = Z.shape
    options = clarabel.DefaultSettings()
    options.verbose = False
    solver = clarabel.DefaultSolver(
        sparse.eye(d, format="csc"),
        np.zeros(d),
        sparse.csc_matrix(-Z),
        -np.ones(n),
        [clarabel.NonnegativeConeT(n)],
        options,
    )
    # its status is not used: "infeasible" is reported wrongly at tiny margins
    v = np.array(solver.solve().x)
    norm = np.linalg.norm(v)
    rough = (Z @ v).min() / norm if np.isfinite(norm) and norm > 0 else 0.0
    return rough if rough > 0 else _least_margin(Z, _separating(Z))


def _polished(Z: np.ndarray, height: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Active set (indices), v = u/gamma with <v, z_i> = 1 on it, multipliers of sum 1; the best of
    a few rounds."""
    best, best_gap = None, math.inf
    for _ in range(4):
        basis, v, multipliers = _active_set(Z, height)
        low = _least_margin(Z, v / np.linalg.norm(v))
        high = _dual_norm(Z[basis], multipliers)
        gap = _relative_gap(low, high)
        if best is None or gap < best_gap:
            best, best_gap = (basis, v, multipliers), gap
        if gap <= GAP / 100:
            break
        height = low if low > 0 else high
    return best


def _active_set(Z: np.ndarray, height: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """min ||v|| over Z v >= 1 as min ||[Z^T; h 1^T] x - (0, h)|| over x >= 0 (Lawson and Hanson,
    chapter 23).

    Any h > 0 gives the same active set; h near gamma gives it to most digits.
    """
    x = nnls(np.vstack([Z.T, np.full(len(Z), height)]), np.append(np.zeros(Z.shape[1]), height))
    basis = np.flatnonzero(x > 0)
    while True:
        v = solve(Z[basis], np.ones(len(basis)))
        multipliers = solve(Z[basis].T, v)
        if multipliers.min() > 0:
            return basis, v, multipliers / multipliers.sum()
        basis = np.delete(basis, multipliers.argmin())


def _tie_tolerance(Z: np.ndarray, basis: np.ndarray, u: np.ndarray) -> np.ndarray:
    """How far rounded data that are exactly tied can lie apart: condition of the active rows, units
    taken out."""
    sizes = column_sizes(Z)
    singular = np.linalg.svd(basis / sizes, compute_uv=False)
    return 16 * ROUNDING * singular[0] / singular[-1] * (np.abs(Z) @ np.abs(u))


# --- separable or not -----------------------------------------------------------------------------


def _separating(Z: np.ndarray) -> np.ndarray:
    sizes = column_sizes(Z)
    C = Z / sizes
    x = nnls(np.vstack([C.T, np.ones(len(C))]), np.append(np.zeros(C.shape[1]), 1.0))
    a = x / x.sum() if x.sum() > 0 else np.full(len(Z), 1 / len(Z))
    basis = a > 0
    for v in (np.linalg.lstsq(C[basis], np.ones(basis.sum()), rcond=None)[0], C.T @ a):
        u = v / sizes
        if np.linalg.norm(u) > 0 and _least_margin(Z, u / np.linalg.norm(u)) > 0:
            return u / np.linalg.norm(u)
    found = max(_dual_norm(Z, a), _dual_norm(C, a) / math.sqrt(Z.shape[1]))
    if found > GAP:
        raise NotCertified(
            "no separating direction, and the shortest convex combination of the z_i has "
            f"relative length {found:.1e}, needed at most {GAP:.0e}: rescale the features or drop "
            "near repeats"
        )
    raise NotSeparable(
        f"the data are not separable: a convex combination of {basis.sum()} of the {len(Z)} "
        f"points z_i is 0 (to {found:.0e}), needed a w with <w, z_i> > 0 for all: add features or "
        "drop points",
        a,
    )


# --- both ends of the certificate -----------------------------------------------------------------


def _normalised(z: torch.Tensor) -> tuple[np.ndarray, float]:
    """z / max_i ||z_i|| as a NumPy array, and that norm."""
    if z.ndim != 2 or 0 in z.shape:
        raise BadData(f"z has shape {tuple(z.shape)}, needed (n, d) with n, d >= 1")
    if not torch.isfinite(z).all():
        raise NonFinite(
            "z has a NaN or an infinity, needed finite numbers: make a Dataset of it, which says "
            "where"
        )
    Z = z.detach().cpu().to(torch.float64).numpy()
    size = np.abs(Z).max()
    size = size * np.linalg.norm(Z / size, axis=1).max() if size > 0 else 1.0
    return Z / size, float(size)


def _least_margin(Z: np.ndarray, u: np.ndarray) -> float:
    """min_i <u, z_i>, correctly rounded: exact sums for the rows that can attain it."""
    rough = Z @ u
    error = 2 * len(u) * ROUNDING * (np.abs(Z) @ np.abs(u))
    return float(exact_sums(Z[rough - error <= (rough + error).min()], u).min())


def _dual_norm(Z: np.ndarray, a: np.ndarray) -> float:
    """||Z^T a|| / sum(a), each component correctly rounded."""
    return float(np.linalg.norm(exact_sums(Z[a > 0].T, a[a > 0])) / math.fsum(a))


def _relative_gap(low: float, high: float) -> float:
    return max((high - low) / high, 0.0) if high > 0 else math.inf


HULL_DIMENSIONS = 8  # Qhull's facets multiply quickly beyond


# --- data -----------------------------------------------------------------------------------------


def spread(z: torch.Tensor, solution: MaxMargin) -> float:
    """alpha = min over unit xi orthogonal to u of max_{i in S} <xi, z_i> (JT18-Lem3), xi in the
    span of the data.

    It is the distance from 0 to the boundary of the convex hull of the support vectors projected
    along u: positive exactly when they span and every one has a multiplier above 0, and exactly 0
    otherwise. In one dimension (nothing is orthogonal to u) it is infinite. Raises NotCertified for
    tied support vectors in more than 9 dimensions.
    """
    return narrowest(z, solution)[0]


def narrowest(z: torch.Tensor, solution: MaxMargin) -> tuple[float, torch.Tensor | None]:
    """`spread`, and a unit xi (d,) that attains it: normal to the nearest facet; None where alpha
    is 0 or infinite."""
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
    """Outward unit normals and distances from 0 of the facets of the hull of Y (n, rank), which has
    0 inside."""
    count, rank = Y.shape
    if rank == 1:
        return np.array([[1.0], [-1.0]]), np.array([Y.max(), -Y.min()])
    # a simplex: barycentric coordinates at 0 are the dual, their slopes the facet normals
    if count == rank + 1:
        rows = np.linalg.inv(np.vstack([Y.T, np.ones(count)]))
        slopes = np.linalg.norm(rows[:, :-1], axis=1)
        return -rows[:, :-1] / slopes[:, None], rows[:, -1] / slopes
    if rank > HULL_DIMENSIONS:
        raise NotCertified(
            f"{count} tied support vectors in {rank + 1} dimensions found, needed at most "
            f"{HULL_DIMENSIONS + 1} dimensions for the facets of their hull: take fewer features"
        )
    from scipy.spatial import ConvexHull

    facets = ConvexHull(Y).equations
    return facets[:, :-1], -facets[:, -1]
