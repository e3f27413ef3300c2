"""The length of a step and what is counted about it, compiled: one row a run."""

from __future__ import annotations

import math

from numba import njit

from dlnlib._kernels.jit import EPS, JIT
from dlnlib._kernels.rule_numbers import CONSTANT, LOSS_SCALED

__all__ = ["TOTALS", "STEPS", "TIME", "STOPPED", "step_size", "goes_on"]

TOTALS = (
    "steps",
    "time",
    "eta",
    "radius",
    "refreshes",
    "violations",
    "error_sum",
    "drift_sum",
    "largest_increase",
    "stopped",
)  # columns, one row a run
(
    STEPS,
    TIME,
    ETA,
    RADIUS,
    REFRESHES,
    VIOLATIONS,
    ERROR_SUM,
    DRIFT_SUM,
    LARGEST_INCREASE,
    STOPPED,
) = range(10)


@njit(**JIT)
def step_size(rule, sizes, risk, slopes, terms, tally):
    """Length of the next step, entered in the totals, and the rounding of the risk that its audit
    must allow.

    sizes are ||W_k||_F^2; `terms` bounds the rounding of a margin, as in `dynamics.stepper`.
    """
    kind, eta, smoothness, slack, room = rule
    depth, total, largest, product = len(sizes), 0.0, 0.0, 1.0
    for k in range(depth):
        size = sizes[k]
        total += size
        product *= size
        largest = size if size > largest else largest
    if kind == LOSS_SCALED:
        eta /= risk * max(1.0, depth**2 * total ** (depth - 1))
    elif kind != CONSTANT:
        largest = math.sqrt(largest)
        if not largest <= tally[RADIUS] - slack:
            tally[RADIUS] = largest + slack + room
            tally[REFRESHES] += 1
        eta = min(1 / (2 * depth**2 * tally[RADIUS] ** (2 * depth - 2) * smoothness), 1.0)
    tally[STEPS] += 1
    tally[TIME] += eta
    tally[ETA] = eta
    return eta, EPS * (8 * risk + terms * slopes * math.sqrt(product))


@njit(**JIT)
def goes_on(tally, t, risk, before, eta, moved, rounding):
    """Whether the risk allows another step; audits the one made (t > 0), and enters the end of the
    run if it is one.

    Counts the step by JT18's R(W(t+1)) - R(W(t)) <= -(eta/2) ||grad R(W(t))||^2; moved = eta^2
    ||grad R(W(t))||^2.
    """
    if t > 0:
        change = risk - before
        # an infinite or undefined risk is a violation as well
        if not change + moved / eta / 2 <= rounding:
            tally[VIOLATIONS] += 1
        tally[ERROR_SUM] += moved / eta
        tally[DRIFT_SUM] += moved
        tally[LARGEST_INCREASE] = max(tally[LARGEST_INCREASE], change)
    if 0 < risk < math.inf:
        return True
    tally[STOPPED] = tally[STEPS] if risk != 0 else -tally[STEPS]
    return False
