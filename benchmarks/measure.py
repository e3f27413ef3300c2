"""Timing: ratios over interleaved repeats, what the machine can do, tables, and the JSON file."""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

__all__ = [
    "Row",
    "compare",
    "versus",
    "copy_seconds",
    "product_seconds",
    "clock",
    "print_table",
    "write_rows",
]


@dataclass(frozen=True)
class Row:
    """One comparison. Seconds are medians; `ratio` is the median of peer over ours, `spread` its
    least and largest."""

    name: str
    sizes: dict
    ours_seconds: float
    peer: str
    peer_seconds: float | None
    ratio: float | None
    spread: tuple[float, float] | None


def clock(work) -> float:
    """Seconds of processor time that work() takes: all that is timed here has one thread, and a
    busy machine no say."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(name, sizes, ours, peers, repeats) -> list[Row]:
    """Rows of ours against each peer: {peer: function -> seconds}, or None where it is not
    installed.

    All of them run once in every repeat, one after the other, so that a busy machine slows them
    alike; the ratio is taken within a repeat. A peer may return infinity: it did not finish.
    """
    times = {peer: [] for peer in peers}
    own = []
    for _ in range(repeats):
        own.append(ours())
        for peer, run in peers.items():
            times[peer].append(run() if run else None)
    return [_row(name, sizes, own, peer, times[peer]) for peer in peers]


def versus(name, sizes, own: list[float], peer: str, seconds: float) -> Row:
    """A row against a fixed number of seconds: a target, or the time that the machine's limits
    allow."""
    return _row(name, sizes, own, peer, [seconds] * len(own))


def _row(name, sizes, own, peer, seconds) -> Row:
    middle = statistics.median(own)
    if seconds[0] is None:
        return Row(name, sizes, middle, f"{peer}: not installed", None, None, None)
    ratios = [b / a for a, b in zip(own, seconds, strict=True)]
    return Row(
        name,
        sizes,
        middle,
        peer,
        statistics.median(seconds),
        statistics.median(ratios),
        (min(ratios), max(ratios)),
    )


def copy_seconds(size: int) -> float:
    """Seconds to read and write `size` bytes each, in a working set of that size: best of 20."""
    a = np.ones(max(size // 8, 1))
    b = np.empty_like(a)
    many = max(1, 2**22 // size)

    def copies():
        for _ in range(many):
            np.copyto(b, a)

    return min(clock(copies) for _ in range(20)) / many


def product_seconds(operations: float, width: int = 512) -> float:
    """Seconds that so many operations take at the rate of a width x width matrix product: best of
    10."""
    a = np.random.default_rng(0).standard_normal((width, width))
    return operations / (2 * width**3) * min(clock(lambda: a @ a) for _ in range(10))


def print_table(title: str, rows: list[Row]) -> None:
    """Ours, peer, and the ratio peer over ours as least, median, largest."""
    print(
        f"\n{title}\n{'':34s}{'ours':>11s}  {'peer':42s}{'':>11s}  {'ratio':>8s}  (least - largest)"
    )
    last = None
    for row in rows:
        label, last = (row.name if row.name != last else ""), row.name
        line = f"{label:34s}{_seconds(row.ours_seconds):>11s}  {row.peer:42s}"
        if row.ratio is not None:
            low, high = row.spread
            line += f"{_seconds(row.peer_seconds):>11s}  {row.ratio:8.3g}  ({low:.3g} - {high:.3g})"
        print(line, flush=True)


def _seconds(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def write_rows(rows: list[Row], path: Path) -> None:
    """All rows as a JSON list, whole or not at all; infinite times (a peer did not finish) become
    null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(
        json.dumps([_finite(asdict(row)) for row in rows], indent=1, allow_nan=False) + "\n"
    )
    draft.replace(path)


def _finite(row: dict) -> dict:
    if row["peer_seconds"] is None or math.isfinite(row["peer_seconds"]):
        return row
    return row | {
        "peer_seconds": None,
        "ratio": None,
        "spread": None,
        "peer": f"{row['peer']}: did not finish",
    }
