"""The flow of one run from its start through all its levels, compiled: step sizes, the change of
method, records."""

from __future__ import annotations

import math
from typing import NamedTuple

from numba import njit

from dlnlib._kernels.elapsed import log_elapsed, log_sum
from dlnlib._kernels.jit import JIT, fingerprint
from dlnlib._kernels.runge_kutta import explicit_step, implicit_step, norm, observe, store

__all__ = ["REACHED", "NO_GRADIENT", "IDLE", "STUCK", "LATE", "End", "march"]

REACHED, NO_GRADIENT, IDLE, STUCK, LATE = range(5)
_STIFF_STEPS = 5  # steps at the stability limit before the implicit method takes over
_IDLE_STEPS = 300  # steps without a fall of the risk before a run counts as stalled
_ROUNDING = 1e-14  # relative rounding of log(1/risk) that a step may show
_LANDED = 1e-3  # a level counts as reached within this relative distance
# of the error of an implicit step over ||theta||: below it, rounding of the margins is felt
_FLOOR = 1e-12
_EXPLICIT = 0.1  # accuracy of an explicit step over that of an implicit one
_FILES = (
    "jit.py",
    "slopes.py",
    "tails.py",
    "jacobian.py",
    "proximal.py",
    "runge_kutta.py",
    "elapsed.py",
    "flow.py",
)


class End(NamedTuple):
    """How a run ended, after how many steps, where; and log(1/risk) when it turned stiff (infinite:
    never)."""

    status: int
    steps: int
    psi: float
    norm: float
    stiff_from: float


@njit(**JIT)
def _distance(problem, here, size, start, target):
    """Path length to the next level, as if progress went on as a power of ||theta||; infinite while
    it is falling."""
    if not (here.growth > 0 and size > 0):
        return math.inf
    shift = max(1 - start, 0.0)  # log(1/risk) may start at 0 or below
    now = (size if problem.by_norm else here.psi) + shift
    return size * math.expm1(math.log((target + shift) / now) * now / (size * here.growth))


@njit(**JIT)
def _first_length(problem, size):
    """Length of the first step; from zero, which one layer can leave, one that moves the largest
    margin by 1e-3."""
    longest = 0.0
    for i in range(len(problem.z)):
        longest = max(longest, norm(problem.z[i]))
    return 1e-3 * size if size > 0 else 1e-3 / longest


@njit(**JIT)
def _missing(problem, here, new, size, target):
    """What was missing to the next level, and the progress that a step has made."""
    if problem.by_norm:
        return target - size, norm(new.theta) - size
    return target - here.psi, new.psi - here.psi


@njit(**JIT)
def _next_length(tried, wanted, error, good):
    """Length of the next step, after one of length `tried`; `wanted` is longer where a level cut it
    short."""
    if not math.isfinite(error):
        return 0.2 * tried
    factor = min(max(0.9 * max(error, 1e-9) ** -0.2, 0.2), 5.0)
    if good:
        return max(tried * factor, wanted if tried < wanted else 0.0)
    return tried * min(factor, 0.5)


def _entry(files):
    @njit(cache=True, **JIT)
    def march(problem, theta, levels, accuracy, max_steps, states, clocks):
        """Follow the flow from theta (P,) through levels (T,) of progress, the first being the
        start.

        Fills states (T, P) and clocks (T, 2): log time, log(1/risk). Returns an `End`.
        """
        files  # noqa: B018  part of the key of the cache on disk
        here, level, log_time = observe(problem, theta), 1, -math.inf
        size = norm(theta)
        h, at_limit, idle, stiff, stiff_from, most = (
            _first_length(problem, size),
            0,
            0,
            0.0,
            math.inf,
            math.inf,
        )
        clocks[0, 0], clocks[0, 1] = log_time, here.psi
        store(states[0], theta)
        if not math.isfinite(here.log_rate):
            return End(NO_GRADIENT, 0, here.psi, size, stiff_from)
        for step in range(max_steps):
            tried = min(h, most, _distance(problem, here, size, levels[0], levels[level]))
            if stiff == 0:
                new, error, limited = explicit_step(
                    problem, here, tried, _EXPLICIT * accuracy * max(size, tried)
                )
            else:
                new, error = implicit_step(
                    problem, here, tried, max(accuracy * stiff, _FLOOR * size)
                )
                limited = False
            gain, rounding = new.psi - here.psi, _ROUNDING * (1 + abs(here.psi))
            idle = 0 if gain > rounding else idle + 1
            good, most = error <= 1 and gain >= -rounding, math.inf
            h = _next_length(tried, h, error, good)
            room, made = _missing(problem, here, new, size, levels[level])
            if good and made > room + _LANDED * (levels[level] - levels[0]):
                most = tried * room / made  # again, to the level
            elif good:
                lasted = log_elapsed(
                    max(size, 1e-6 * tried), tried, here.psi, new.psi, here.log_rate, new.log_rate
                )
                here, log_time, at_limit = new, log_sum(log_time, lasted), at_limit + limited
                size = norm(here.theta)
            progress = size if problem.by_norm else here.psi
            if progress >= levels[level] - _LANDED * (levels[level] - levels[0]):
                clocks[level, 0], clocks[level, 1] = log_time, here.psi
                store(states[level], here.theta)
                level += 1
                if level == len(levels):
                    return End(REACHED, step + 1, here.psi, size, stiff_from)
            if idle >= _IDLE_STEPS or (not good and h < 1e-13 * size):
                return End(
                    IDLE if idle >= _IDLE_STEPS else STUCK, step + 1, here.psi, size, stiff_from
                )
            if at_limit >= _STIFF_STEPS and stiff == 0:
                # from here on: the norm that sets the absolute accuracy
                stiff, stiff_from = size, here.psi
        return End(LATE, max_steps, here.psi, size, stiff_from)

    return march


march = _entry(fingerprint(*_FILES))
