"""Synthetic data sets, given by their z_i = y_i x_i; every draw comes from an explicit seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dlnlib._checks import require
from dlnlib.data.dataset import MOST, Dataset
from dlnlib.errors import shortened

__all__ = [
    "six_points",
    "one_support_vector",
    "random_separable",
    "KnownSolution",
    "spanning",
    "not_separable",
]


def six_points() -> Dataset:
    """Six plane points with gamma = 0.3, direction e_1, alpha = 0.3 and p* = (0, ln(5/3)/0.8)
    (JT18-Lem3)."""
    z = [[0.3, 0.5], [0.3, -0.3], [0.5, 0.6], [0.6, -0.5], [0.4, 0.1], [0.6, 0.2]]
    return _from_z(torch.tensor(z, dtype=torch.float64), "six-points")


def one_support_vector() -> Dataset:
    """Four plane points, one of which is the only support vector: Assumption 3 fails (control (a)
    of JT18-Thm2)."""
    z = [[0.3, 0.0], [0.5, 0.6], [0.6, -0.2], [0.45, 0.3]]
    return _from_z(torch.tensor(z, dtype=torch.float64), "one-support-vector")


def random_separable(n: int = 20, d: int = 5, seed: int = 0, gap: float = 0.3) -> Dataset:
    """z_i = (gap + |t_i|/sqrt(d)) u + g_i/sqrt(d), t_i and g_i normal, g_i orthogonal to u: margin
    at least `gap`."""
    _require_size(n, d)
    require(0 < gap < math.inf, "gap", gap, "a number above 0")
    draw = _draws(seed)
    u = _unit(draw(d))
    g = draw(n, d) / d**0.5
    along = gap + (g @ u).abs()
    return _from_z(g + (along - g @ u)[:, None] * u, "random")


@dataclass(frozen=True, eq=False)
class KnownSolution:
    """Maximum margin by construction: direction (d,), margin, dual (n,) of sum 1, offset p*
    (d,)."""

    direction: torch.Tensor
    margin: float
    dual: torch.Tensor
    offset: torch.Tensor


def spanning(
    n: int = 20,
    d: int = 5,
    seed: int = 0,
    margin: float = 0.3,
    spread: float = 1.0,
    condition: float = 1.0,
) -> tuple[Dataset, KnownSolution]:
    """d support vectors z_i = margin u + xi_i that span R^d, n - d further points of larger margin,
    all known.

    The xi_i are spread D M in an orthonormal basis of the complement of u, where the rows of M are
    an orthonormal basis of the complement of a in R^d (so sum_i a_i xi_i = 0) and D has singular
    values from 1 down to 1/condition. Then a is the dual, and p* = D^-1 M r / spread in that basis,
    with r_i = -ln a_i - entropy(a).
    """
    _require_size(n, d, max(d, 2))
    require(0 < margin < math.inf, "margin", margin, "a number above 0")
    require(0 < spread < math.inf, "spread", spread, "a number above 0")
    require(1 <= condition < math.inf, "condition", condition, "a number, at least 1")
    draw = _draws(seed)
    frame, _ = torch.linalg.qr(draw(d, d))
    u, basis = frame[:, 0], frame[:, 1:]  # basis of the complement of u, (d, d-1)
    a = 1 + draw(d).abs()  # no multiplier far below the others
    a = a / a.sum()
    # (d-1, d), M a = 0
    M = torch.linalg.qr(torch.cat([a[:, None], draw(d, d - 1)], dim=1))[0][:, 1:].T
    exponents = torch.linspace(0, 1, max(d - 1, 1), dtype=torch.float64)[: d - 1]
    D = spread * condition**-exponents  # (d-1,)
    support = margin * u + (basis @ (D[:, None] * M)).T
    g = draw(n - d, d) * spread / d**0.5
    further = g + (margin * (1.5 + draw(n - d).abs()) - g @ u)[:, None] * u
    r = -a.log() + (a * a.log()).sum()
    known = KnownSolution(u, margin, torch.cat([a, a.new_zeros(n - d)]), basis @ ((M @ r) / D))
    return _from_z(torch.cat([support, further]), "spanning"), known


def not_separable(n: int = 20, d: int = 5, seed: int = 0) -> Dataset:
    """Normal points with random labels, the last point repeating the first with the other label:
    z_1 + z_n = 0."""
    _require_size(n, d)
    z = _draws(seed)(n, d)
    z[-1] = -z[0]
    return _from_z(z, "not-separable")


def _from_z(z: torch.Tensor, name: str) -> Dataset:
    """Labels alternate, so that both classes are there; the margins only see z."""
    y = 1.0 - 2.0 * (torch.arange(len(z), dtype=torch.float64) % 2)
    return Dataset(y[:, None] * z, y, name)


def _draws(seed: int) -> Callable[..., torch.Tensor]:
    require(0 <= seed < 2**63, "seed", shortened(str(seed)), "from 0 to 2^63 - 1")
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def _unit(v: torch.Tensor) -> torch.Tensor:
    return v / torch.linalg.vector_norm(v)


def _require_size(n: int, d: int, least: int = 2) -> None:
    require(d >= 1, "d", d, "at least 1")
    require(n >= least, "n", n, f"at least {least}" + (": d support vectors" if least > 2 else ""))
    require(n * d <= MOST, "n d", n * d, f"at most {MOST} numbers")
