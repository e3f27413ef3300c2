"""A checked data set: points x_i in R^d, labels y_i = -1 or +1, and z_i = y_i x_i, all that the
margins see."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dlnlib.data.labels import NOT_REAL
from dlnlib.errors import BadData, BadLabel, NonFinite, ShapeMismatch

__all__ = ["MOST", "Dataset", "checked_points", "one_hot"]

# numbers in a data set (80 MB): more would fill the memory before anything is learnt
MOST = 10_000_000


@dataclass(frozen=True, eq=False)
class Dataset:
    """Points x (n, d) and labels y (n,) in {-1, +1}, both float64, checked when made.

    `columns` are the names of the features, where they have some; `rows` where each point stands in
    its file, counted from 1, where not all were taken; `told` is what was done to the data on their
    way here, in words. Raises BadData (no rows, not two-dimensional, not numeric, one class only),
    BadLabel, NonFinite, ShapeMismatch.
    """

    x: torch.Tensor
    y: torch.Tensor
    name: str
    image_shape: tuple[int, int] | None = None
    columns: tuple[str, ...] = ()
    told: str = ""
    rows: tuple[int, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "x", checked_points(self.x))
        object.__setattr__(self, "y", _as_float64("y", self.y))
        _check_labels(self.y, self.n)

    @property
    def n(self) -> int:
        return self.x.shape[0]

    @property
    def d(self) -> int:
        return self.x.shape[1]

    @property
    def z(self) -> torch.Tensor:
        """z_i = y_i x_i, of shape (n, d)."""
        return self.y[:, None] * self.x

    @property
    def sentence(self) -> str:
        """What the data are and what was done to them, in one line."""
        counts = f"{int((self.y > 0).sum())} of +1, {int((self.y < 0).sum())} of -1"
        return f"{self.n} points ({counts}) of {self.d} features" + (self.told and f"; {self.told}")

    def row(self, place: int) -> int:
        """Where the point with this index (from 0) stands in its file, counted from 1."""
        return self.rows[place] if self.rows else place + 1

    def scaled(self) -> Dataset:
        """All points divided by max_i ||x_i||, as JT18 asks (||x_i|| <= 1); directions of margins
        do not change."""
        size = self.x.abs().max()
        if size == 0:
            raise BadData(
                f"all {self.n} points of {self.name} are 0, needed one that is not: they cannot "
                "be rescaled"
            )
        # first by the largest entry: squares of very large entries would overflow
        x = self.x / size
        x = x / torch.linalg.vector_norm(x, dim=1).max()
        while torch.linalg.vector_norm(x, dim=1).max() > 1:  # rounding, at most an ulp or two
            x = x * (1 - 2.0**-53)
        return replace(self, x=x)

    def with_constant(self, value: float = 1.0) -> Dataset:
        """A last feature equal to `value` for every point: the hyperplane need not pass through the
        origin."""
        x = torch.cat([self.x, self.x.new_full((self.n, 1), value)], dim=1)
        columns = (*self.columns, "constant") if self.columns else ()
        return replace(self, x=x, name=f"{self.name}+1", image_shape=None, columns=columns)

    def standardised(self) -> Dataset:
        """Every feature shifted to mean 0 and divided by its standard deviation; a constant feature
        is kept as it is.

        The shift changes what can be separated without a constant feature, the division changes the
        maximum margin.
        """
        size, mean = self.x.std(0, correction=0), self.x.mean(0)
        still = self.x.amax(0) == self.x.amin(0)
        x = torch.where(still, self.x, (self.x - mean) / torch.where(still, 1.0, size))
        return replace(self, x=x, name=f"{self.name}, standardised", image_shape=None)

    def to(self, device) -> Dataset:
        """The same data on another device."""
        return replace(self, x=self.x.to(device), y=self.y.to(device))


def _as_float64(what: str, values) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        if values.is_complex():
            raise _not_real(what, "complex")
        return values.detach().to(torch.float64)
    try:
        array = np.asarray(values)
        if array.dtype.kind in NOT_REAL:
            raise _not_real(what, NOT_REAL[array.dtype.kind])
        if array.dtype.kind not in "biuf":
            raise TypeError
        with np.errstate(over="ignore"):  # of a longer type: an infinity, which is named below
            return torch.from_numpy(array.astype(np.float64))
    except (TypeError, ValueError):
        raise BadData(
            f"{what} is not a rectangular array of numbers, needed one: convert it to floats"
        ) from None


def _not_real(what: str, found: str) -> BadData:
    mend = (
        "stack real and imaginary parts as features"
        if found == "complex"
        else "convert it to floats"
    )
    return BadData(f"{what} is {found}, needed real numbers: {mend}")


def checked_points(x) -> torch.Tensor:
    """Points (n, d) as float64; raises BadData or NonFinite, with the place, unless they can be
    used."""
    x = _as_float64("x", x)
    if x.ndim != 2:
        hint = (
            "x.reshape(-1, 1) makes one feature of it"
            if x.ndim == 1
            else "flatten each point to a row"
        )
        raise BadData(f"x has shape {tuple(x.shape)}, needed (n, d): {hint}")
    if 0 in x.shape:
        raise BadData(
            f"x has shape {tuple(x.shape)}, needed at least one row and one column: check the "
            "file or filter"
        )
    bad = (~torch.isfinite(x)).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        where = f"row {row + 1}, column {column + 1} of x (counted from 1)"
        raise NonFinite(
            f"{where} is {x[row, column].item()}, needed finite numbers: mend or drop the row"
        )
    return x


def _check_labels(y: torch.Tensor, n: int) -> None:
    if y.shape != (n,):
        raise ShapeMismatch(
            f"y has shape {tuple(y.shape)}, needed ({n},), one label for each row of x"
        )
    bad = (~torch.isfinite(y)).nonzero()
    if len(bad):
        row = bad[0].item()
        raise NonFinite(
            f"label {row + 1} (counted from 1) is {y[row].item()}, needed -1 or +1: mend or drop "
            "the row"
        )
    found = torch.unique(y).tolist()
    if not set(found) <= {-1.0, 1.0}:
        shown = ", ".join(f"{label:g}" for label in found[:5]) + (", ..." if len(found) > 5 else "")
        mend = (
            "map them by y = 2 * y - 1"
            if set(found) <= {0.0, 1.0}
            else "choose two classes and map them to -1, +1"
        )
        raise BadLabel(f"labels are {shown}, needed -1 and +1: {mend}")
    if len(found) < 2:
        raise BadData(
            f"all {n} labels are {found[0]:+g}, needed both -1 and +1: one class only cannot be "
            "separated"
        )


def one_hot(labels: Tensor) -> Tensor:
    """Y (K, N) with Y_ki = 1 where sample i is of class k.

    Raises BadLabel for labels that are not all of 0..K-1, BadData for fewer than two classes.
    """
    labels = torch.as_tensor(labels)
    if labels.ndim != 1 or labels.is_floating_point() or labels.numel() == 0:
        raise BadLabel(
            f"labels have shape {tuple(labels.shape)} and type {labels.dtype}, needed N integers"
        )
    K = int(labels.max()) + 1
    missing = sorted(set(range(K)) - set(labels.tolist()))
    if missing or int(labels.min()) < 0:
        what = f"no sample of class {missing[0]}" if missing else f"class {int(labels.min())}"
        raise BadLabel(
            f"labels have {what}, needed every class 0, 1, ..., {K - 1}: number the classes from 0"
        )
    if K < 2:
        raise BadData("labels have 1 class, needed at least 2: nothing lies between classes")
    return torch.nn.functional.one_hot(labels, K).mT.to(torch.float64)
