"""What can be said of a data set alone: sizes, repeats, rank, margin, support vectors; each in a
number and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from dlnlib.data.dataset import Dataset
from dlnlib.errors import DlnError
from dlnlib.hypotheses.certificate import Separation, separation
from dlnlib.theory.margin import MaxMargin, max_margin, spread

__all__ = ["Fact", "facts_of"]

SHOWN = 10  # rows or columns that are named
CLEAR = 1e3  # a singular value within this factor of rounding is neither zero nor not
SMALL = 1e-3  # margins in the unit ball below it: the flow nears its limit only at huge norms
EPS = np.finfo(np.float64).eps


@dataclass(frozen=True)
class Fact:
    """A number (or a truth) about data, None where rounding cannot tell or where there is no such
    thing, and its words."""

    name: str
    value: bool | float | int | None
    words: str


def facts_of(data: Dataset) -> tuple[dict[str, Fact], Separation]:
    """All facts by name, in the order in which they are shown, and the certificate for `separable`.

    Cost: a singular value decomposition of x (n, d), a maximum margin, and where n <= d the Gram
    matrix.
    """
    x = data.x.cpu().numpy()
    found = separation(data.z, data.row)
    facts = [*_counts(data, x), *_shape(x)]
    known = {fact.name: fact.value for fact in facts}
    facts.append(Fact("separable", found.separable, found.words))
    if found.separable:
        facts += _margin(data, known["rank"])
    return {fact.name: fact for fact in facts}, found


# --- the points -----------------------------------------------------------------------------------


def _counts(data: Dataset, x: np.ndarray) -> list[Fact]:
    """Sizes, constants, repeats and contradictions."""
    names = data.columns or tuple(str(j + 1) for j in range(data.d))
    still = [names[j] for j in np.flatnonzero(x.max(axis=0) == x.min(axis=0))]
    counting = [names[j] for j in range(data.d) if data.n > 2 and _counts_rows(x[:, j])]
    y = data.y.cpu().numpy()
    _, places, groups = np.unique(x + 0.0, axis=0, return_index=True, return_inverse=True)
    both = np.unique(np.stack([groups.ravel(), y], axis=1), axis=0)
    repeats, clashes = data.n - len(both), len(both) - len(places)
    facts = [
        Fact("points", data.n, f"{data.n}: {int((y > 0).sum())} of +1, {int((y < 0).sum())} of -1"),
        Fact("features", data.d, str(data.d)),
        Fact("constants", len(still), f"{len(still)}: {_listed(still)}" if still else "none"),
        Fact("repeats", repeats, f"{repeats}, label included" if repeats else "none"),
        Fact("contradictions", clashes, f"points with both labels: {clashes or 'none'}"),
    ]
    if counting:
        words = f"feature {_listed(counting)} counts the rows: --drop {counting[0]} leaves it out"
        facts.append(Fact("row_numbers", len(counting), words))
    return facts


def _counts_rows(column: np.ndarray) -> bool:
    return bool(np.array_equal(column, column[0] + np.arange(len(column))))


def _shape(x: np.ndarray) -> list[Fact]:
    """Rank, condition, and how far from whitened and from orthonormal."""
    n, d = x.shape
    rank, words = rank_of(x)
    s = np.linalg.svd(x, compute_uv=False)
    condition = float(s[0] / s[(rank or len(s)) - 1]) if s[0] > 0 else math.inf
    whitened = bool(rank == d and condition <= 1 + 1e-8)
    squared = condition**2 if rank == d else math.inf
    independent = None if rank is None else rank == n
    return [
        Fact("rank", rank, words if rank is None else f"{rank} of {d} dimensions; {words}"),
        Fact("condition", condition, f"{condition:.3g}, largest over smallest singular value"),
        Fact("independent", independent, f"{_yes(independent)}: {n} points of rank {rank}"),
        Fact("whitened", whitened, f"{_yes(whitened)}: X^T X has condition {squared:.3g}"),
        _theta(x),
    ]


def rank_of(a: np.ndarray) -> tuple[int | None, str]:
    """The rank of a matrix, its columns scaled to a largest entry of 1; None where a singular value
    is as small as rounding but not clearly so."""
    sizes = np.abs(a).max(axis=0)
    s = np.linalg.svd(a / np.where(sizes > 0, sizes, 1.0), compute_uv=False)
    floor = s[0] * max(a.shape) * EPS
    rank = int((s > floor).sum())
    least = s[rank - 1] / s[0] if rank else 0.0
    if rank and s[rank - 1] < CLEAR * floor:
        return None, f"undecided: a singular value is {least:.0e} of the largest, near rounding"
    return rank, f"least singular value that counts {least:.1e} of the largest"


def _theta(x: np.ndarray) -> Fact:
    """theta = n max_ij |<x_i, x_j> - delta_ij|, points scaled to a mean square norm of 1 (W23,
    Assumption 1)."""
    n, d = x.shape
    if n > d:
        least = math.sqrt(n - d)
        return Fact(
            "theta",
            least,
            (f"at least {least:.3g}: {n} points in {d} dimensions are not orthonormal"),
        )
    gram = x @ x.T
    size = np.trace(gram) / n
    theta = float(n * np.abs(gram / size - np.eye(n)).max()) if size > 0 else math.inf
    return Fact("theta", theta, f"{theta:.3g} (0 for orthonormal points)")


# --- the margin -----------------------------------------------------------------------------------


def _margin(data: Dataset, rank: int | None) -> list[Fact]:
    """Maximum margin, support vectors, and what they span."""
    try:
        best = max_margin(data.z)
    except DlnError as err:
        return [Fact("margin", None, f"undecided: {err}")]
    largest = float(torch.linalg.vector_norm(data.x, dim=1).max())
    share = best.margin / largest
    rows = [data.row(i) for i in torch.nonzero(best.support)[:, 0].tolist()]
    idle = int((best.support & ~best.active).sum())
    small = "; small: a run may end undecided, compare --scale standard" * (share < SMALL)
    carried = "all above 0" if idle == 0 else f"{idle} are 0 in every dual solution"
    return [
        Fact("margin", best.margin, f"{best.margin:.7g}, relative duality gap {best.gap:.0e}"),
        Fact("ball_margin", share, f"{share:.3g} of the largest norm, {largest:.4g}{small}"),
        Fact("support", len(rows), f"{len(rows)}: rows {_listed(rows)}{_room(data, best)}"),
        Fact("idle", idle, carried),
        *_span(data, best, rank),
        _spread(data, best),
    ]


def _span(data: Dataset, best: MaxMargin, rank: int | None) -> list[Fact]:
    """What the support vectors span, and whether their weights are the only ones."""
    spans, words = rank_of(data.z[best.support].cpu().numpy())
    active, _ = rank_of(data.z[best.active].cpu().numpy())
    full = None if None in (spans, rank) else spans == rank
    all_of_it = None if spans is None else spans == data.d
    carried = int(best.active.sum())
    unique = None if active is None else active == carried
    counts = f"{spans} of {rank} dimensions of the data; {words}"
    return [
        Fact("support_spans", full, counts if full is not None else words),
        Fact("support_spans_all", all_of_it, f"{_yes(all_of_it)}: {spans} of {data.d} dimensions"),
        Fact(
            "dual_unique", unique, f"{_yes(unique)}: {carried} weights on points of rank {active}"
        ),
    ]


def _room(data: Dataset, best: MaxMargin) -> str:
    """How far the next point lies from the margin."""
    others = (data.z @ best.direction)[~best.support]
    if not len(others):
        return ""
    return f"; the next point at {float(others.min()) / best.margin:.6g} times the margin"


def _spread(data: Dataset, best: MaxMargin) -> Fact:
    try:
        alpha = spread(data.z, best)
    except DlnError as err:
        return Fact("spread", None, f"not computed: {err}")
    return Fact("spread", alpha, f"{alpha:.3g}")


def _yes(truth: bool | None) -> str:
    return {True: "yes", False: "no", None: "undecided"}[truth]


def _listed(names: list) -> str:
    shown = ", ".join(str(name) for name in names[:SHOWN])
    return shown + (f", and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
