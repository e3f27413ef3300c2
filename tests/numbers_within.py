"""Measured numbers, compared as numbers: each may move within its own allowance from what was
recorded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from dlnlib.verdict import Verdict
from dlnlib.verdict.verdict import Check

__all__ = ["allowance", "moved", "record"]

# one a verdict: its claim, and name, measured value and allowance of each check
Numbers = list[dict]


def allowance(check: Check) -> float:
    """How far a measured value may move between machines.

    A check with a tolerance has its own. An inequality may lose half of its distance from the
    bound, where that is more: no such move can come near to changing the outcome. An equation
    without a tolerance has none.
    """
    own = check.tolerance * (abs(check.expected) if check.relation == "~" else 1)
    if check.relation in ("<=", ">=") and math.isfinite(check.measured):
        return max(own, abs(check.measured - check.expected) / 2)
    return own


def record(entries: Iterable[Mapping]) -> Numbers:
    """What is kept of these verdicts (as JSON data)."""
    verdicts = [Verdict.from_json(entry) for entry in entries]
    return [
        {
            "claim": verdict.claim.id,
            "checks": [
                {
                    "name": check.name,
                    "measured": str(check.measured),
                    "allowance": f"{allowance(check):.3g}",
                }
                for check in verdict.checks
            ],
        }
        for verdict in verdicts
    ]


def moved(before: Numbers, after: Numbers) -> list[str]:
    """One line for each check whose measured value left its allowance; the wider of the two
    recorded ones counts."""
    was, now = ([verdict["claim"] for verdict in verdicts] for verdicts in (before, after))
    if was != now:
        return [f"verdicts on {', '.join(now)}; recorded: {', '.join(was)}"]
    lines = []
    for old, new in zip(before, after, strict=True):
        names = [check["name"] for check in old["checks"]]
        if names != [check["name"] for check in new["checks"]]:
            lines.append(f"{old['claim']}: other checks than recorded")
            continue
        pairs = zip(old["checks"], new["checks"], strict=True)
        lines += [line for a, b in pairs if (line := _move(old["claim"], a, b))]
    return lines


def _move(claim: str, old: Mapping, new: Mapping) -> str | None:
    was, now = float(old["measured"]), float(new["measured"])
    allowed = max(float(old["allowance"]), float(new["allowance"]))
    distance = 0.0 if was == now or (math.isnan(was) and math.isnan(now)) else abs(now - was)
    if distance <= allowed:
        return None
    share = (
        f"{distance / allowed:.1f} times its allowance {allowed:.2g}"
        if allowed
        else "no move is allowed"
    )
    return f"{claim}: {old['name']}: {was:.6g} recorded, {now:.6g} now ({share})"
