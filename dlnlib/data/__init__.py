"""Data sets: points, labels, and where they come from."""

from dlnlib.data.dataset import Dataset, one_hot
from dlnlib.data.sources import bundled, known_names, load, load_classes
from dlnlib.data.synthetic import (
    KnownSolution,
    not_separable,
    one_support_vector,
    random_separable,
    six_points,
    spanning,
)

__all__ = [
    "Dataset",
    "KnownSolution",
    "bundled",
    "known_names",
    "load",
    "load_classes",
    "not_separable",
    "one_hot",
    "one_support_vector",
    "random_separable",
    "six_points",
    "spanning",
]
