"""One comparison of a verdict: measured, relation, expected, and an allowance that has a reason."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

from dlnlib.errors import BadParameter

__all__ = ["KINDS", "JUDGED", "RELATIONS", "STATUSES", "Check", "Limit"]

KINDS = ("hypothesis", "conclusion", "invariant", "rate", "constant", "control", "paper")
JUDGED = ("conclusion", "invariant", "rate", "constant")  # what must hold once the hypotheses do
RELATIONS = ("<=", ">=", "==", "~")
STATUSES = ("reproduced", "refuted", "hypotheses not met", "undecided")


@dataclass(frozen=True)
class Check:
    """One comparison: `measured relation expected`, with an allowance that has a reason.

    With tolerance tau: `<=` means m <= e + tau, `>=` means m >= e - tau, `==` means |m - e| <= tau
    (absolute), and `~` means |m - e| <= tau |e| (relative). A NaN or an infinity on either side
    never holds. Raises BadParameter for an unknown kind or relation, and for a tolerance without a
    reason.
    """

    kind: str
    name: str
    measured: float
    relation: str
    expected: float
    tolerance: float = 0.0
    reason: str = ""

    def __post_init__(self):
        for what, value, known in (
            ("kind", self.kind, KINDS),
            ("relation", self.relation, RELATIONS),
        ):
            if value not in known:
                raise BadParameter(
                    f"check {self.name!r}: {what} {value!r} is not one of {', '.join(known)}"
                )
        for what in ("measured", "expected", "tolerance"):
            object.__setattr__(
                self, what, _number(getattr(self, what), f"check {self.name!r}: {what}")
            )
        if not 0 <= self.tolerance < math.inf:
            raise BadParameter(
                f"check {self.name!r}: tolerance {self.tolerance} must be finite and at least 0"
            )
        if self.tolerance > 0 and not self.reason.strip():
            raise BadParameter(
                f"check {self.name!r}: a tolerance of {self.tolerance:g} needs a one-line reason"
            )

    @property
    def holds(self) -> bool:
        """Whether the comparison holds; computed from the numbers, never handed in."""
        m, e, tau = self.measured, self.expected, self.tolerance
        if not (math.isfinite(m) and math.isfinite(e)):
            return False
        if self.relation == "<=":
            return m <= e + tau
        if self.relation == ">=":
            return m >= e - tau
        return abs(m - e) <= (tau if self.relation == "==" else tau * abs(e))


@dataclass(frozen=True)
class Limit:
    """An accuracy the comparison needs: when `attained <= needed` fails (or is NaN), the claim is
    undecided."""

    name: str
    attained: float
    needed: float

    def __post_init__(self):
        for what in ("attained", "needed"):
            object.__setattr__(
                self, what, _number(getattr(self, what), f"accuracy {self.name!r}: {what}")
            )

    @property
    def met(self) -> bool:
        """Whether the run was accurate enough."""
        return self.attained <= self.needed


def _number(value, where: str) -> float:
    """`value` as a float, or as an int when it is a count: numbers, numpy and torch scalars
    alike."""
    try:
        return operator.index(value)
    except TypeError:
        pass
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as err:
        raise BadParameter(f"{where} is {value!r}: one real number is needed") from err
