"""Data that are in memory already: arrays, data frames, what scikit-learn loads, what torch
iterates over."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from dlnlib.data.frames import from_frame
from dlnlib.data.options import Options
from dlnlib.data.readers import from_arrays
from dlnlib.data.table import Table, too_many
from dlnlib.errors import BadData

__all__ = ["from_object"]

PAIRS = (("x", "y"), ("X", "y"), ("data", "target"))


def from_object(found, options: Options) -> Table:
    """The table in an object: a pair (x, y), a data frame, a mapping such as scikit-learn's Bunch,
    a torch data set.

    Raises BadData for anything else.
    """
    where = f"the {type(found).__name__}"
    if isinstance(found, torch.utils.data.Dataset):
        return from_arrays(*_gathered(found), "y", options, where)
    if isinstance(found, tuple | list) and len(found) == 2:
        return _pair(*found, "y", options, where)
    if _is_frame(found):
        return from_frame(found, options, where)
    if isinstance(found, Mapping):
        for points, label in PAIRS:
            if points in found and label in found:
                return _pair(found[points], found[label], label, options, where)
    raise BadData(
        f"{where} is no data set, needed a name, a file, a pair (x, y), a data frame, a mapping "
        "with data and target, or a torch data set"
    )


def _is_frame(found) -> bool:
    return hasattr(found, "columns") and hasattr(found, "iloc")


def _pair(x, y, label: str, options: Options, where: str) -> Table:
    if _is_frame(x):
        values = np.asarray(y)
        if values.shape != (len(x),):
            raise BadData(
                f"y has shape {values.shape}, needed ({len(x)},), one label for each row of x"
            )
        name = str(getattr(y, "name", None) or label)
        name = f"{name} (label)" if name in map(str, x.columns) else name
        return from_frame(x.assign(**{name: values}), options, where)
    if hasattr(x, "toarray"):  # sparse
        too_many(x.shape[0] * x.shape[1], f"x of {where}, written out,")
        x = x.toarray()
    return from_arrays(_array(x), _array(y), label, options, where)


def _array(values) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().numpy()
    try:
        return np.asarray(values)
    except ValueError:
        raise BadData(
            "x is not a rectangular array of numbers, needed one: convert it to floats"
        ) from None


def _gathered(found) -> tuple[np.ndarray, np.ndarray]:
    """All samples of a torch data set, each flattened to a row."""
    try:
        count = len(found)
        first, _ = found[0]
        too_many(count * torch.as_tensor(first).numel(), "the data set")
        samples = [found[i] for i in range(count)]
        x = torch.stack([torch.as_tensor(x).detach().cpu().flatten() for x, _ in samples])
        y = torch.stack([torch.as_tensor(y).detach().cpu() for _, y in samples])
    except (TypeError, ValueError, IndexError, RuntimeError, NotImplementedError) as problem:
        reason = " ".join(str(problem).split())[:200]
        raise BadData(
            f"the torch data set cannot be read ({reason}), needed samples (x, y) of one shape"
        ) from None
    return x.numpy(), y.numpy()
