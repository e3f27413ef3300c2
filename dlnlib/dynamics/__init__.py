"""Dynamics: gradient flow, descent in all its forms, and the trajectory that a run leaves."""

from dlnlib.dynamics.covariance_descent import descend_covariance
from dlnlib.dynamics.descent import descend
from dlnlib.dynamics.gradient_flow import drift_allowed, flow, flow_in_time
from dlnlib.dynamics.kernel_flow import StructuredFlow, kernel_velocity, structured_flow
from dlnlib.dynamics.masked_descent import descend_masked, masked_gradient, masked_risk
from dlnlib.dynamics.mode_descent import descend_modes
from dlnlib.dynamics.output_descent import descend_outputs
from dlnlib.dynamics.rules import Constant, LossScaled, Schedule, SmoothnessStep, StepRule
from dlnlib.dynamics.sensitivity import first_order, response_to_covariance, response_to_delta
from dlnlib.dynamics.steepest import (
    Adam,
    LogLoss,
    Sample,
    Seen,
    Steepest,
    parameter_norm,
    steepest_direction,
)
from dlnlib.dynamics.stochastic import Samples, descend_stochastic
from dlnlib.dynamics.structured_descent import descend_kernels, descend_projected
from dlnlib.dynamics.target_descent import advance_target, descend_target
from dlnlib.dynamics.trajectory import Trajectory

__all__ = [
    "Adam",
    "Constant",
    "LogLoss",
    "LossScaled",
    "Sample",
    "Samples",
    "Schedule",
    "Seen",
    "SmoothnessStep",
    "Steepest",
    "StepRule",
    "StructuredFlow",
    "Trajectory",
    "advance_target",
    "descend",
    "descend_covariance",
    "descend_kernels",
    "descend_masked",
    "descend_modes",
    "descend_outputs",
    "descend_projected",
    "descend_stochastic",
    "descend_target",
    "drift_allowed",
    "first_order",
    "flow",
    "flow_in_time",
    "kernel_velocity",
    "masked_gradient",
    "masked_risk",
    "parameter_norm",
    "response_to_covariance",
    "response_to_delta",
    "steepest_direction",
    "structured_flow",
]
