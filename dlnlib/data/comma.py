"""Files of separated values: pandas takes the lines apart; here it is decided what separates them,
whether the first line names the columns, and whether the first column only numbers the rows."""

from __future__ import annotations

import csv
import gzip
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from dlnlib.data.dataset import MOST
from dlnlib.data.frames import NOT_FINITE, NUMBER, from_frame
from dlnlib.data.options import Options
from dlnlib.data.table import Table
from dlnlib.errors import BadData

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CHARACTERS", "content", "read_separated"]

CHARACTERS = 25  # of a number in a text file, at most, where it is written in full


def content(path: Path) -> bytes:
    """What a text file holds, unpacked where it ends in .gz; BadData, before the memory is full,
    where that is too much."""
    most = MOST * CHARACTERS
    found = path.stat().st_size
    if found <= most:
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as stream:
            text = stream.read(most + 1)
        if len(text) <= most:
            return text
        found = len(text)
    raise BadData(
        f"{path} has {found / 1e6:.0f} MB, needed at most {most / 1e6:.0f} MB: take a part of "
        "the data"
    )


def read_separated(path: Path, options: Options) -> Table:
    """The table in a .csv file: separated by commas, semicolons or tabs, with a header or
    without."""
    text = content(path)
    first = next((line for line in _lines(text) if line.strip()), "")
    between = _separator(first)
    frame = _split(text, between, path)
    header = len(frame) > 0 and _names_columns(frame, options)
    names = [str(j + 1) for j in range(frame.shape[1])]
    if header:
        names = [str(name).strip() for name in frame.iloc[0]]
        frame = frame.iloc[1:]
    if frame.shape[1] == 1:
        raise BadData(
            f"{path} has 1 column, needed at least 2, separated by commas, semicolons or tabs: "
            "features and a label"
        )
    if not len(frame):
        raise _no_rows(path)
    frame.columns = names
    numbered = header and names[0] in ("", "Unnamed: 0") and names[0] != options.label
    place = Lines(text, between, header, len(names))
    return from_frame(frame, options, str(path), place, between != ",", numbered)


def _lines(text: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(text), "utf-8-sig", newline="")


def _no_rows(path: Path) -> BadData:
    return BadData(
        f"{path} has 0 rows of data, needed at least 2: one point a line, its label last"
    )


def _separator(line: str) -> str:
    """What splits the first line outside of quotes: a semicolon, a tab, else a comma."""
    for sign in (";", "\t"):
        if len(next(csv.reader([line], delimiter=sign))) > 1:
            return sign
    return ","


def _split(text: bytes, between: str, path: Path) -> pd.DataFrame:
    """All entries as texts; lines without any are left out."""
    import pandas as pd

    form = {"header": None, "dtype": "str", "na_filter": False, "encoding": "utf-8-sig"}
    try:
        frame = pd.read_csv(io.BytesIO(text), sep=between, **form)
    except pd.errors.EmptyDataError:
        raise _no_rows(path) from None
    except pd.errors.ParserError as problem:
        reason = " ".join(str(problem).split()).removeprefix("Error tokenizing data. C error: ")
        raise BadData(
            f"{path} cannot be read ({reason}), needed lines of as many entries as the first: "
            "mend the line"
        ) from None
    empty = frame.iloc[:, 0].str.strip() == ""
    if bool(empty.any()):
        empty &= (frame.apply(lambda column: column.str.strip()) == "").all(axis=1)
    return frame[~empty]


def _names_columns(frame: pd.DataFrame, options: Options) -> bool:
    """Whether the first line names the columns.

    It does where no entry of it is a number; where its last is none and the next line's is; where
    an option names a column by a word that stands there; and where it counts from 0, as pandas does
    unless told otherwise, with something at either end that is no number and no class.
    """
    first = [str(entry).strip() for entry in frame.iloc[0]]
    if not any(map(_is_number, first)):
        return True
    wanted = {name for name in (options.label, *options.drop) if name and not _is_number(name)}
    if wanted & set(first):
        return True
    last = frame.iloc[1:, -1].str.strip()
    if not _is_number(first[-1]) and len(last) and _is_number(str(last.iloc[0])):
        return True
    counted = first[first[0] == "" : len(first) - (not _is_number(first[-1]))]
    if len(counted) == len(first) or first[-1] in set(last):
        return False
    return counted == [str(j) for j in range(len(counted))]


def _is_number(entry: str) -> bool:
    return bool(re.fullmatch(NUMBER, entry) or re.fullmatch(NOT_FINITE, entry))


class Lines:
    """The line of a row in the file: looked for only where there is something to say about it."""

    def __init__(self, text: bytes, between: str, header: bool, width: int):
        self.text, self.between, self.header, self.width = text, between, header, width

    def __call__(self, row: int) -> str:
        reader = csv.reader(_lines(self.text), delimiter=self.between)
        seen = -1 - self.header
        for entries in reader:
            seen += any(entry.strip() for entry in entries)
            if seen == row:
                short = f" ({len(entries)} entries, needed {self.width})"
                return f"line {reader.line_num}{short if len(entries) < self.width else ''}"
        return f"row {row + 1}"
