"""Losses of margins and of scores, and gradients of the risk in closed form."""

from dlnlib.losses.gradients import (
    end_to_end_gradient,
    layer_gradients,
    log_risk_gradient,
    relative_slopes,
    risk_gradient,
    squared_gradient,
)
from dlnlib.losses.margin import (
    Exponential,
    Logistic,
    Loss,
    Polynomial,
    Squared,
    by_name,
    exponential,
    logistic,
    polynomial,
    squared,
)
from dlnlib.losses.scores import (
    CrossEntropy,
    SquaredError,
    cross_entropy,
    mean_squared_error,
    squared_error,
)

__all__ = [
    "CrossEntropy",
    "Exponential",
    "Logistic",
    "Loss",
    "Polynomial",
    "Squared",
    "SquaredError",
    "by_name",
    "cross_entropy",
    "end_to_end_gradient",
    "exponential",
    "layer_gradients",
    "log_risk_gradient",
    "logistic",
    "mean_squared_error",
    "polynomial",
    "relative_slopes",
    "risk_gradient",
    "squared",
    "squared_error",
    "squared_gradient",
]
