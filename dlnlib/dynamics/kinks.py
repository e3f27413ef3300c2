"""Gradient flow of any model: clocks, levels and refusals as in `flow`, and steps that land on the
kinks of ReLUs.

Within a step the pattern of active units is frozen, so that the field is smooth and the method
keeps its order. Where the step ends beyond a kink it is repeated, shortened by root finding, until
it ends just past the first one; there the unit either switches, or, where the field points to the
kink from both sides, is held on it (Filippov's sliding mode) until its multiplier leaves [0, 1]. A
switch that changes the step by less than a tenth of its allowed error is made without landing: so
are those of points whose slope is below rounding.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from dlnlib.dynamics.recording import record_levels
from dlnlib.dynamics.trajectory import Trajectory
from dlnlib.errors import BadParameter, IntegratorStalled, VanishingGradient

__all__ = ["flow_of_model"]

# as in `march`
_STIFF_STEPS, _IDLE_STEPS, _ROUNDING, _LANDED, _FLOOR, _EXPLICIT = 5, 300, 1e-14, 1e-3, 1e-12, 0.1
_TRIES = 60  # of a step that should end at a kink
# events without any progress, beyond twice the number of units, before they count as chatter
_AT_ONCE = 50


def flow_of_model(
    params, objective, until, until_norm, accuracy, per_decade, max_steps
) -> Trajectory:
    """`dynamics.flow` for one run of a model."""
    from dlnlib._kernels.slopes import number_of

    model, loss = objective.model, objective.loss
    if loss.name == "squared":
        raise BadParameter(
            "the squared loss has a finite limit, not a growing norm: integrate it with "
            "dynamics.flow_in_time"
        )
    theta, by_norm = model.flat(params), until_norm is not None
    run = _Run(model, number_of(loss), by_norm, theta, accuracy)
    levels = record_levels(
        np.array([run.progress()]), until_norm if by_norm else until, per_decade, by_norm
    )[0]
    states, clocks = run.through(levels, max_steps)
    like = params[0]
    psi, log_time = like.new_tensor(clocks[:, 1]), like.new_tensor(clocks[:, 0])
    path = like.new_tensor(states)
    settings = {
        "method": "path-length clock, DP5(4) then SDIRK4(3), landing on kinks",
        "model": model.name,
        "loss": loss.name,
        "until": until,
        "until_norm": until_norm,
        "accuracy": accuracy,
        "steps": run.steps,
        "stiff_from": run.stiff_from,
    }
    totals = {"switches": run.switches, "slides": run.slides, "sliding": len(run.here.mode.sliding)}
    held = len(run.here.mode.sliding)
    return Trajectory(
        weights=model.parts(path),
        clocks={
            "log_norm": torch.linalg.vector_norm(path, dim=1).log(),
            "log_time": log_time,
            "log_inverse_risk": psi,
        },
        settings=settings,
        status="reached" + (f", {held} units sliding along a kink" if held else ""),
        totals={name: torch.tensor(count) for name, count in totals.items()},
        model=model,
    )


class _Run:
    """The state of one run: where it is, how long the next step is, what has happened."""

    def __init__(self, model, loss, by_norm, theta, accuracy):
        from dlnlib._kernels.model_step import Mode, stepper

        self.stepper, self.by_norm, self.accuracy = (
            stepper(model, loss, by_norm),
            by_norm,
            float(accuracy),
        )
        self.here = self.stepper.observe(theta, Mode(model.forward(theta).pre > 0))
        if not math.isfinite(self.here.log_rate):
            raise VanishingGradient(
                "the gradient at the start is zero, so nothing moves; change the start"
            )
        longest = np.linalg.norm(model.jacobian(model.forward(theta)), axis=1).max()
        self.h = 1e-3 * self.size() if self.size() > 0 else 1e-3 / longest
        self.log_time, self.most = -math.inf, math.inf
        self.stiff, self.stiff_from, self.at_limit = 0.0, math.inf, 0
        self.recent = []  # events and their steps
        self.steps = self.switches = self.slides = self.idle = self.at_once = 0

    def size(self):
        return float(np.linalg.norm(self.here.theta))

    def progress(self):
        return self.size() if self.by_norm else self.here.psi

    def through(self, levels, max_steps):
        """States (T, P) and clocks (T, 2) at the levels, the first being the start."""
        states, clocks = [self.here.theta], [(self.log_time, self.here.psi)]
        while len(states) < len(levels):
            if self.steps >= max_steps:
                self.stall(
                    f"{max_steps} steps were not enough: ask for a smaller until, or standardise "
                    "the features"
                )
            self.steps += 1
            target, landed = levels[len(states)], _LANDED * (levels[len(states)] - levels[0])
            self.advance(min(self.most, self.distance(levels[0], target)), target, landed)
            if self.progress() >= target - landed:
                states.append(self.here.theta)
                clocks.append((self.log_time, self.here.psi))
        return np.array(states), np.array(clocks)

    def distance(self, start, target):
        """Path length to the next level, as `march._distance`."""
        shift, size = max(1 - start, 0.0), self.size()
        if not (self.here.growth > 0 and size > 0):
            return math.inf
        now = self.progress() + shift
        return size * math.expm1(
            min(math.log((target + shift) / now) * now / (size * self.here.growth), 700.0)
        )

    def allowed(self, h):
        """Error of a step of length h."""
        if self.stiff:
            return max(self.accuracy * self.stiff, _FLOOR * self.size())
        return _EXPLICIT * self.accuracy * max(self.size(), h)

    def attempt(self, h):
        step = self.stepper.implicit if self.stiff else self.stepper.explicit
        new, error, limited = step(self.here, h, self.allowed(h))
        gain, rounding = new.psi - self.here.psi, _ROUNDING * (1 + abs(self.here.psi))
        return (
            new,
            error,
            limited,
            gain,
            error <= 1 and gain >= -rounding and math.isfinite(new.log_rate),
        )

    def advance(self, distance, target, landed):
        """One step, or what is left of it before a kink; none where it would pass the level
        `target`, by `landed`."""
        tried = min(self.h, distance)
        new, error, limited, gain, good = self.attempt(tried)
        self.idle = 0 if gain > _ROUNDING * (1 + abs(self.here.psi)) else self.idle + 1
        if not good:
            self.h = self.shorter(tried, error)
        else:
            factor = min(max(0.9 * max(error, 1e-9) ** -0.2, 0.2), 5.0)
            self.h = max(tried * factor, self.h if tried < self.h else 0.0)
            made = (float(np.linalg.norm(new.theta)) if self.by_norm else new.psi) - self.progress()
            room, self.most = target - self.progress(), math.inf
            if made > room + landed:
                self.most = tried * room / made  # again, to the level
            else:
                self.accept(*self.until_kink(tried, new))
                self.at_limit += limited
        lost = not good and self.h < 1e-13 * self.size()
        if self.idle >= _IDLE_STEPS or (lost and self.here.growth * self.size() < 1e-8):
            self.stall(
                "the risk has stopped falling: has it a positive infimum (data not separable), is "
                "this a saddle, or are all units off?"
            )
        if lost:
            self.stall(
                "the steps that the accuracy allows are below rounding; ask for less accuracy or "
                "a nearer end"
            )
        if self.at_limit >= _STIFF_STEPS and not self.stiff:
            self.stiff, self.stiff_from = self.size(), self.here.psi

    @staticmethod
    def shorter(tried, error):
        return (
            min(max(0.9 * max(error, 1e-9) ** -0.2, 0.2), 0.5) if math.isfinite(error) else 0.2
        ) * tried

    # --- kinks ------------------------------------------------------------------------------------

    def events(self, point):
        """Numbers (m + 2 s,) that stay positive until something switches: signed pre-activations,
        multipliers."""
        on, sliding = point.mode.on, list(point.mode.sliding)
        signed = np.where(on, point.at.pre, -point.at.pre)
        signed = signed + 1e-13 * np.abs(point.at.pre).max(initial=0.0)
        signed[sliding] = math.inf
        if not sliding:
            return signed
        slopes = self.stepper.multipliers(point)
        slopes = np.where(np.isfinite(slopes), slopes, 0.5)
        return np.concatenate([signed, slopes + 1e-9, 1 - slopes + 1e-9])

    def until_kink(self, h, new):
        """Length, end point, and what happens there (index of an event, or None) of a step of
        length up to h."""
        if not len(new.at.pre):
            return h, new, None
        tolerance = max(1e-3 * self.allowed(h), 1e-14 * self.size())
        low, first, last = 0.0, self.events(self.here), self.events(new)
        if (last >= 0).all():
            return h, new, None
        mild = self.switched_mildly(h, new, last)
        if mild is not None:
            return h, mild, None
        for attempt in range(_TRIES):
            crossed = np.flatnonzero(last < 0)
            ahead = np.maximum(first[crossed], 0.0)
            parts = ahead / (ahead - last[crossed])  # by the secant
            which, part = int(crossed[parts.argmin()]), parts.min()
            if (1 - part) * (h - low) <= tolerance:
                return h, new, which
            wanted = part * (h - low) + 0.3 * tolerance if (attempt + 1) % 3 else 0.5 * (h - low)
            middle = low + min(wanted, 0.9 * (h - low))
            trial, error, *_ = self.attempt(middle)
            seen = self.events(trial) if math.isfinite(error) else np.where(last < 0, last, 1.0)
            if (seen < 0).any():
                h, new, last = middle, trial, seen
            else:
                low, first = middle, seen
        self.stall("no end of a step at a kink found; ask for less accuracy")

    def switched_mildly(self, h, new, last):
        """The end point with the new pattern, if that changes the step by little and no multiplier
        leaves [0, 1]."""
        from dlnlib._kernels.model_step import Mode

        count = len(new.at.pre)
        if (last[count:] < 0).any():
            return None
        changed = last[:count] < 0
        switched = self.stepper.observe(new.theta, Mode(new.mode.on ^ changed, new.mode.sliding))
        if not h * np.linalg.norm(switched.slope - new.slope) <= 0.1 * self.allowed(h):
            return None
        self.switches += int(changed.sum())
        return switched

    def accept(self, h, new, event):
        from dlnlib._kernels import dual

        if h > 0:
            here = self.here
            lasted = dual.elapsed(
                max(self.size(), 1e-6 * h), h, here.psi, new.psi, here.log_rate, new.log_rate
            )
            self.log_time = np.logaddexp(self.log_time, lasted)
        self.at_once = self.at_once + 1 if h <= 1e-12 * self.size() and event is not None else 0
        if self.at_once > _AT_ONCE + 2 * len(new.at.pre):
            self.stall("units switch on and off without end (chatter at zero pre-activation)")
        self.here = new
        if new.mode.sliding:
            self.here = self.stepper.observe(self.stepper.restored(new), new.mode)
        if event is not None:
            self.happen(event)

    def happen(self, event):
        """Change the mode: a unit switches or starts to slide, or stops sliding."""
        from dlnlib._kernels.model_step import Mode

        here, count = self.here, len(self.here.at.pre)
        on, sliding = here.mode.on.copy(), here.mode.sliding
        if event >= count:  # a multiplier has reached 0 (unit off) or 1 (unit on)
            place = (event - count) % len(sliding)
            on[sliding[place]] = event - count >= len(sliding)
            sliding = sliding[:place] + sliding[place + 1 :]
            self.here = self.stepper.observe(here.theta, Mode(on, sliding))
            self.switches += 1
            return
        on[event] = not on[event]
        other = self.stepper.observe(here.theta, Mode(on, sliding))
        gradient = self.stepper.switches(other.theta, other.mode.on, np.array([event]))[0][0]
        self.recent = [*self.recent[-20:], (event, self.steps)]
        chatters = sum(e == event and self.steps - s < 20 for e, s in self.recent) > 3
        if (gradient @ other.slope > 0) == on[event] and not chatters:
            self.here, self.switches = other, self.switches + 1
            return
        on[event] = False
        mode = Mode(on, (*sliding, event))
        self.here = self.stepper.observe(here.theta, mode)
        self.here = self.stepper.observe(self.stepper.restored(self.here), mode)
        self.slides += 1

    def stall(self, why):
        where = f"log(1/risk) = {self.here.psi:.6g}, ||W|| = {self.size():.6g}"
        raise IntegratorStalled(f"the run stopped at {where}: {why}")
