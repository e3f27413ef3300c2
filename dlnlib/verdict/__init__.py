"""Verdicts: what was checked of a claim and what follows. Knows no torch."""

from dlnlib.verdict.attempts import Missing, attempt, missing
from dlnlib.verdict.claims import Claim, claim, nearest, registry
from dlnlib.verdict.verdict import Check, Limit, Verdict, unreached

__all__ = [
    "Check",
    "Claim",
    "Limit",
    "Missing",
    "Verdict",
    "attempt",
    "claim",
    "missing",
    "nearest",
    "registry",
    "unreached",
]
