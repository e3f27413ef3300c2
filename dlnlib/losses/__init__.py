"""Losses of margins and of scores, gradients of the risk in closed form, and objectives made of
them."""

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
from dlnlib.losses.objective import Look, Objective
from dlnlib.losses.risks import MarginRisk, ModelRisk, ScoreRisk
from dlnlib.losses.scores import (
    CrossEntropy,
    ScoreLoss,
    SquaredError,
    cross_entropy,
    mean_squared_error,
    squared_error,
)
from dlnlib.losses.targets import CovarianceRisk, Factorisation

__all__ = [
    "CovarianceRisk",
    "CrossEntropy",
    "Exponential",
    "Factorisation",
    "Logistic",
    "Look",
    "Loss",
    "MarginRisk",
    "ModelRisk",
    "Objective",
    "Polynomial",
    "ScoreLoss",
    "ScoreRisk",
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
