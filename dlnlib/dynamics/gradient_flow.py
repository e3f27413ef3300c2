"""Gradient flow of deep linear networks with one output, to log(1/risk) of 1e9.

The flow dW/dt = -grad R(W) is followed along its path, with the path length sigma as the clock:
dtheta/dsigma is a unit vector, the exponentially small risk never appears, and near the limit theta
is almost linear in sigma, so that steps grow with ||theta||. An explicit pair of order 5 (Dormand
and Prince) takes the early, non-stiff part; when it finds stiffness, the L-stable diagonally
implicit method of order 4 of Hairer and Wanner (Solving ODEs II, IV.6) takes over, each stage
solved in R^d (`_kernels.proximal`). Physical time is kept as a logarithm. Each run is integrated by
itself, compiled by Numba (`_kernels.flow`), on the CPU; results go back to the device of the
weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dlnlib.dynamics.arguments import objective_or_pair
from dlnlib.dynamics.kinks import flow_of_model
from dlnlib.dynamics.recording import record_levels
from dlnlib.dynamics.trajectory import Trajectory
from dlnlib.errors import (
    BadParameter,
    IntegratorStalled,
    NonFinite,
    ShapeMismatch,
    VanishingGradient,
)
from dlnlib.losses.risks import MarginRisk, ModelRisk
from dlnlib.networks.product import check_shapes, flatten, margins, unflatten

__all__ = ["flow", "flow_in_time", "drift_allowed"]


@objective_or_pair
def flow(
    weights: Sequence[Tensor],
    objective: MarginRisk | ModelRisk,
    until: float = 1e6,
    until_norm: float | None = None,
    accuracy: float = 1e-6,
    per_decade: int = 5,
    max_steps: int = 5_000,
) -> Trajectory:
    """Follow dW/dt = -grad R(W) until log(1/R) = `until` (or ||W|| = `until_norm`, for losses with
    a heavy tail).

    weights: layers (*runs, d_{k+1}, d_k), d_L = 1, with objective a `MarginRisk`, or the parameters
    of one run of a model with `ModelRisk` (see `kinks`: the result has `model`, the totals count
    kinks). Data z and a loss, `flow(weights, z, loss)`, stand for `MarginRisk(z, loss)`, a model
    and a loss for `ModelRisk`. Every run has its own step and clock. `accuracy` bounds the local
    error of an implicit step relative to the norm at which stiffness sets in (an explicit one is
    held to a tenth of it, relative to the current norm). States are recorded at the start and at
    log-spaced levels of log(1/R), `per_decade` to a factor of ten; the clocks of the result are
    `log_time` (natural logarithm of t, to about 1e-6 late in a run, 1e-3 for a heavy tail),
    `log_norm`, `log_inverse_risk`.

    The first call compiles for some seconds, unless an earlier process has (`_kernels.flow`).
    Raises IntegratorStalled, with the run, the place and the reason, if a run cannot reach its end:
    the risk has a positive infimum, or the accuracy asked for is out of float64's reach. Margins
    carry a relative rounding of about L times 1e-16: at log(1/R) = 1e9 margins are known to 1e-7,
    beyond 1e11 differences of margins mean nothing.
    """
    follow = _FOLLOW.get(type(objective))
    if follow is None:
        raise BadParameter(
            f"{objective.name} has no flow by its risk: take MarginRisk or ModelRisk, or "
            "dynamics.flow_in_time(weights, objective.gradient, times)"
        )
    return follow(weights, objective, until, until_norm, accuracy, per_decade, max_steps)


def _flow_of_margins(weights, objective, until, until_norm, accuracy, per_decade, max_steps):
    """`flow` for the risk of margins of a product."""
    from dlnlib._kernels import flow as march  # Numba is slow to import
    from dlnlib._kernels import proximal

    z, loss = objective.z, objective.loss
    dims = _checked_dims(weights, z, loss)
    lead, like = tuple(weights[0].shape[:-2]), weights[0]
    theta = flatten(weights).cpu().contiguous().numpy()
    levels = record_levels(
        _progress(weights, z, loss, until_norm),
        until if until_norm is None else until_norm,
        per_decade,
        until_norm is not None,
    )
    problem = proximal.problem(z, dims, loss, until_norm is not None)
    states, clocks = np.empty((*levels.shape, theta.shape[1])), np.empty((*levels.shape, 2))
    ends = []
    for run in range(len(theta)):
        row = theta[run], levels[run], float(accuracy), int(max_steps), states[run], clocks[run]
        ends.append(march.march(problem, *row))
        _refuse_to_stall(run, ends[-1], max_steps)
    settings = {
        "method": "path-length clock, DP5(4) then SDIRK4(3)",
        "loss": loss.name,
        "until": until,
        "until_norm": until_norm,
        "accuracy": accuracy,
        "steps": like.new_tensor([end.steps for end in ends], dtype=torch.long).view(lead).tolist(),
        "stiff_from": like.new_tensor([end.stiff_from for end in ends]).view(lead).tolist(),
    }
    shape = (levels.shape[1], *lead)
    path = like.new_tensor(states.swapaxes(0, 1))
    log_time, psi = like.new_tensor(clocks.swapaxes(0, 1)).reshape(*shape, 2).unbind(-1)
    return Trajectory(
        weights=[W.reshape(*shape, *W.shape[2:]) for W in unflatten(path, dims)],
        clocks={
            "log_norm": torch.linalg.vector_norm(path, dim=2).log().reshape(shape),
            "log_time": log_time,
            "log_inverse_risk": psi,
        },
        settings=settings,
        status="reached",
    )


# by the type of the objective
_FOLLOW = {MarginRisk: _flow_of_margins, ModelRisk: flow_of_model}


def drift_allowed(run: Trajectory) -> torch.Tensor:
    """Largest drift of the balance over ||W||^2 that the local errors of `follow` can add up to, of
    shape (*runs).

    Each step errs by at most accuracy times the norm r at which stiffness set in, and so moves
    W_{k+1}^T W_{k+1} and W_k W_k^T by 2 accuracy r ||W|| at most: 2 steps accuracy r / ||W|| in
    all. A pessimistic bound of what is seen.
    """
    norm, kept = run.clocks["log_norm"].exp(), run.settings
    steps, stiff_from = (norm.new_tensor(kept[name]) for name in ("steps", "stiff_from"))
    onset = torch.where(run.clocks["log_inverse_risk"] >= stiff_from, norm, norm[-1]).amin(0)
    return 2 * kept["accuracy"] * steps * onset / norm[-1]


def flow_in_time(weights, gradient, times, accuracy=1e-10) -> Trajectory:
    """Integrate dW/dt = -gradient(W) in physical time, for risks that do not vanish: saddles,
    squared loss, decay.

    weights: layers (d_{k+1}, d_k) of one run; gradient: a function of such a list to such a list;
    times: increasing, the first being the start. scipy's DOP853 with relative and absolute
    tolerance `accuracy`. Clocks: `time`, `log_norm`. Raises IntegratorStalled with scipy's reason
    when it gives up.
    """
    from scipy.integrate import solve_ivp

    shapes, like = [W.shape for W in weights], weights[0]

    def split(theta):
        parts = torch.as_tensor(theta, dtype=like.dtype, device=like.device).split(
            [s.numel() for s in shapes], dim=-1
        )
        return [part.unflatten(-1, s) for part, s in zip(parts, shapes, strict=True)]

    def velocity(_, theta):
        return -torch.cat([g.reshape(-1) for g in gradient(split(theta))]).cpu().numpy()

    start = torch.cat([W.reshape(-1) for W in weights]).cpu().numpy()
    times = [float(t) for t in times]
    found = solve_ivp(
        velocity, (times[0], times[-1]), start, "DOP853", times, rtol=accuracy, atol=accuracy
    )
    if not found.success:
        raise IntegratorStalled(f"plain flow stopped at t = {found.t[-1]:.6g}: {found.message}")
    path = torch.as_tensor(found.y.T.copy(), dtype=like.dtype, device=like.device)
    clocks = {
        "time": torch.tensor(times, dtype=like.dtype),
        "log_norm": torch.linalg.vector_norm(path, dim=1).log(),
    }
    settings = {"method": "DOP853 in physical time", "accuracy": accuracy}
    return Trajectory(weights=split(path), clocks=clocks, settings=settings, status="reached")


def _checked_dims(weights, z, loss):
    check_shapes(weights)
    dims = [W.shape[-1] for W in weights] + [weights[-1].shape[-2]]
    if z.shape[-1] != dims[0]:
        raise ShapeMismatch(
            f"the data have {z.shape[-1]} features, the first layer reads {dims[0]}; they must "
            "agree"
        )
    if not all(torch.isfinite(W).all() for W in weights):
        raise NonFinite("an initial weight is NaN or infinite; every weight must be finite")
    if loss.name == "squared":
        raise BadParameter(
            "the squared loss has a finite limit, not a growing norm: integrate it with "
            "dynamics.flow_in_time"
        )
    return dims


def _progress(weights, z, loss, by_norm):
    """Norm of all weights, or log(1/risk), at the start, (R,)."""
    if by_norm:
        return torch.linalg.vector_norm(flatten(weights), dim=1).cpu().numpy()
    return -loss.log_risk(margins(weights, z)).reshape(-1).cpu().numpy()


def _refuse_to_stall(run, end, max_steps):
    from dlnlib._kernels.flow import IDLE, NO_GRADIENT, REACHED, STUCK

    if end.status == REACHED:
        return
    if end.status == NO_GRADIENT:
        raise VanishingGradient(
            f"run {run}: the gradient at the start is zero, so nothing moves; change the start"
        )
    why = {
        IDLE: (
            "the risk has stopped falling: has it a positive infimum (data not separable), "
            "or is this a saddle?"
        ),
        STUCK: (
            "the steps that the accuracy allows are below rounding; ask for less accuracy "
            "or a nearer end"
        ),
    }.get(
        end.status,
        f"{max_steps} steps were not enough: ask for a smaller until, or standardise the features",
    )
    raise IntegratorStalled(
        f"run {run} stopped at log(1/risk) = {end.psi:.6g}, ||W|| = {end.norm:.6g}: {why}"
    )
