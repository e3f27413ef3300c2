"""One step of the flow of any model in the path-length clock: what is known at a point, and the two
methods.

The methods are those of `runge_kutta`. The pattern of the units with a kink is held fixed within a
step (`Mode`), so that the field is smooth there; pairs (unit, point) that slide along their kink
are kept on it by projecting the field onto the tangent of their pre-activations. That is Filippov's
field: the multipliers are the slopes in [0, 1] at the kink.

A `Stepper` does all in NumPy; for models with kernels a `Packed` one has compiled points and
stages, of `packed_step`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dlnlib._kernels import dual, packed_step
from dlnlib._kernels.packed import packed
from dlnlib._kernels.packed_step import DARK, REFRESH_ROUNDS, REGULAR
from dlnlib._kernels.runge_kutta import (
    DP_A,
    DP_ERROR,
    DP_STABLE,
    GAMMA,
    SDIRK_A,
    SDIRK_ERROR,
    STAGE_ACCURACY,
)
from dlnlib.networks.model import Model, Pass

__all__ = ["Mode", "Point", "Stepper", "Packed", "stepper"]


@dataclass(frozen=True)
class Mode:
    """Which units count as on (m,), and the indices of the pre-activations held at zero (on is
    False there)."""

    on: np.ndarray
    sliding: tuple[int, ...] = ()


@dataclass(frozen=True)
class Point:
    """As `runge_kutta.Point`, with the ascent J^T p before projection, the pass that it came from,
    and its mode."""

    theta: np.ndarray
    slope: np.ndarray
    log_p: np.ndarray
    psi: float
    log_rate: float
    growth: float
    raw: np.ndarray
    at: Pass
    mode: Mode


def stepper(model: Model, loss: int, by_norm: bool) -> Stepper:
    """The compiled stepper where the model has one."""
    net = packed(model)
    return Stepper(model, loss, by_norm) if net is None else Packed(model, loss, by_norm, net)


class Stepper:
    """Steps of one model and loss (its number by `slopes.number_of`)."""

    def __init__(self, model: Model, loss: int, by_norm: bool):
        self.model, self.loss, self.by_norm = model, loss, by_norm

    def observe(self, theta, mode: Mode) -> Point:
        """The point at theta; slope and log_rate are not finite where the gradient vanishes."""
        at = self.model.forward(theta, mode.on)
        log_p, log_mean, psi = dual.slopes(self.loss, at.q)
        rows = np.flatnonzero(log_p > log_p.max() - DARK)
        raw = np.exp(log_p[rows]) @ self.model.jacobian(at, rows)
        ascent = self.tangent(at, mode)(raw)
        speed = math.sqrt(ascent @ ascent)
        if not speed > 0:
            return Point(theta, ascent, log_p, psi, math.inf, 0.0, raw, at, mode)
        slope = ascent / speed
        growth = (
            theta @ slope / math.sqrt(theta @ theta)
            if self.by_norm
            else math.exp(log_mean + psi) * speed
        )
        return Point(theta, slope, log_p, psi, -log_mean - math.log(speed), growth, raw, at, mode)

    def switches(self, theta, on, which):
        """`Model.switches` at theta for the pattern `on` (m,), of slopes in [0, 1]."""
        return self.model.switches(self.model.forward(theta, on), which)

    def tangent(self, at: Pass, mode: Mode):
        """The projection of rows (..., P) onto the tangent space of the sliding pre-activations.

        By normal equations, regularised as gradients may be dependent (a unit that is off
        everywhere), and refined.
        """
        if not mode.sliding:
            return lambda rows: rows
        A = self.model.switches(at, np.array(mode.sliding))[0]
        sizes = np.sqrt(np.einsum("sp,sp->s", A, A))
        A = A / np.where(sizes > 0, sizes, 1.0)[:, None]
        back = np.linalg.solve(A @ A.T + REGULAR * np.eye(len(A)), A)

        def project(rows):
            rows = rows - (rows @ A.T) @ back
            return rows - (rows @ A.T) @ back

        return project

    def multipliers(self, here: Point) -> np.ndarray:
        """Slopes in [0, 1] of the sliding units at their kinks, that make the field tangent; (s,).

        The force on a unit passes through the slopes of sliding ones above it, so layers are taken
        from the top.
        """
        which = np.array(here.mode.sliding)
        A, points, forces = self.switches(here.theta, here.mode.on, which)
        push = -np.linalg.lstsq(A.T, here.raw, rcond=None)[0]
        layers = self.model.units(which)[0]
        slopes, on = np.empty(len(which)), here.mode.on.astype(float)
        for layer in sorted(set(layers.tolist()), reverse=True):
            ours = layers == layer
            with np.errstate(divide="ignore", invalid="ignore"):
                slopes[ours] = push[ours] / (np.exp(here.log_p[points[ours]]) * forces[ours])
            on[which[ours]] = slopes[ours]
            if layer > layers.min():
                forces = self.switches(here.theta, on, which)[2]
        return slopes

    def restored(self, here: Point) -> np.ndarray:
        """theta with the sliding pre-activations put back to zero, by one Gauss-Newton step."""
        which = np.array(here.mode.sliding)
        A = self.switches(here.theta, here.mode.on, which)[0]
        return here.theta - np.linalg.lstsq(A, here.at.pre[which], rcond=None)[0]

    def explicit(self, here: Point, h: float, allowed: float):
        """One step of Dormand and Prince: new point, its error over `allowed`, whether h is at the
        stability limit."""
        slopes = np.empty((7, len(here.theta)))
        slopes[0], new, before = here.slope, here, here.theta
        for s in range(6):
            theta = here.theta + h * (DP_A[s, : s + 1] @ slopes[: s + 1])
            before, new = new.theta, self.observe(theta, here.mode)
            slopes[s + 1] = new.slope
        error = h * np.linalg.norm(DP_ERROR @ slopes)
        apart = np.linalg.norm(new.theta - before)
        stiff = apart > 0 and h * np.linalg.norm(slopes[6] - slopes[5]) / apart > DP_STABLE
        return new, error / allowed, stiff

    def implicit(self, here: Point, h: float, allowed: float):
        """One step of SDIRK4: the new point, and its error over `allowed` (NaN where a stage has no
        solution)."""
        slopes = np.empty((5, len(here.theta)))
        theta, slope, log_p = here.theta, here.slope, here.log_p
        for s in range(5):
            base = here.theta + h * (SDIRK_A[s, :s] @ slopes[:s])
            theta, slope, log_p, solved = self.stage(
                base, GAMMA * h, slope, log_p, here.mode, STAGE_ACCURACY * allowed
            )
            if not solved:
                return here, math.nan, False
            slopes[s] = slope
        error = h * np.linalg.norm(SDIRK_ERROR @ slopes)
        seen = self.observe(theta, here.mode)
        new = Point(
            theta, slope, log_p, seen.psi, seen.log_rate, seen.growth, seen.raw, seen.at, here.mode
        )
        return new, error / allowed, False

    def stage(self, base, h, slope, log_p, mode, tolerance):
        """Solve theta = base + h F(theta) as `proximal.solve_stage` does, with margins in place of
        the predictor."""
        theta, before = base + h * slope, math.inf
        for _ in range(REFRESH_ROUNDS):
            at = self.model.forward(theta, mode.on)
            log_q, _, psi = dual.slopes(self.loss, at.q)
            rows = np.flatnonzero(log_q > log_q.max() - 100 - 0.02 * abs(psi))
            log_p = np.where(log_q > log_q.max() - 100 - 0.02 * abs(psi), log_p, log_q)
            J = self.tangent(at, mode)(self.model.jacobian(at, rows))
            K = J @ J.T
            guess = log_p[rows]
            guess = guess - np.logaddexp.reduce(guess)
            p = np.exp(guess)
            speed = math.sqrt(p @ K @ p)
            if not speed > 0 or not math.isfinite(speed):
                break
            found, solved = dual.newton(
                self.loss, at.q[rows] + J @ (base - theta), K, h / speed, guess
            )
            log_p[rows] = found
            ascent = np.exp(found) @ J
            slope = ascent / np.linalg.norm(ascent)
            new = base + h * slope
            moved, theta = np.linalg.norm(new - theta), new
            if moved <= tolerance or (moved > before / 2 and moved <= 100 * tolerance):
                return theta, slope, log_p, solved
            if not solved or not moved < 2 * before:  # a shorter step will do better
                break
            before = moved
        return theta, slope, log_p, False


class Packed(Stepper):
    """The same for a model with compiled margins, `net` its packed description."""

    def __init__(self, model, loss, by_norm, net):
        super().__init__(model, loss, by_norm)
        self.problem = packed_step.Problem(net, loss, by_norm)
        self.kinked = getattr(net, "kinked", 0) > 0

    def pattern(self, mode):
        """`on` and `held` of `packed_step`."""
        if not self.kinked:
            return None, None
        return mode.on.astype(np.float64), np.array(mode.sliding, dtype=np.int64)

    def observe(self, theta, mode):
        seen = packed_step.observe(self.problem, theta, *self.pattern(mode))
        at = Pass(theta, seen.q, seen.pre)
        return Point(
            theta, seen.slope, seen.log_p, seen.psi, seen.log_rate, seen.growth, seen.raw, at, mode
        )

    def switches(self, theta, on, which):
        return packed_step.kinks(self.problem.net, theta, on.astype(np.float64), which)

    def stage(self, base, h, slope, log_p, mode, tolerance):
        return packed_step.stage(
            self.problem, base, h, slope, log_p, *self.pattern(mode), tolerance
        )
