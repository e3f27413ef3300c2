"""Dynamics: gradient flow, descent in all its forms, and the trajectory that a run leaves."""

from dlnlib.dynamics.descent import descend
from dlnlib.dynamics.gradient_flow import drift_allowed, flow, flow_in_time
from dlnlib.dynamics.kernel_flow import StructuredFlow, kernel_velocity, structured_flow
from dlnlib.dynamics.mode_descent import descend_modes
from dlnlib.dynamics.rules import Constant, LossScaled, Schedule, SmoothnessStep, StepRule
from dlnlib.dynamics.sensitivity import first_order, response_to_covariance, response_to_delta
from dlnlib.dynamics.steepest import (
    Adam,
    LogLoss,
    ModelRule,
    Sample,
    Seen,
    Steepest,
    parameter_norm,
    steepest_direction,
)
from dlnlib.dynamics.trajectory import Trajectory

__all__ = [
    "Adam",
    "Constant",
    "LogLoss",
    "LossScaled",
    "ModelRule",
    "Sample",
    "Schedule",
    "Seen",
    "SmoothnessStep",
    "Steepest",
    "StepRule",
    "StructuredFlow",
    "Trajectory",
    "descend",
    "descend_modes",
    "drift_allowed",
    "first_order",
    "flow",
    "flow_in_time",
    "kernel_velocity",
    "parameter_norm",
    "response_to_covariance",
    "response_to_delta",
    "steepest_direction",
    "structured_flow",
]
