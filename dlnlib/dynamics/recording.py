"""The loop of every descent that runs in torch: go on to the next record, keep it, and say which
run diverged where.

Compiled steps (`margin_descent`) record inside; so do those of models, one run at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from dlnlib.dynamics.trajectory import Trajectory
from dlnlib.errors import BadParameter

__all__ = ["record_steps", "record_levels", "record", "flat", "Observe"]

Observe = Callable[[], tuple[list[Tensor], dict[str, Tensor]]]


def record_steps(steps: int, records: int) -> list[int]:
    """0, `records` log-spaced steps a decade (all of them early on), and the last step."""
    last = math.ceil(records * math.log10(max(steps, 1)))
    # Below 1 / (10^(1/records) - 1) two neighbours are less than 1 apart: rounded, they are all
    # whole numbers.
    first = math.floor(-records * math.log10(math.expm1(math.log(10) / records)))
    first = min(max(first, 0), last)
    whole = range(min(round(10 ** (first / records)), steps) + 1)
    return sorted(
        {
            *whole,
            steps,
            *(t for i in range(first, last + 1) if (t := round(10 ** (i / records))) <= steps),
        }
    )


def record_levels(start, end, per_decade, by_norm):
    """Values of the progress at which states are recorded, (R, T), the first being the start."""
    if not end > start.max():
        raise BadParameter(
            f"the end asked for is {end:.6g} and a run starts at {start.max():.6g}; needed a "
            "later end"
        )
    start = start[:, None]
    if by_norm:
        count = max(2, math.ceil(per_decade * math.log10(end / start.min())) + 1)
        return start * (end / start) ** np.linspace(0, 1, count)
    first = 0.1 * min(1.0, end - start.max())
    count = max(2, math.ceil(per_decade * math.log10((end - start.min()) / first)) + 1)
    return np.hstack([start, start + first * ((end - start) / first) ** np.linspace(0, 1, count)])


def flat(A: Tensor, entry: int = 2) -> Tensor:
    """A copy with its leading run dimensions made one, (R, ...): R = 1 for a single run; `entry`
    dimensions stay."""
    return A.reshape(-1, *A.shape[A.ndim - entry :]).clone()


def record(
    state: Sequence[Tensor],
    advance: Callable[[int, int], None],
    observe: Observe,
    goals: Sequence[int],
    runs: Sequence[int],
    settings: dict,
    done: Callable[[], bool] = lambda: False,
) -> Trajectory:
    """Advance R runs through the steps `goals` and keep what `observe` returns there.

    state     all tensors (R, ...) that `advance` changes, and on which alone its next steps depend.
    advance   advance(s, t) makes steps s, ..., t - 1 in place.
    observe   layers (R, d_{k+1}, d_k), not copied, and columns (R,) by name: `risk`, and `time`
              where there is one.
    done      whether the record just made shall be the last one.

    A run whose weights or risk are no longer finite stays at its last record, the others go on; its
    status names the step, found by making the steps since the last record once more, one by one, so
    that no step has to be checked.
    """
    layers, columns = observe()
    stopped = torch.zeros_like(columns["risk"], dtype=torch.long)
    points, tables = [_copies(layers)], [columns | {"step": torch.zeros_like(columns["risk"])}]
    for last, goal in pairwise(goals):
        before = _copies(state)
        advance(last, goal)
        layers, columns = observe()
        if bool((_unsound(layers, columns) & (stopped == 0)).any()):
            for A, old in zip(state, before, strict=True):
                A.copy_(old)
            for t in range(last, goal):
                advance(t, t + 1)
                stopped[_unsound(*observe()) & (stopped == 0)] = t + 1
            if bool((stopped > 0).all()):
                break
        columns["step"] = torch.full_like(columns["risk"], goal)
        points.append([_frozen(W, old, stopped) for W, old in zip(layers, points[-1], strict=True)])
        tables.append(
            {name: _frozen(column, tables[-1][name], stopped) for name, column in columns.items()}
        )
        if done():
            break
    weights = [torch.stack(layer) for layer in zip(*points, strict=True)]
    table = {name: torch.stack([row[name] for row in tables]) for name in tables[0]}
    status = [f"diverged at step {t}" if t else "finished" for t in stopped.tolist()]
    return Trajectory(
        weights=[W.reshape(len(W), *runs, *W.shape[2:]) for W in weights],
        clocks={
            name: clock.reshape(len(clock), *runs)
            for name, clock in _clocks(weights, table).items()
        },
        settings=settings,
        status=status if runs else status[0],
    )


def _clocks(weights, table):
    norm = torch.stack([W.square().sum((-2, -1)) for W in weights]).sum(0).sqrt()
    time = {"log_time": table["time"].log()} if "time" in table else {}
    return {
        "step": table["step"],
        **time,
        "log_norm": norm.log(),
        "log_inverse_risk": -table["risk"].log(),
    }


def _copies(tensors):
    return [A.clone() for A in tensors]


def _unsound(layers, columns):
    """Which runs have a weight or a risk that is not finite, (R,)."""
    sound = columns["risk"].isfinite()
    for W in layers:
        sound = sound & W.isfinite().flatten(1).all(-1)
    return ~sound


def _frozen(new, old, stopped):
    """A copy of the new values, with the old ones in runs that have stopped."""
    kept = new.clone()
    kept[stopped > 0] = old[stopped > 0]
    return kept
