"""Objectives: what training lowers, as a function F of the end-to-end matrix W = W_L ... W_1.

Everything that descends knows an objective by its `value` and its `slope` dF/dW alone; risk and
gradients of all layers follow from these two. Samples are rows. To add an objective, write one more
subclass of `Objective`; those of the library are in `risks` and `targets`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import NamedTuple

from torch import Tensor

from dlnlib.errors import NonFinite, ShapeMismatch
from dlnlib.losses.gradients import layer_gradients
from dlnlib.networks.product import check_shapes, end_to_end, products_above

__all__ = ["Look", "Objective", "OfTensors", "check_finite", "check_matrices"]


class Look(NamedTuple):
    """F(W) (*runs,), dF/dW (*runs, d_L, d_0), and how much F moves, at most, where rounding moves
    each entry of W by 1."""

    value: Tensor
    slope: Tensor
    stiffness: Tensor


class Objective(ABC):
    """A function F of W (*runs, d_L, d_0); data without runs are shared by all runs."""

    name: str

    @abstractmethod
    def value(self, W: Tensor) -> Tensor:
        """F(W), (*runs,)."""

    @abstractmethod
    def slope(self, W: Tensor) -> Tensor:
        """dF/dW, (*runs, d_L, d_0)."""

    def look(self, W: Tensor) -> Look:
        """Value and slope, with what they share computed once."""
        slope = self.slope(W)
        return Look(self.value(W), slope, slope.abs().sum((-2, -1)))

    def risk(self, weights: Sequence[Tensor]) -> Tensor:
        """F(W_L ... W_1), (*runs,)."""
        return self.value(end_to_end(weights))

    def gradient(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """dF/dW_k of all layers, shaped like the weights."""
        rows = products_above(weights)
        return layer_gradients(weights, self.slope(rows[0]), rows)

    def check(self, weights: Sequence[Tensor]) -> None:
        """Raise `ShapeMismatch`, `NonFinite` or `BadParameter` where weights and data do not go
        together."""
        check_shapes(weights)
        check_finite(weights, {})

    @property
    def runs(self) -> tuple[int, ...]:
        """The leading dimensions of its data, () where all runs share them."""
        return ()

    def in_rows(self) -> Objective:
        """The same with the runs of its data as one leading dimension, (R, ., .)."""
        return self


class OfTensors(Objective):
    """An objective whose data are the tensors among its fields."""

    @property
    def runs(self) -> tuple[int, ...]:
        return next((tuple(A.shape[:-2]) for A in self._with_runs().values()), ())

    def in_rows(self) -> Objective:
        data = self._with_runs().items()
        return replace(self, **{name: A.reshape(-1, *A.shape[-2:]) for name, A in data})

    def _with_runs(self) -> dict[str, Tensor]:
        data = {part.name: getattr(self, part.name) for part in fields(self)}
        return {name: A for name, A in data.items() if isinstance(A, Tensor) and A.ndim > 2}


def check_matrices(
    weights: Sequence[Tensor], data: dict[str, Tensor], shapes: dict[str, tuple[int, int]]
) -> None:
    runs = tuple(weights[0].shape[:-2])
    for name, A in data.items():
        if A.shape[-2:] != shapes[name] or tuple(A.shape[:-2]) not in ((), runs):
            raise ShapeMismatch(
                f"{name} has shape {tuple(A.shape)}, needed {(*runs, *shapes[name])}, with or "
                "without runs: change it"
            )


def check_finite(weights: Sequence[Tensor], data: dict[str, Tensor]) -> None:
    named = data | {f"layer {k}": W for k, W in enumerate(weights, 1)}
    for name, A in named.items():
        if not bool(A.isfinite().all()):
            raise NonFinite(
                f"{name} has a NaN or an infinity, needed finite numbers: mend the input"
            )
