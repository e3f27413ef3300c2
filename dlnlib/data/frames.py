"""Tables with named columns of any type (a data frame) as points and labels; every entry that is no
number is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from dlnlib.data.options import Options
from dlnlib.data.table import Table, column_of, too_many
from dlnlib.errors import BadData, NonFinite, shortened

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["from_frame"]

# a plain decimal number: Python would also read 2024_01_31, which is a date
NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
NOT_FINITE = r"(?i)[+-]?(nan|inf|infinity)"
TRUTH = {"true": 1.0, "false": 0.0}
Place = Callable[[int], str]  # of a row, counted from 0, in words


def from_frame(
    frame: pd.DataFrame,
    options: Options,
    where: str,
    place: Place = lambda row: f"row {row + 1}",
    comma: bool = False,
    numbered: bool = False,
) -> Table:
    """Label and features of a frame: the label is the column asked for, else the last one.

    `comma`: entries such as 1,5 are numbers too; `numbered`: the first column only counts the rows.
    Raises BadParameter for a column that is not there, BadData and NonFinite, with place and
    remedy, for an entry that is no finite number.
    """
    names = [str(name) for name in frame.columns]
    too_many(frame.size, where)
    if len(names) < 2:
        raise BadData(f"{where} has {len(names)} column, needed at least 2: features and a label")
    label = len(names) - 1 if options.label is None else column_of(options.label, names, where)
    left_out = {column_of(name, names, where) for name in options.drop}
    told = ("column 1 has no name and numbers the rows: left out",) * numbered
    if label in left_out:
        raise BadData(
            f"{where}: the label '{names[label]}' is dropped, needed: name another column "
            "with label="
        )
    features = [j for j in range(len(names)) if j != label and j not in left_out][numbered:]
    if not features:
        raise BadData(
            f"{where} has no feature left, needed at least one column beside the label: drop fewer"
        )
    read, commas = [], 0
    for j in features:
        column, had_comma = _numbers(frame.iloc[:, j], comma, Where(where, place, j, names[j]))
        read.append(column)
        commas += had_comma
    told += (f"dropped {', '.join(names[j] for j in sorted(left_out))}",) if left_out else ()
    told += (f"decimal comma in {commas} columns",) if commas else ()
    labels = _labels(frame.iloc[:, label], Where(where, place, label, names[label]))
    return Table(
        np.stack(read, axis=1), labels, names[label], tuple(names[j] for j in features), told
    )


class Where:
    """The place of an entry in words, and the error for what stands there."""

    def __init__(self, file: str, place: Place, column: int, name: str):
        self.file, self.place, self.column, self.name = file, place, column, name

    def refuse(self, rows: np.ndarray, entry, kind: type[BadData] = BadData) -> BadData:
        """The error for the first of these rows, which all hold something unusable."""
        row = int(rows[0])
        name = "" if self.name == str(self.column + 1) else f" '{shortened(self.name, 40)}'"
        shown = entry if kind is NonFinite else f"'{entry}'"
        also = f" (and {len(rows) - 1} more of this column are unusable)" if len(rows) > 1 else ""
        needed = "a finite number" if kind is NonFinite else "a number"
        return kind(
            f"{self.file} {self.place(row)}, column {self.column + 1}{name} is {shown}, "
            f"needed {needed}{also}: "
            f"mend or drop the {self.place(row).split()[0]}, or drop={shortened(self.name, 40)}"
        )


def _labels(column: pd.Series, where: Where) -> np.ndarray:
    """Labels of any type; a missing one is refused with its place."""
    missing = column.isna().to_numpy()
    if column.dtype.kind not in "biufc":
        missing = missing | (column.astype(str).str.strip() == "").to_numpy()
    if missing.any():
        rows = np.flatnonzero(missing)
        raise BadData(
            f"{where.file} {where.place(int(rows[0]))}: the label (column {where.column + 1}) "
            "is missing, as are "
            f"{len(rows) - 1} more, needed a class: mend or drop the "
            f"{where.place(int(rows[0])).split()[0]}"
        )
    plain = column.dtype.kind in "biufcmM" and isinstance(column.dtype, np.dtype)
    return column.to_numpy() if plain else column.astype(str).to_numpy(dtype=object)


def _numbers(column: pd.Series, comma: bool, where: Where) -> tuple[np.ndarray, bool]:
    """The column as float64, and whether it was written with commas."""
    from pandas.api import types

    if types.is_complex_dtype(column.dtype) or types.is_datetime64_any_dtype(column.dtype):
        raise where.refuse(np.arange(1), str(column.iloc[0]))
    if types.is_numeric_dtype(column.dtype):  # truth values among them
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return _finite(values, column, where), False
    text = column.astype("str").str.strip()
    fits = text.str.fullmatch(NUMBER) | text.str.fullmatch(NOT_FINITE)
    if bool(fits.all()):
        return _finite(text.astype(np.float64).to_numpy(), text, where), False
    if comma:
        dotted = text.str.replace(",", ".", n=1)
        fits |= dotted.str.fullmatch(NUMBER)
        if bool(fits.all()):
            return _finite(dotted.astype(np.float64).to_numpy(), text, where), True
    truth = text.str.lower().map(TRUTH)
    if not truth.isna().any():
        return truth.to_numpy(dtype=np.float64), False
    rows = np.flatnonzero(~fits.fillna(False).to_numpy(dtype=bool))
    found = text.iloc[rows[0]]
    shown = "" if found != found else re.sub(r"\s+", " ", str(found))[:20]
    raise where.refuse(rows, shown)


def _finite(values: np.ndarray, written: pd.Series, where: Where) -> np.ndarray:
    rows = np.flatnonzero(~np.isfinite(values))
    if len(rows):
        raise where.refuse(rows, shortened(str(written.iloc[rows[0]])), NonFinite)
    return values
