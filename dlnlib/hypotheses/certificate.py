"""Separable or not, with a certificate either way that holds for the very numbers given: floats are
fractions, and where rounding could change the answer they are treated as such.

Separable: a w with <w, z_i> > 0 for all i. Not separable: weights a >= 0 of sum 1 with sum_i a_i
z_i = 0 (Gordan). What is neither, to the last digit, is undecided, with a bound on the margin that
is still possible."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from torch import Tensor

from dlnlib.errors import NotCertified, NotSeparable
from dlnlib.theory.margin import separating_direction

__all__ = ["Separation", "null_combination", "separation"]

LARGEST = (
    66  # points in a combination that is solved in fractions: 1.5 s for 65 points in 64 dimensions
)


@dataclass(frozen=True, eq=False)
class Separation:
    """`separable` is True, False, or None where rounding cannot tell.

    `direction` (d,): a unit w, and `margin` its least <w, z_i>; `weights`: of the rows (from 0) of
    a combination that is 0, or of length `length` (relative to the largest norm) where it was not
    shown to be 0.
    """

    separable: bool | None
    words: str
    direction: np.ndarray | None = None
    margin: float | None = None
    weights: dict[int, float] = field(default_factory=dict)
    length: float = 0.0


def separation(z: Tensor, row: Callable[[int], int] = lambda i: i + 1) -> Separation:
    """The answer for rows z_i = y_i x_i (n, d), by the library's own solver, which is then not
    trusted.

    Cost: one non-negative least-squares problem; fractions for rows too near to 0 for floats, and
    for the at most 66 points of a combination.
    """
    Z = z.detach().cpu().numpy()
    simple = _opposite(Z)
    if simple:
        return _combined(dict.fromkeys(simple, 1 / len(simple)), row)
    try:
        u = separating_direction(z).cpu().numpy()
    except NotSeparable as found:
        return _not_by(Z, np.asarray(found.certificate), row)
    except NotCertified as found:
        return Separation(None, f"undecided: {found}")
    least = _least(Z, u)
    if least <= 0:
        words = "undecided: the best w found has <w, z_i> <= 0 for some i in exact arithmetic"
        return Separation(None, words, u)
    margin = float(least) / float(np.linalg.norm(u))
    words = f"yes: a unit w has <w, z_i> >= {margin:.3g} for all i, checked without rounding"
    return Separation(True, words, u, margin)


def _opposite(Z: np.ndarray) -> tuple[int, ...]:
    """A row that is 0, or two rows that are each other's opposite: the shortest certificates."""
    zero = np.flatnonzero(~Z.any(axis=1))
    if len(zero):
        return (int(zero[0]),)
    rows = {row.tobytes(): i for i, row in enumerate(Z + 0.0)}  # -0.0 + 0.0 is 0.0
    opposite = (rows.get(row.tobytes()) for row in -Z + 0.0)
    return next(((i, j) for i, j in enumerate(opposite) if j is not None), ())


def _least(Z: np.ndarray, u: np.ndarray) -> float | Fraction:
    """min_i <u, z_i>, with the right sign: rows whose rounding error could hide it are summed as
    fractions."""
    rough = Z @ u
    error = (len(u) + 2) * np.finfo(float).eps * (np.abs(Z) @ np.abs(u))
    near = np.flatnonzero(rough <= error)
    sure = np.delete(rough - error, near).min(initial=math.inf)
    w = [Fraction(float(value)) for value in u]
    exact = (sum(a * Fraction(float(b)) for a, b in zip(w, row, strict=True)) for row in Z[near])
    return min(exact, default=sure) if len(near) else sure


def _not_by(Z: np.ndarray, a: np.ndarray, row: Callable[[int], int]) -> Separation:
    """The combination a of the solver, made exact where its points are few."""
    rows = np.flatnonzero(a > 0)
    exact = null_combination(Z[rows])
    if exact is not None:
        return _combined(dict(zip(rows.tolist(), exact, strict=True)), row)
    length = float(np.linalg.norm(Z.T @ a) / np.linalg.norm(Z, axis=1).max())
    weights = dict(zip(rows.tolist(), a[rows].tolist(), strict=True))
    return _combined(weights, row, max(length, np.finfo(float).eps))


def _combined(
    weights: dict[int, float], row: Callable[[int], int], length: float = 0.0
) -> Separation:
    """No: these weights give 0; or undecided: they give a vector of this length."""
    shown = ", ".join(str(row(i)) for i in list(weights)[:8]) + ", ..." * (len(weights) > 8)
    points = f"{len(weights)} of the points z_i (rows {shown})"
    least = f"least weight {min(weights.values()):.2g}"
    if not length:
        words = f"no: a convex combination of {points} is exactly 0, {least}"
        return Separation(False, words, weights=weights)
    words = (
        f"undecided: a convex combination of {points} has length {length:.0e} of the largest "
        "norm, so no margin exceeds that"
    )
    return Separation(None, words, weights=weights, length=length)


def null_combination(B: np.ndarray) -> list[float] | None:
    """Positive weights a of sum 1 with B^T a = 0 in exact arithmetic; None where there are too many
    points, or none but 0."""
    if len(B) > LARGEST:
        return None
    from sympy import ZZ
    from sympy.polys.matrices import DomainMatrix

    rows = [_whole(column) for column in B.T if column.any()]
    M = DomainMatrix([[ZZ(value) for value in row] for row in rows], (len(rows), len(B)), ZZ)
    reduced, denominator, pivots = M.rref_den()
    free = [j for j in range(len(B)) if j not in pivots]
    if len(free) != 1:
        return None
    entries = reduced.to_Matrix()
    a = [Fraction(0)] * len(B)
    a[free[0]] = Fraction(1)
    for i, j in enumerate(pivots):
        a[j] = Fraction(-int(entries[i, free[0]]), int(denominator))
    total = sum(a)
    return [float(value / total) for value in a] if min(a) > 0 else None


def _whole(column: np.ndarray) -> list[int]:
    """The column times a power of two: whole numbers."""
    fractions = [Fraction(float(value)) for value in column]
    common = max(value.denominator for value in fractions)
    return [int(value * common) for value in fractions]
