"""Verdicts: what was checked of a claim, what was measured, and what follows. Knows neither torch nor networks.

A chapter builds one `Verdict` per claim and ends a cell with it::

    v = Verdict("JT18-Thm2", parameters=dict(depth=depth, seed=seed))
    v.hypothesis("margin of the data", gamma, ">=", 0)
    v.conclusion("direction error", error, "<=", predicted, 1e-6, "integrator tolerance")
    v.control("one support vector: the exponent is not -1", exponent, ">=", -0.5)
    v

The status follows from the checks and nothing else (see `Verdict.status`).
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from dlnlib.attempt import Missing
from dlnlib.claims import Claim, claim
from dlnlib.errors import BadParameter

__all__ = ["KINDS", "MIME", "RELATIONS", "STATUSES", "Check", "Limit", "Verdict"]

MIME = "application/vnd.dlnlib.verdict+json"
KINDS = ("hypothesis", "conclusion", "invariant", "rate", "constant", "control", "paper")
JUDGED = ("conclusion", "invariant", "rate", "constant")  # what must hold once the hypotheses do
RELATIONS = ("<=", ">=", "==", "~")
STATUSES = ("reproduced", "refuted", "hypotheses not met", "undecided")
_START = time.perf_counter()


@dataclass(frozen=True)
class Check:
    """One comparison: `measured relation expected`, with an allowance that has a reason.

    With tolerance tau: `<=` means m <= e + tau, `>=` means m >= e - tau, `==` means |m - e| <= tau (absolute), and
    `~` means |m - e| <= tau |e| (relative). A NaN or an infinity on either side never holds.
    Raises BadParameter for an unknown kind or relation, and for a tolerance without a reason.
    """

    kind: str
    name: str
    measured: float
    relation: str
    expected: float
    tolerance: float = 0.0
    reason: str = ""

    def __post_init__(self):
        for what, value, known in (("kind", self.kind, KINDS), ("relation", self.relation, RELATIONS)):
            if value not in known:
                raise BadParameter(f"check {self.name!r}: {what} {value!r} is not one of {', '.join(known)}")
        for what in ("measured", "expected", "tolerance"):
            object.__setattr__(self, what, _number(getattr(self, what), f"check {self.name!r}: {what}"))
        if not 0 <= self.tolerance < math.inf:
            raise BadParameter(f"check {self.name!r}: tolerance {self.tolerance} must be finite and at least 0")
        if self.tolerance > 0 and not self.reason.strip():
            raise BadParameter(f"check {self.name!r}: a tolerance of {self.tolerance:g} needs a one-line reason")

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
    """An accuracy the comparison needs: when `attained <= needed` fails (or is NaN), the claim is undecided."""

    name: str
    attained: float
    needed: float

    def __post_init__(self):
        for what in ("attained", "needed"):
            object.__setattr__(self, what, _number(getattr(self, what), f"accuracy {self.name!r}: {what}"))

    @property
    def met(self) -> bool:
        """Whether the run was accurate enough."""
        return self.attained <= self.needed


@dataclass
class Verdict:
    """The checks of one claim. Title, source and provenance come from the registry, by id.

    `claim` is a registered id, or a `Claim` of your own (which the book's ledger refuses). `seconds` defaults to the
    time since the chapter imported this module; `chapter` to the claim's home, and the book build replaces it by the
    page that the verdict really stands on.
    """

    claim: Claim | str
    parameters: Mapping = field(default_factory=dict)
    seconds: float | None = None
    chapter: str | None = None
    checks: list[Check] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def __post_init__(self):
        if isinstance(self.claim, str):
            self.claim = claim(self.claim)
        self.parameters = {str(k): _plain(v) for k, v in dict(self.parameters).items()}
        self.seconds = round(time.perf_counter() - _START if self.seconds is None else float(self.seconds), 3)
        self.chapter = self.chapter or self.claim.chapter

    # One method per kind; all take (name, measured, relation, expected, tolerance=0, reason="").
    def hypothesis(self, *args, **kwargs) -> None:
        """What the theorem assumes, computed from the very tensors of the run."""
        self._add("hypothesis", *args, **kwargs)

    def conclusion(self, *args, **kwargs) -> None:
        """What the theorem states. A verdict without one cannot be `reproduced`."""
        self._add("conclusion", *args, **kwargs)

    def invariant(self, *args, **kwargs) -> None:
        """A step of the proof: an identity or inequality that holds all along the run."""
        self._add("invariant", *args, **kwargs)

    def rate(self, *args, **kwargs) -> None:
        """An exponent."""
        self._add("rate", *args, **kwargs)

    def constant(self, *args, **kwargs) -> None:
        """A leading constant or limit, predicted before the run."""
        self._add("constant", *args, **kwargs)

    def control(self, *args, **kwargs) -> None:
        """A broken hypothesis: the check holds when the stated thing then *fails*, as it should."""
        self._add("control", *args, **kwargs)

    def paper(self, *args, **kwargs) -> None:
        """The paper's own number beside ours: shown, but the status does not depend on it."""
        self._add("paper", *args, **kwargs)

    def accuracy(self, name: str, attained: float, needed: float) -> None:
        """Demand `attained <= needed` of the numerics; otherwise the claim is undecided, for this reason."""
        self.limits.append(Limit(name, attained, needed))

    def undecided(self, reason: str) -> None:
        """Say outright that this run cannot decide the claim, and why."""
        self.doubts.append(str(reason))

    def needs(self, *results) -> bool:
        """Whether all these experiments have a result.

        Each that is `Missing` leaves the verdict undecided for its reason, or its hypothesis unmet.
        """
        for missing in (result for result in results if isinstance(result, Missing)):
            if missing.unmet:
                self.hypothesis(missing.reason, 0, ">=", 1)
            else:
                self.undecided(missing.reason)
        return not any(isinstance(result, Missing) for result in results)

    def _add(self, kind, name, measured, relation, expected, tolerance=0.0, reason="") -> None:
        self.checks.append(Check(kind, name, measured, relation, expected, tolerance, reason))

    def of(self, *kinds: str) -> list[Check]:
        """The checks of these kinds, in order."""
        return [check for check in self.checks if check.kind in kinds]

    @property
    def open_reasons(self) -> list[str]:
        """Why the claim cannot be decided by this run; empty when it can."""
        reasons = list(self.doubts)
        reasons += [f"{a.name}: {a.attained:.2g} reached, {a.needed:.2g} needed" for a in self.limits if not a.met]
        if not self.of("conclusion"):
            reasons.append("no conclusion was checked")
        if self.claim.needs_control and not self.of("control"):
            reasons.append("the claim needs a negative control, and none was run")
        return reasons + [f"control did not fail as told: {c.name}" for c in self.of("control") if not c.holds]

    @property
    def status(self) -> str:
        """`hypotheses not met`, else `undecided` for lack of accuracy, else `refuted`, else `undecided` (a missing
        conclusion or control, or a control that did not fail), else `reproduced`."""
        if not all(check.holds for check in self.of("hypothesis")):
            return "hypotheses not met"
        if self.doubts or not all(limit.met for limit in self.limits):
            return "undecided"
        if not all(check.holds for check in self.of(*JUDGED)):
            return "refuted"
        return "undecided" if self.open_reasons else "reproduced"

    def telling(self) -> Check | None:
        """The most telling check: the first that fails, else the first constant, rate, conclusion or invariant."""
        failing = [c for c in self.checks if not c.holds and c.kind != "paper"]
        ranked = failing + self.of("constant") + self.of("rate") + self.of("conclusion") + self.of("invariant")
        return ranked[0] if ranked else None

    def to_json(self) -> dict:
        """The verdict as plain JSON data; NaN and infinities are written as strings."""
        from dlnlib.schema import verdict_to_json

        return verdict_to_json(self)

    @classmethod
    def from_json(cls, data: Mapping) -> Verdict:
        """Read back what `to_json` wrote; raises BadData where the data is incomplete or contradicts itself."""
        from dlnlib.schema import verdict_from_json

        return verdict_from_json(data)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        from dlnlib import views

        return {"text/plain": views.text(self), "text/html": views.html(self), MIME: self.to_json()}

    def __str__(self) -> str:
        from dlnlib import views

        return views.text(self)


def _number(value, where: str) -> float:
    """`value` as a float, or as an int when it is a count: numbers, numpy and torch scalars alike."""
    try:
        return operator.index(value)
    except TypeError:
        pass
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as err:
        raise BadParameter(f"{where} is {value!r}: one real number is needed") from err


def _plain(value):
    """`value` as a JSON literal: scalars of any library become Python numbers, everything else its text."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    return str(value)
