r"""Margins in the norms of `steepest`: the largest by linear programming, and what a run itself
certifies about it.

gamma = max over ||w|| <= 1 of min_i <w, z_i> = min over p in the simplex of ||z^T p||_*, with the
dual norm ||.||_*. So any w != 0 and any p bracket it: min_i <w, z_i>/||w|| <= gamma <= ||z^T p||_*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlnlib.errors import BadParameter, NotCertified, NotSeparable
from dlnlib.theory.margin import max_margin

__all__ = [
    "NORMS",
    "GeometricMargin",
    "norm_of",
    "dual_norm",
    "norm_margin",
    "margin_bracket",
    "two_layer_factor",
    "log_risk_ceiling",
]

NORMS = ("linf", "l1", "l2", "spectral")
_GAP = 1e-9


@dataclass(frozen=True, eq=False)
class GeometricMargin:
    """gamma, attained by `direction` (d,), norm 1; `dual` (n,) sums to 1, ||z^T dual||_* = gamma to
    within `gap`."""

    norm: str
    margin: float
    direction: Tensor
    dual: Tensor
    gap: float

    @property
    def entropy(self) -> float:
        """H(dual) = -sum p_i log p_i."""
        return -torch.xlogy(self.dual, self.dual).sum().item()


def norm_of(name: str, w: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """||w||, (*lead,), of vectors w (*lead, d): l2, linf, l1, or largest singular value of w as a
    matrix of `shape`."""
    if name == "spectral":
        return torch.linalg.matrix_norm(w.unflatten(-1, tuple(shape)), 2)
    return torch.linalg.vector_norm(w, {"l2": 2, "linf": math.inf, "l1": 1}[name], -1)


def dual_norm(name: str, g: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """max of <u, g> over ||u|| <= 1, (*lead,): l2, l1, linf, or the sum of singular values."""
    if name == "spectral":
        return torch.linalg.matrix_norm(g.unflatten(-1, tuple(shape)), "nuc")
    return norm_of({"l2": "l2", "linf": "l1", "l1": "linf"}[name], g)


def margin_bracket(
    name: str, z: Tensor, w: Tensor, p: Tensor, shape: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Bounds of gamma from below, by w (*lead, d), and from above, by p (*lead, n), which is >= 0
    and sums to 1."""
    return (w @ z.T).amin(-1) / norm_of(name, w, shape), dual_norm(name, p @ z, shape)


def norm_margin(name: str, z: Tensor) -> GeometricMargin:
    """The largest margin of z (n, d) in l2 (`max_margin`), linf or l1 (a linear programme), and its
    certificate.

    Raises NotSeparable, NotCertified (relative gap above 1e-9), BadParameter for other norms.
    """
    if name == "l2":
        mm = max_margin(z)
        return GeometricMargin(name, mm.margin, mm.direction, mm.dual, mm.gap)
    if name not in ("linf", "l1"):
        raise BadParameter(f"norm is {name!r}, needed l2, linf or l1: bracket the others by a run")
    size = z.abs().max().item()
    w, p = (z.new_tensor(v) for v in _programme(name, z.cpu().numpy() / size))
    w, p = w / norm_of(name, w), p.clamp(min=0) / p.clamp(min=0).sum()
    low, high = (b.item() for b in margin_bracket(name, z, w, p))
    if low <= 0 or high - low > _GAP * high:
        raise NotCertified(
            f"margin between {low:.3g} and {high:.3g} found, needed a gap of at most {_GAP:.0e}: "
            "rescale the data"
        )
    return GeometricMargin(name, low, w, p, (high - low) / high)


def _programme(name, z):
    """w (d,) and the multipliers of the points (n,), for w = a - b with a, b >= 0; none for zero
    features."""
    from scipy.optimize import linprog

    used = np.abs(z).max(0) > 0
    Z, n, m = np.hstack([z[:, used], -z[:, used]]), len(z), int(used.sum())
    rows, right = np.hstack([-Z, np.ones((n, 1))]), np.zeros(n)
    bounds = [(0, 1 if name == "linf" else None)] * (2 * m) + [(None, None)]
    if name == "l1":
        rows, right = np.vstack([rows, np.append(np.ones(2 * m), 0.0)]), np.append(right, 1.0)
    found = linprog(np.append(np.zeros(2 * m), -1.0), rows, right, bounds=bounds, method="highs-ds")
    if not found.success or found.x[-1] <= 1e-12:
        reached = found.x[-1] if found.success else math.nan
        raise NotSeparable(f"the largest {name} margin is {reached:.3g}, needed above 0")
    w = np.zeros(z.shape[1])
    w[used] = found.x[:m] - found.x[m : 2 * m]
    return w, -found.ineqlin.marginals[:n]


def two_layer_factor(name: str, width: int) -> float:
    r"""c with max of min_i q_i over ||theta|| <= 1 equal to c gamma, for q_i = sum_j a_j <W_j, z_i>
    with `width` units.

    linf: h; l2: 1/2; l1: 1/4, of all parameters in a row; spectral: 1, the largest norm of a layer,
    with gamma of l2. Each is the size of the largest ball that {sum_j a_j W_j} fills in its norm.
    Derived here.
    """
    return {"linf": float(width), "l2": 0.5, "l1": 0.25, "spectral": 1.0}[name]


def log_risk_ceiling(gamma: float, entropy: float, size: Tensor) -> Tensor:
    r"""Upper bound gamma `size` - H(p*) of psi = -log sum_i e^{-q_i} where q = z beta with ||beta||
    <= size.

    psi is the least value of sum p_i q_i - H(p) over p in the simplex; this is its value at an
    optimal dual p*. Derived here.
    """
    return gamma * size - entropy
