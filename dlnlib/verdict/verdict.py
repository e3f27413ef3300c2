"""Verdicts: what was checked of a claim, what was measured, and what follows. Knows neither torch
nor networks.

A chapter builds one `Verdict` per claim and ends a cell with it::

    v = Verdict("JT18-Thm2", parameters=dict(depth=depth, seed=seed))
    v.hypothesis("margin of the data", gamma, ">=", 0)
    v.conclusion("direction error", error, "<=", predicted, 1e-6, "integrator tolerance")
    v.control("one support vector: the exponent is not -1", exponent, ">=", -0.5)
    v

The status follows from the checks and nothing else (see `Verdict.status`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dlnlib.errors import BadData, DlnError
from dlnlib.verdict.attempts import Missing, missing
from dlnlib.verdict.check import JUDGED, Check, Limit
from dlnlib.verdict.claims import Claim, claim
from dlnlib.verdict.instrument import html
from dlnlib.verdict.json import fields_from_json, verdict_to_json
from dlnlib.verdict.render import text

__all__ = ["MIME", "Verdict", "unreached"]

MIME = "application/vnd.dlnlib.verdict+json"
_START = time.perf_counter()


@dataclass
class Verdict:
    """The checks of one claim. Title, source and provenance come from the registry, by id.

    `claim` is a registered id, or a `Claim` of your own (which the book's ledger refuses).
    `seconds` defaults to the time since the chapter imported this module; `chapter` to the claim's
    home, and the book build replaces it by the page that the verdict really stands on.
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
        self.seconds = round(
            time.perf_counter() - _START if self.seconds is None else float(self.seconds), 3
        )
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
        """Demand `attained <= needed` of the numerics; otherwise the claim is undecided, for this
        reason."""
        self.limits.append(Limit(name, attained, needed))

    def undecided(self, reason: str) -> None:
        """Say outright that this run cannot decide the claim, and why."""
        self.doubts.append(str(reason))

    def needs(self, *results) -> bool:
        """Whether all these experiments have a result.

        Each that is `Missing` leaves the verdict undecided for its reason, or its hypothesis unmet.
        """
        for result in results:
            if isinstance(result, Missing) and result.unmet:
                self.hypothesis(result.reason, 0, ">=", 1)
            elif isinstance(result, Missing):
                self.undecided(result.reason)
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
        reasons += [
            f"{a.name}: {a.attained:.2g} reached, {a.needed:.2g} needed"
            for a in self.limits
            if not a.met
        ]
        if not self.of("conclusion"):
            reasons.append("no conclusion was checked")
        if self.claim.needs_control and not self.of("control"):
            reasons.append("the claim needs a negative control, and none was run")
        return reasons + [
            f"control did not fail as told: {c.name}" for c in self.of("control") if not c.holds
        ]

    @property
    def status(self) -> str:
        """`hypotheses not met`, else `undecided` for lack of accuracy, else `refuted`, else
        `undecided` (a missing conclusion or control, or a control that did not fail), else
        `reproduced`."""
        if not all(check.holds for check in self.of("hypothesis")):
            return "hypotheses not met"
        if self.doubts or not all(limit.met for limit in self.limits):
            return "undecided"
        if not all(check.holds for check in self.of(*JUDGED)):
            return "refuted"
        return "undecided" if self.open_reasons else "reproduced"

    def telling(self) -> Check | None:
        """The most telling check: the first that fails, else the first constant, rate, conclusion
        or invariant."""
        failing = [c for c in self.checks if not c.holds and c.kind != "paper"]
        ranked = (
            failing
            + self.of("constant")
            + self.of("rate")
            + self.of("conclusion")
            + self.of("invariant")
        )
        return ranked[0] if ranked else None

    def to_json(self) -> dict:
        """The verdict as plain JSON data; NaN and infinities are written as strings."""
        return verdict_to_json(self)

    @classmethod
    def from_json(cls, data: Mapping) -> Verdict:
        """Read back what `to_json` wrote; raises BadData where the data is incomplete or
        contradicts itself."""
        verdict = cls(**fields_from_json(data))
        if verdict.status != data["status"]:
            raise BadData(
                f"verdict {data['id']}: status is written as {data['status']!r} but its checks "
                f"say {verdict.status!r}"
            )
        return verdict

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {"text/plain": text(self), "text/html": html(self), MIME: self.to_json()}

    def __str__(self) -> str:
        return text(self)


def unreached(claims: Iterable[str], parameters: Mapping, err: DlnError) -> list[Verdict]:
    """Verdicts on claims that an error kept a chapter from: undecided, or a hypothesis not met, for
    its reason."""
    verdicts = [Verdict(name, parameters=parameters) for name in claims]
    for verdict in verdicts:
        verdict.needs(missing(err))
    return verdicts


def _plain(value):
    """`value` as a JSON literal: scalars of any library become Python numbers, everything else its
    text."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    return str(value)
