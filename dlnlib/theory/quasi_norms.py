r"""Margins in the norms that linear networks other than fully connected ones prefer (G18).

Coefficients of a predictor beta (..., d): beta itself for diagonal networks, its unitary discrete
Fourier transform for circular convolutions (`fourier=True`). For L layers the quasi-norm is ||c||_p
with p = 2/L; for p = 1 the best margin is a second-order cone programme, solved here and certified
by its dual: for every beta and p in the simplex,
    min_i <beta, z_i> / ||c(beta)||_1  <=  gamma_*  <=  max_k |c(sum_i p_i z_i)_k|.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlnlib.errors import BadParameter, NotCertified, NotSeparable

__all__ = [
    "coefficients",
    "quasi_norm",
    "quasi_margin",
    "coefficient_bound",
    "stationarity",
    "L1Margin",
    "l1_margin",
]

CONIC_GAP = 1e-6  # largest relative duality gap that is let through


def coefficients(beta: Tensor, fourier: bool) -> Tensor:
    """beta (..., d), or its unitary Fourier transform, complex of the same shape."""
    return torch.fft.fft(beta, norm="ortho") if fourier else beta


def quasi_norm(beta: Tensor, p: float, fourier: bool = False) -> Tensor:
    """(sum_k |c_k|^p)^(1/p), (...); a norm for p >= 1 only. Raises BadParameter for p <= 0."""
    if not p > 0:
        raise BadParameter(f"p is {p}, needed positive: the quasi-norm of order 2/L has p = 2/L")
    size = coefficients(beta, fourier).abs()
    largest = size.amax(-1, keepdim=True)
    return (size / largest).pow(p).sum(-1).pow(1 / p) * largest[..., 0]


def quasi_margin(beta: Tensor, z: Tensor, p: float, fourier: bool = False) -> Tensor:
    """min_i <beta, z_i> / ||c(beta)||_p, (...): the margin in the quasi-norm of order p."""
    return (beta @ z.mT).amin(-1) / quasi_norm(beta, p, fourier)


def coefficient_bound(ascent: Tensor, fourier: bool = False) -> Tensor:
    """max_k |c_k| of sum_i p_i z_i (..., d), above every margin in the 1-norm of the
    coefficients."""
    return coefficients(ascent, fourier).abs().amax(-1)


def stationarity(beta: Tensor, ascent: Tensor, depth: int, fourier: bool = False) -> Tensor:
    r"""How far beta is from a stationary point of min ||c(beta)||_{2/L} s.t. <beta, z_i> >= 1,
    (...), in [0, 2].

    With h = c(sum p_i z_i): the conditions are h_k proportional to |c_k|^(2/L - 2) c_k where c_k !=
    0. Returned is || a/||a|| - b/||b|| || for a_k = h_k |c_k|^(1 - 1/L), b_k = |c_k|^(1/L - 1) c_k,
    which is the stationarity residual of L balanced layers |c_k|^(1/L), and needs no threshold for
    "c_k != 0". Derived here.
    """
    c, h = coefficients(beta, fourier), coefficients(ascent, fourier)
    size = c.abs() / c.abs().amax(-1, keepdim=True)
    phase = torch.where(size > 0, c / c.abs(), torch.zeros_like(c))
    a, b = h * size ** (1 - 1 / depth), size ** (1 / depth) * phase
    unit = [v / torch.linalg.vector_norm(v, dim=-1, keepdim=True) for v in (a, b)]
    return torch.linalg.vector_norm(unit[0] - unit[1], dim=-1)


@dataclass(frozen=True, eq=False)
class L1Margin:
    """gamma_* = margin = max min_i <beta, z_i> over ||c(beta)||_1 <= 1, attained by `direction`
    (d,).

    `dual` (n,) on the simplex, `ascent` (d,) = sum dual_i z_i with max_k |c_k| = gamma_* up to the
    relative `gap`; `decay` (d,) = 1 - |c(ascent)_k| / max: the exponent with which |c_k(beta)| /
    max falls along the flow of two layers, 0 on the support. The `support` (d,) bool: |c_k| of the
    direction above 1e-4 of the largest.
    """

    direction: Tensor
    margin: float
    dual: Tensor
    ascent: Tensor
    decay: Tensor
    support: Tensor
    gap: float


def l1_margin(z: Tensor, fourier: bool = False) -> L1Margin:
    """Best margin of z (n, d) in the 1-norm of the coefficients, by clarabel, with a certified
    relative gap.

    Raises NotSeparable when no beta has a positive margin, NotCertified when the gap is above 1e-6.
    """
    Z = z.detach().to(torch.float64).cpu().numpy()
    size = np.abs(Z).max()
    beta, p = _conic(Z / size, fourier)
    p = np.maximum(p, 0.0)
    if not np.isfinite(beta).all() or not p.sum() > 0 or not (Z @ beta).min() > 0:
        raise NotSeparable(
            "no direction with a positive margin was found, needed one: the data are not separable"
        )
    direction, dual = z.new_tensor(beta), z.new_tensor(p / p.sum())
    direction = direction / quasi_norm(direction, 1, fourier)
    ascent = dual @ z
    low, high = (z @ direction).min().item(), coefficient_bound(ascent, fourier).item()
    gap = (high - low) / high
    if not gap <= CONIC_GAP:
        raise NotCertified(
            f"relative duality gap {gap:.1e} found, needed at most {CONIC_GAP:.0e}: rescale the "
            "features"
        )
    c, h = coefficients(direction, fourier).abs(), coefficients(ascent, fourier).abs()
    return L1Margin(direction, low, dual, ascent, 1 - h / h.max(), c > 1e-4 * c.max(), gap)


def _conic(Z: np.ndarray, fourier: bool):
    """min sum_k m_k t_k s.t. Z beta >= 1, |c_k(beta)| <= t_k: beta (d,) and multipliers (n,) up to
    scale."""
    import clarabel
    from scipy import sparse

    n, d = Z.shape
    blocks = _blocks(d, fourier)
    count = len(blocks)
    rows, cones = [np.hstack([-Z, np.zeros((n, count))])], [clarabel.NonnegativeConeT(n)]
    for k, (A, _) in enumerate(blocks):
        row = np.zeros((1 + len(A), d + count))
        row[0, d + k], row[1:, :d] = -1.0, -A
        rows.append(row)
        cones.append(clarabel.SecondOrderConeT(1 + len(A)))
    A = sparse.csc_matrix(np.vstack(rows))
    b = np.concatenate([-np.ones(n), np.zeros(A.shape[0] - n)])
    cost = np.concatenate([np.zeros(d), [multiplicity for _, multiplicity in blocks]])
    options = clarabel.DefaultSettings()
    options.verbose = False
    options.tol_gap_abs = options.tol_gap_rel = options.tol_feas = 1e-11
    nothing = sparse.csc_matrix((d + count, d + count))
    found = clarabel.DefaultSolver(nothing, cost, A, b, cones, options).solve()
    return np.array(found.x)[:d], np.array(found.z)[:n]


def _blocks(d: int, fourier: bool):
    """Pairs (A, multiplicity): |c_k| = ||A beta||; complex coefficients come in pairs of
    conjugates."""
    if not fourier:
        return [(np.eye(d)[k : k + 1], 1.0) for k in range(d)]
    transform = np.fft.fft(np.eye(d), norm="ortho")
    blocks = []
    for k in range(d // 2 + 1):
        real = k == 0 or 2 * k == d
        blocks.append(
            (
                transform[k].real[None]
                if real
                else np.stack([transform[k].real, transform[k].imag]),
                1.0 if real else 2.0,
            )
        )
    return blocks
