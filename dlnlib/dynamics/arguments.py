"""The one place where data and a loss stand for an objective."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from torch import Tensor

from dlnlib.dynamics.trajectory import Trajectory
from dlnlib.errors import BadParameter
from dlnlib.losses.risks import MarginRisk, ModelRisk
from dlnlib.networks.model import Model

__all__ = ["objective_or_pair"]


def objective_or_pair(run: Callable[..., Trajectory]) -> Callable[..., Trajectory]:
    """run(weights, objective, ...) that takes (z, loss) or (model, loss) in place of an
    objective."""

    @wraps(run)
    def with_either(weights, objective, *others, **named):
        if not isinstance(objective, Tensor | Model):
            return run(weights, objective, *others, **named)
        if "loss" in named:
            others = (named.pop("loss"), *others)
        if not others:
            raise BadParameter("data found without a loss: give z and a loss, or an objective")
        loss, *others = others
        kind = ModelRisk if isinstance(objective, Model) else MarginRisk
        return run(weights, kind(objective, loss), *others, **named)

    return with_either
