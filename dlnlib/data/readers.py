"""A user's own files, each read by the library that keeps its format, with named errors.

How much a file holds is looked up before any of it is read: a small file may unpack to more than
the memory. Nothing is ever unpickled.
"""

from __future__ import annotations

import csv
import io
import math
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from dlnlib.data.comma import CHARACTERS, content, read_separated
from dlnlib.data.dataset import MOST
from dlnlib.data.frames import from_frame
from dlnlib.data.options import Options
from dlnlib.data.table import Table, column_of, too_many
from dlnlib.errors import BadData, BadInput, BadParameter, shortened

__all__ = ["READERS", "ending", "from_arrays", "read"]

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
# what points are called in an archive, and their labels: first looked for under the name beside it
POINTS = {"x": "y", "X": "y", "data": "target", "features": "labels", "images": "labels"}
LABELS = ("y", "Y", "target", "labels", "label")


def ending(path: str | Path) -> str:
    """The ending that says the format: ".csv", and ".csv.gz" as one."""
    name = Path(path).name.lower()
    packed = name.endswith(".gz")
    return Path(name.removesuffix(".gz")).suffix + ".gz" * packed


def read(path: str | Path, options: Options | None = None) -> Table:
    """The table in a file; BadData, NonFinite or BadParameter say what is wrong with it, and
    where."""
    path = Path(path)
    shown = shortened(str(path), 200)
    reader = READERS.get(ending(path))
    if reader is None:
        found = f"ends in '{shortened(path.suffix)}'" if path.suffix else "has no ending"
        raise BadData(f"{shown} {found}, needed one of {', '.join(READERS)}: convert the file")
    try:
        _check_file(path, shown)
        return reader(path, options or Options())
    except BadInput:
        raise
    except BROKEN as problem:
        reason = shortened(" ".join(str(problem).split()), 200)
        raise BadData(
            f"{shown} cannot be read ({reason}), needed a {ending(path)} file: write it again"
        ) from None


def from_arrays(x, labels, name: str, options: Options, where: str) -> Table:
    """Points (n, d) and labels (n,) as they are: features have numbers, from 1."""
    if options.label not in (None, name):
        raise BadParameter(
            f"{where} has its labels in {name}, not in '{shortened(options.label)}': write "
            f"label={name}"
        )
    x = np.asarray(x)
    if x.ndim != 2 or not options.drop:
        return Table(x, labels, name)
    names = [str(j + 1) for j in range(x.shape[1])]
    left_out = sorted({column_of(column, names, where) for column in options.drop})
    told = f"dropped {', '.join(names[j] for j in left_out)}"
    kept = tuple(name for j, name in enumerate(names) if j not in left_out)
    return Table(np.delete(x, left_out, axis=1), labels, name, kept, (told,))


def _told(reader, *args, **kwargs):
    """What the reader returns; libraries say by a ValueError that a file is not in their format."""
    try:
        return reader(*args, **kwargs)
    except ValueError as problem:
        raise OSError(str(problem)) from problem


def _check_file(path: Path, shown: str) -> None:
    if os.path.isfile(path):
        return
    what = "is no file" if os.path.lexists(path) else "does not exist"
    what = "is a directory" if os.path.isdir(path) else what
    raise BadData(f"{shown} {what}, needed a readable file: check the path")


# --- NumPy ----------------------------------------------------------------------------------------


def _read_npz(path: Path, options: Options) -> Table:
    if not zipfile.is_zipfile(path):
        raise BadData(
            f"{path} is not a .npz archive, needed arrays x and y: save it with numpy.savez(path, "
            "x=x, y=y)"
        )
    points, label = _check_members(path, options)
    with np.load(path, allow_pickle=False) as archive:
        x, labels = _told(lambda: (archive[points], archive[label]))
    return from_arrays(x, labels, label, options, str(path))


def _check_members(path: Path, options: Options) -> tuple[str, str]:
    """What points and labels are called, once it is known by the headers of the archive and of its
    arrays that they are arrays of plain values, and not too many."""
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        points = next((name for name in POINTS if name in names), None)
        labels = [POINTS.get(points), *LABELS] if options.label is None else [options.label]
        label = next((name for name in labels if name in names and name != points), None)
        if points is None or label is None:
            found = shortened(", ".join(names)) or "nothing"
            wanted = f"arrays x and {options.label or 'y'}"
            raise BadData(
                f"{path} holds {found}, needed {wanted}: save it with numpy.savez(path, x=x, y=y)"
            )
        for name in (points, label):
            member = name + ".npy" if name + ".npy" in archive.namelist() else name
            with archive.open(member) as stream:
                _check_header(path, name, stream, archive.getinfo(member).file_size)
    return points, label


def _read_npy(path: Path, options: Options) -> Table:
    """Points in one .npy file, labels in another beside it: x.npy and y.npy, mine_x.npy and
    mine_y.npy."""
    name = options.label or next(
        (
            path.stem.removesuffix(points) + label + ".npy"
            for points, label in POINTS.items()
            if path.stem.endswith(points)
        ),
        "y.npy",
    )
    other = path.parent / name
    if name != os.path.basename(name) or not os.path.isfile(other) or other == path:
        raise BadData(
            f"{path} holds points, and there is no {shortened(name)} beside it: needed labels, "
            "name their file by label=FILE.npy"
        )
    arrays = []
    for file in (path, other):
        with open(file, "rb") as stream:
            _check_header(file, file.name, stream, file.stat().st_size)
        arrays.append(_told(np.load, file, allow_pickle=False))
    return from_arrays(arrays[0], arrays[1], name, options, str(path))


def _check_header(path: Path, name: str, stream, size: int) -> None:
    """Shape and type of an array in .npy form, whose data are not read: plain values, and not too
    many."""
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
    if dtype.hasobject:
        raise BadData(
            f"{path} holds Python objects as {name}, which are never unpickled, needed numeric "
            "arrays: save x.astype(float)"
        )
    too_many(max(math.prod(shape), size // max(dtype.itemsize, 1)), f"{path}: {name}")


# --- others ---------------------------------------------------------------------------------------


def _read_parquet(path: Path, options: Options) -> Table:
    import pandas as pd
    from pyarrow import parquet

    with open(path, "rb") as stream:
        about = _told(parquet.read_metadata, stream)
        groups = [about.row_group(i).total_byte_size for i in range(about.num_row_groups)]
        too_many(about.num_rows * about.num_columns, str(path))
        if sum(groups) > MOST * CHARACTERS:
            raise BadData(
                f"{path} unpacks to {sum(groups) / 1e6:.0f} MB, needed at most "
                f"{MOST * CHARACTERS / 1e6:.0f} MB: take a part of the data"
            )
        stream.seek(0)
        frame = _told(pd.read_parquet, stream, engine="pyarrow")
    if not len(frame):
        raise BadData(f"{path} has 0 rows of data, needed at least 2: write it again")
    return from_frame(frame, options, str(path))


def _read_svmlight(path: Path, options: Options) -> Table:
    from sklearn.datasets import load_svmlight_file

    x, labels = _told(load_svmlight_file, io.BytesIO(content(path)))
    if not x.shape[0]:
        raise BadData(
            f"{path} has 0 rows of data, needed at least 2: `label column:value ...` a line"
        )
    too_many(x.shape[0] * x.shape[1], f"{path}, written out,")
    return from_arrays(x.toarray(), labels, "label", options, str(path))


READERS = {
    ".csv": read_separated,
    ".csv.gz": read_separated,
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".parquet": _read_parquet,
    ".svm": _read_svmlight,
    ".svm.gz": _read_svmlight,
    ".libsvm": _read_svmlight,
    ".libsvm.gz": _read_svmlight,
    ".svmlight": _read_svmlight,
    ".svmlight.gz": _read_svmlight,
}
