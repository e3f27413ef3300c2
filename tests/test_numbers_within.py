"""The comparison of measured numbers: what may move, and what the report says when one moves too
far."""

from __future__ import annotations

import pytest
from numbers_within import allowance, moved, record

from dlnlib.verdict.claims import Claim
from dlnlib.verdict.verdict import Check, Verdict

CLAIM = Claim("own", "A claim", "nowhere", "derived")


def recorded(limit=0.5, residual=3e-16, count=5):
    verdict = Verdict(CLAIM, seconds=0.0)
    verdict.constant("limit", limit, "~", 0.5, 1e-3, "horizon")
    verdict.conclusion("residual", residual, "<=", 1e-12)
    verdict.control("starts that fail", count, ">=", 1)
    verdict.conclusion("rank", 2, "==", 2)
    return record([verdict.to_json()])


@pytest.mark.parametrize(
    ("check", "allowed"),
    [
        (("constant", "c", 0.5, "==", 0.5, 1e-3, "horizon"), 1e-3),
        (("constant", "c", 5.0, "~", 5.0, 1e-3, "horizon"), 5e-3),
        (("conclusion", "c", 3e-16, "<=", 1e-12), 5e-13),
        (("control", "c", 5, ">=", 1), 2.0),
        (("conclusion", "c", -1e-4, "<=", 0, 1e-14, "rounding"), 5e-5),
        (("conclusion", "c", 1, ">=", 1), 0.0),
        (("conclusion", "c", 2, "==", 2), 0.0),
        (("conclusion", "c", float("inf"), ">=", 1), 0.0),
    ],
)
def test_each_check_has_its_own_allowance(check, allowed):
    assert allowance(Check(*check)) == pytest.approx(allowed, rel=1e-2)


@pytest.mark.parametrize("other", [{"residual": 7e-16}, {"limit": 0.5004}, {"count": 4}, {}])
def test_rounding_may_move_a_number(other):
    assert moved(recorded(), recorded(**other)) == []


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"limit": 0.501}, "limit: 0.5 recorded, 0.501 now (2.0 times its allowance 0.0005)"),
        ({"residual": 2e-12}, "residual: 3e-16 recorded"),
        ({"count": 1}, "starts that fail: 5 recorded, 1 now (2.0 times"),
        ({"limit": float("nan")}, "limit: 0.5 recorded, nan now"),
    ],
)
def test_a_move_beyond_the_allowance_is_reported(other, words):
    (line,) = moved(recorded(), recorded(**other))
    assert words in line and line.startswith("own: ")


def test_other_checks_or_verdicts_are_reported():
    before, after = recorded(), recorded()
    after[0]["checks"].pop()
    assert moved(before, after) == ["own: other checks than recorded"]
    assert moved(before, [])[0].startswith("verdicts on ")
