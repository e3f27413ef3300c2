"""Risks of samples: of margins, of scores, of a model's margins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dlnlib.errors import BadParameter, ShapeMismatch
from dlnlib.losses.margin import Loss
from dlnlib.losses.objective import Look, OfTensors, check_finite
from dlnlib.losses.scores import CrossEntropy, ScoreLoss
from dlnlib.networks.model import Model
from dlnlib.networks.product import check_shapes

__all__ = ["MarginRisk", "ModelRisk", "ScoreRisk"]


@dataclass(frozen=True)
class MarginRisk(OfTensors):
    """R(W) = (1/n) sum_i l(<w, z_i>) of a network with one output, z (n, d) the rows y_i x_i, l a
    loss of margins."""

    z: Tensor = field(repr=False)
    loss: Loss

    @property
    def name(self) -> str:
        """That of the loss."""
        return self.loss.name

    def value(self, W: Tensor) -> Tensor:
        return self.loss.values(self._margins(W)).mean(-1)

    def slope(self, W: Tensor) -> Tensor:
        return (self.loss.slopes(self._margins(W)) @ self.z / len(self.z))[..., None, :]

    def look(self, W: Tensor) -> Look:
        m = self._margins(W)
        slopes = self.loss.slopes(m) / len(self.z)
        longest = torch.linalg.vector_norm(self.z, dim=-1).amax(-1)
        stiffness = slopes.abs().sum(-1) * longest
        return Look(self.loss.values(m).mean(-1), (slopes @ self.z)[..., None, :], stiffness)

    def check(self, weights: Sequence[Tensor]) -> None:
        check_shapes(weights, self.z)
        if weights[-1].shape[-2] != 1:
            raise ShapeMismatch(
                f"network has {weights[-1].shape[-2]} outputs, margins needed 1: take ScoreRisk"
            )
        check_finite(weights, {"z": self.z})

    def _margins(self, W: Tensor) -> Tensor:
        return W[..., 0, :] @ self.z.mT


@dataclass(frozen=True)
class ModelRisk:
    """R(theta) = (1/n) sum_i l(q_i(theta)) of the margins q of a `networks.Model`: no function of a
    product of matrices."""

    model: Model = field(repr=False)
    loss: Loss

    @property
    def name(self) -> str:
        """That of the loss."""
        return self.loss.name

    def risk(self, weights: Sequence[Tensor]) -> Tensor:
        """R, (*lead,)."""
        return self.loss.log_risk(self.model(weights)).exp()


@dataclass(frozen=True)
class ScoreRisk(OfTensors):
    """F(W) = l(X W^T, Y) of samples x (n, d_0) and targets y (n, d_L), in rows, with or without
    runs.

    l is one of `losses.scores`, or any object with the same methods: value and slope in the scores.
    """

    x: Tensor = field(repr=False)
    y: Tensor = field(repr=False)
    loss: ScoreLoss

    @property
    def name(self) -> str:
        """That of the loss."""
        return getattr(self.loss, "name", repr(self.loss))

    def value(self, W: Tensor) -> Tensor:
        return self.loss.value(self._scores(W), self.y)

    def slope(self, W: Tensor) -> Tensor:
        return self.loss.slope(self._scores(W), self.y).mT @ self.x

    def look(self, W: Tensor) -> Look:
        scores, both = self._scores(W), getattr(self.loss, "value_and_slope", None)
        if both:
            value, slope = both(scores, self.y)
        else:
            value, slope = self.loss.value(scores, self.y), self.loss.slope(scores, self.y)
        longest = torch.linalg.vector_norm(self.x, dim=-1).amax(-1)
        stiffness = torch.linalg.vector_norm(slope, 1, (-2, -1)) * longest
        return Look(value, slope.mT @ self.x, stiffness)

    def check(self, weights: Sequence[Tensor]) -> None:
        check_shapes(weights)
        sizes = {"x": weights[0].shape[-1], "y": weights[-1].shape[-2]}
        runs, n = tuple(weights[0].shape[:-2]), self.x.shape[-2:-1]
        for name, columns in sizes.items():
            A = getattr(self, name)
            if A.shape[-2:] != (*n, columns) or tuple(A.shape[:-2]) not in ((), runs):
                raise ShapeMismatch(
                    f"{name} has shape {tuple(A.shape)}, needed {columns} columns, one row a "
                    f"sample, with or without the runs {runs}: change it"
                )
        check_finite(weights, {"x": self.x, "y": self.y})
        if not all(callable(getattr(self.loss, name, None)) for name in ("value", "slope")):
            raise BadParameter(
                f"loss is {self.loss!r}, needed an object with value(scores, y) and "
                "slope(scores, y): see losses.squared_error"
            )
        if isinstance(self.loss, CrossEntropy) and not _are_probabilities(self.y):
            raise BadParameter(
                "y has a row that is not a probability, needed entries from 0 up that add to 1: "
                "give one-hot rows"
            )

    def _scores(self, W: Tensor) -> Tensor:
        """(*runs, n, d_L)."""
        return (W @ self.x.mT).mT


def _are_probabilities(y: Tensor) -> bool:
    return bool((y >= 0).all()) and bool(((y.sum(-1) - 1).abs() <= 1e-12).all())
