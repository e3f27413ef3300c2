"""What every reader makes: points, labels of any kind, and the names of both."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlnlib.data.dataset import MOST, Dataset, checked_points
from dlnlib.data.labels import two_classes
from dlnlib.data.options import Options
from dlnlib.errors import BadData, BadParameter, ShapeMismatch, shortened

__all__ = ["Table", "column_of", "finished", "too_many"]


@dataclass(frozen=True, eq=False)
class Table:
    """Points x (n, d), labels (n,) of any type, `label` the name of their column, `columns` those
    of the features.

    `told`: what was done while reading, in words.
    """

    x: np.ndarray
    labels: np.ndarray
    label: str
    columns: tuple[str, ...] = ()
    told: tuple[str, ...] = ()

    def dataset(self, name: str, options: Options) -> Dataset:
        """Two classes of it, with what the options ask for."""
        checked_points(self.x)
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or labels.shape[:1] != np.shape(self.x)[:1]:
            raise ShapeMismatch(
                f"y has shape {labels.shape}, needed ({len(self.x)},), one label for each row of x"
            )
        keep, y, words = two_classes(labels, self.label, options.classes)
        x = np.asarray(self.x)[keep]
        told = "; ".join((words, *self.told))
        rows = () if keep.all() else tuple((np.flatnonzero(keep) + 1).tolist())
        return finished(Dataset(x, y, name, None, self.columns, told, rows), options)


def finished(data: Dataset, options: Options) -> Dataset:
    """The data with columns left out (where the reader has not), sampled, scaled, and with a
    constant, in this order."""
    name, told = data.name, [data.told] if data.told else []
    if options.sample is not None:
        data = _sampled(data, options.sample, options.seed)
        told.append(f"{options.sample} rows drawn with seed {options.seed}")
    if options.scale == "ball":
        data = data.scaled()
        told.append("divided by the largest norm")
    elif options.scale == "standard":
        data = data.standardised()
        told.append("every feature shifted to mean 0 and scaled to deviation 1")
    if options.constant:
        data = data.with_constant()
        told.append("a last feature 1 appended")
    return replace(data, name=name, told="; ".join(told))


def _sampled(data: Dataset, count: int, seed: int) -> Dataset:
    """`count` rows in their order, as many of each label as its share, at least one."""
    if count > data.n:
        raise BadParameter(
            f"sample = {count}, needed at most {data.n}, the rows of {data.name}: change it"
        )
    y = data.y.numpy()
    positive = min(max(round(count * float((y > 0).mean())), 1), count - 1)
    positive = min(max(positive, count - int((y < 0).sum())), int((y > 0).sum()))
    draw = np.random.default_rng(seed)
    rows = [
        draw.permutation(np.flatnonzero(y > 0))[:positive],
        draw.permutation(np.flatnonzero(y < 0))[: count - positive],
    ]
    rows = np.sort(np.concatenate(rows))
    places = tuple(data.row(place) for place in rows.tolist())
    return replace(data, x=data.x[rows], y=data.y[rows], rows=places)


def column_of(wanted: str, columns: Sequence[str], where: str) -> int:
    """The place of the column of that name, else of that number counted from 1; BadParameter names
    the closest."""
    places = [place for place, name in enumerate(columns) if name == wanted]
    if len(places) > 1:
        raise BadParameter(
            f"{where} has {len(places)} columns '{shortened(wanted)}', needed one: give its number"
        )
    if places:
        return places[0]
    if wanted.isascii() and wanted.isdecimal() and 1 <= int(wanted) <= len(columns):
        return int(wanted) - 1
    near = difflib.get_close_matches(wanted[:60], columns, n=1, cutoff=0.5)
    shown = shortened(", ".join(columns), 200)
    hint = f"did you mean '{shortened(near[0])}'?" if near else f"its columns are {shown}"
    raise BadParameter(f"{where} has no column '{shortened(wanted)}': {hint}")


def too_many(numbers: int, where: str) -> None:
    """BadData unless so many numbers fit."""
    if numbers > MOST:
        raise BadData(
            f"{where} holds {numbers} numbers, needed at most {MOST}: take a part of the data"
        )
