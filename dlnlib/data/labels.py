"""From labels as people have them (words, truth values, numbers) to -1 and +1."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from dlnlib.errors import BadData, BadLabel, BadParameter, NonFinite, shortened

__all__ = ["NOT_REAL", "Classes", "classes_of", "two_classes"]

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
NOT_REAL = {
    "c": "complex",
    "M": "an array of dates",
    "m": "an array of durations",
    "V": "an array of records",
}
SHOWN = 6  # classes named in a message


@dataclass(frozen=True)
class Classes:
    """The classes of a column in their order (of numbers, else of the alphabet), and which one each
    row is of.

    `names` as the file writes them; `index` (n,) counts from 0.
    """

    column: str
    names: tuple[str, ...]
    index: np.ndarray

    def find(self, text: str) -> int:
        """The class of that name, or of that number; BadParameter names those that there are."""
        for place, name in enumerate(self.names):
            if text == name or (
                _is_number(text) and _is_number(name) and float(text) == float(name)
            ):
                return place
        raise BadParameter(
            f"label '{self.column}' has no class '{shortened(text)}'; it has {self.listed()}"
        )

    def listed(self) -> str:
        """The first few names, and how many there are."""
        more = f" and {len(self.names) - SHOWN} more" if len(self.names) > SHOWN else ""
        return ", ".join(shortened(name, 30) for name in self.names[:SHOWN]) + more


def classes_of(labels, column: str) -> Classes:
    """The classes of labels (n,) of any type; raises BadData or NonFinite for a missing one, with
    its row."""
    labels = np.asarray(labels)
    if labels.dtype.kind in NOT_REAL:
        raise BadData(
            f"{column} is {NOT_REAL[labels.dtype.kind]}, needed labels: name the column of classes"
        )
    if labels.dtype.kind not in "biuf":
        labels = np.array([_text(value, row) for row, value in enumerate(labels.tolist(), start=1)])
    values, index = np.unique(labels, return_inverse=True)
    names = [_written(value) for value in values.tolist()]
    numbers = all(map(_is_number, names))
    order = np.array([float(name) for name in names]) if numbers else np.array(names)
    if numbers and not np.isfinite(order).all():
        row = int((~np.isfinite(order))[index].argmax())
        raise _missing(row + 1, names[index[row]])
    _, first, merged = np.unique(order, return_index=True, return_inverse=True)  # "2" and "2.0"
    return Classes(column, tuple(names[i] for i in first), merged[index])


def two_classes(labels, column: str, wanted: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, str]:
    """Which rows are kept (n,) bool, their labels -1 or +1, and what was done, in words.

    `wanted`: none (the column has two classes: the first is -1), one (+1 against the rest), or two
    (+1, then -1). Raises BadLabel where there are more than two classes and none was chosen,
    BadData where there is one.
    """
    found = classes_of(labels, column)
    if len(found.names) == 1:
        raise BadData(
            f"all {len(found.index)} labels are {found.names[0]}, needed two classes: one "
            "class only cannot be separated"
        )
    if not wanted and len(found.names) > 2:
        choose = (
            f"label={column}=POSITIVE,NEGATIVE takes two, label={column}=POSITIVE one against "
            "the rest"
        )
        raise BadLabel(
            f"label '{column}' has {len(found.names)} classes ({found.listed()}), needed two: "
            f"{choose}"
        )
    positive, negative = _chosen(found, wanted)
    keep = np.ones(len(found.index), bool)
    if negative is not None:
        keep = np.isin(found.index, (positive, negative))
    y = np.where(found.index[keep] == positive, 1.0, -1.0)
    other = "the rest" if negative is None else found.names[negative]
    left_out = f", {int((~keep).sum())} rows of other classes left out" if not keep.all() else ""
    counts = int((y > 0).sum()), int((y < 0).sum())
    told = (
        f"label '{column}': {found.names[positive]} is +1 ({counts[0]}), {other} is -1 "
        f"({counts[1]})"
    )
    return keep, y, told + left_out


def _chosen(found: Classes, wanted: tuple[str, ...]) -> tuple[int, int | None]:
    """The class that is +1 and the one that is -1, None for the rest."""
    positive = found.find(wanted[0]) if wanted else 1
    if len(wanted) == 2:
        negative = found.find(wanted[1])
    else:
        negative = 1 - positive if len(found.names) == 2 else None
    if positive == negative:
        raise BadParameter(
            f"label '{found.column}': {wanted[0]} and {wanted[1]} are one class, needed two: "
            "change one"
        )
    return positive, negative


def _text(value, row: int) -> str:
    """One label that is no number, as a text."""
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        raise _missing(row, "missing")
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()


def _written(value) -> str:
    """A label as people write it: -0.0 and 2.0 are whole numbers."""
    whole = isinstance(value, float) and math.isfinite(value) and value == int(value)
    return str(int(value)) if whole else str(value)


def _missing(row: int, found: str) -> NonFinite:
    return NonFinite(
        f"label {row} (counted from 1) is {found}, needed a class: mend or drop the row"
    )


def _is_number(text: str) -> bool:
    return bool(NUMBER.fullmatch(text)) or text in ("nan", "inf", "-inf")
