"""A user's own data: `.npz` (arrays x and y) and `.csv` (last column the label), read with named
errors.

How much a file holds is looked up before any of it is read: a small file may unpack to more than
the memory.
"""

from __future__ import annotations

import csv
import math
import os
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from dlnlib.data.dataset import MOST
from dlnlib.errors import BadData, NonFinite, shortened

__all__ = ["READERS", "read"]

# A plain decimal number; `float` would also read 2024_01_31, which is a date.
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
BROKEN = (
    OSError,
    EOFError,
    UnicodeDecodeError,
    zipfile.BadZipFile,
    csv.Error,
    zlib.error,
    struct.error,
    # the last two: an unknown compression, an archive with a password
    NotImplementedError,
    RuntimeError,
)
CHARACTERS = 25  # of a number in a .csv file, at most, where it is written in full


def read(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Arrays x (n, d) and y (n,) of the file; BadData or NonFinite say what is wrong with it, and
    where."""
    path = Path(path)
    shown = shortened(str(path), 200)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        ending = f"ends in '{shortened(path.suffix)}'" if path.suffix else "has no ending"
        raise BadData(f"{shown} {ending}, needed {' or '.join(READERS)}: convert the file")
    try:
        _check_file(path, shown)
        return reader(path)
    except BROKEN as problem:
        reason = " ".join(str(problem).split())
        raise BadData(
            f"{shown} cannot be read ({reason}), needed a {path.suffix} file: write it again"
        ) from None


def _check_file(path: Path, shown: str) -> None:
    if os.path.isfile(path):
        return
    what = "is no file" if os.path.lexists(path) else "does not exist"
    what = "is a directory" if os.path.isdir(path) else what
    raise BadData(f"{shown} {what}, needed a readable file: check the path")


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise BadData(
            f"{path} is not a .npz archive, needed arrays x and y: save it with numpy.savez(path, "
            "x=x, y=y)"
        )
    _check_members(path)
    with np.load(path, allow_pickle=False) as archive:
        try:
            return archive["x"], archive["y"]
        except ValueError as problem:
            reason = " ".join(str(problem).split())
            raise BadData(
                f"{path} cannot be read ({reason}), needed arrays of numbers: write it again"
            ) from None


def _check_members(path: Path) -> None:
    """x and y are there, are numbers, and are not too many, all by the headers of the archive and
    of its arrays."""
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if not {"x", "y"} <= set(names):
            found = shortened(", ".join(names)) or "nothing"
            raise BadData(
                f"{path} holds {found}, needed arrays x and y: save it with numpy.savez(path, "
                "x=x, y=y)"
            )
        for name in ("x", "y"):
            member = name + ".npy" if name + ".npy" in archive.namelist() else name
            with archive.open(member) as stream:
                shape, dtype = _header(path, name, stream)
            if dtype.hasobject:
                raise BadData(
                    f"{path} holds Python objects as {name}, needed numeric arrays: save "
                    "x.astype(float)"
                )
            size = max(
                math.prod(shape), archive.getinfo(member).file_size // max(dtype.itemsize, 1)
            )
            if size > MOST:
                raise BadData(
                    f"{path}: {name} holds {size} numbers, needed at most {MOST}: take a part of "
                    "the data"
                )


def _header(path: Path, name: str, stream) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array in .npy form, whose data are not read."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        version = np.lib.format.read_magic(stream)
        shape, _, dtype = readers[version](stream)
    except (ValueError, KeyError, SyntaxError, TypeError) as problem:
        reason = " ".join(str(problem).split())
        raise BadData(
            f"{path}: {name} is no array ({shortened(reason)}): write it again with numpy.savez"
        ) from None
    return shape, dtype


def _read_csv(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if path.stat().st_size > MOST * CHARACTERS:
        size = f"{path.stat().st_size / 1e6:.0f} MB"
        raise BadData(
            f"{path} has {size}, needed at most {MOST * CHARACTERS / 1e6:.0f} MB: take a part of "
            "the data"
        )
    with open(path, newline="", encoding="utf-8-sig") as stream:
        lines = csv.reader(stream)
        rows = [(lines.line_num, row) for row in lines if any(entry.strip() for entry in row)]
    width = len(rows[0][1]) if rows else 0
    if width == 1:
        raise BadData(
            f"{path} has 1 column, needed at least 2, separated by commas: features, then the label"
        )
    if _has_header(rows):
        if not rows[0][1][0].strip():
            raise BadData(
                f"{path}: column 1 has no name, so it seems to number the points: write the file "
                "without it"
            )
        rows = rows[1:]
    if not rows:
        raise BadData(
            f"{path} has 0 rows of data, needed at least 2: one point a line, its label last"
        )
    table = np.array([_numbers(path, line, row, width) for line, row in rows])
    return table[:, :-1], table[:, -1]


def _has_header(rows: list[tuple[int, list[str]]]) -> bool:
    """Whether the first line names the columns: no entry of it is a number, or its last is none and
    the next line's is.

    The others may be numbers: pandas names columns 0, 1, 2 unless told otherwise.
    """
    if not rows:
        return False
    names = rows[0][1]
    if not any(_is_number(entry) for entry in names):
        return True
    return len(rows) > 1 and not _is_number(names[-1]) and _is_number(rows[1][1][-1])


def _numbers(path: Path, line: int, row: list[str], width: int) -> list[float]:
    if len(row) != width:
        raise BadData(
            f"{path} line {line} has {len(row)} entries, needed {width} as on the first line: "
            "mend the line"
        )
    for column, entry in enumerate(row, start=1):
        if not _is_number(entry):
            shown = entry.strip()[:20]
            raise BadData(
                f"{path} line {line}, column {column} is '{shown}', needed a number: mend or drop "
                "the line"
            )
        if not math.isfinite(float(entry)):
            where = f"{path} line {line}, column {column}"
            raise NonFinite(
                f"{where} is {shortened(entry.strip())}, needed a finite number: mend or drop the "
                "line"
            )
    return [float(entry) for entry in row]


def _is_number(entry: str) -> bool:
    return bool(NUMBER.fullmatch(entry.strip()) or NOT_FINITE.fullmatch(entry.strip()))


READERS = {".npz": _read_npz, ".csv": _read_csv}
