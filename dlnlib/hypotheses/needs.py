"""The hypotheses on data that claims name, as data (`needs.yml`), held against the facts of a data
set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from dlnlib.errors import BadParameter
from dlnlib.hypotheses.facts import Fact
from dlnlib.verdict.claims import Claim, nearest, registry

__all__ = ["Answer", "Hypothesis", "answers", "known_hypotheses"]


@dataclass(frozen=True)
class Hypothesis:
    """One comparison with a fact: `truth`, or a number from `least` to `most`, or under `below`."""

    name: str
    words: str
    fails: str
    fact: str
    truth: bool | None = None
    least: float | None = None
    most: float | None = None
    below: float | None = None

    def holds(self, facts: Mapping[str, Fact]) -> bool | None:
        """Whether the facts meet it; None where the fact is undecided or was not reached."""
        found = facts[self.fact].value if self.fact in facts else None
        if found is None:
            return None
        if self.truth is not None:
            return bool(found) is self.truth
        return not (
            (self.least is not None and found < self.least)
            or (self.most is not None and found > self.most)
            or (self.below is not None and found >= self.below)
        )


@dataclass(frozen=True)
class Answer:
    """Whether a claim says something about the data: "applies", "does not apply" or "undecided".

    `because`: the hypothesis that fails or is open, in words, and `detail` the fact behind it;
    `after`: the options after which the claim applies, such as "scale=standard", empty when it does
    at once, or never.
    """

    claim: Claim
    status: str
    because: str = ""
    detail: str = ""
    after: str = ""


@cache
def known_hypotheses() -> dict[str, Hypothesis]:
    """All hypotheses on data by name."""
    import yaml

    text = resources.files("dlnlib.hypotheses").joinpath("needs.yml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text)
    return {
        name: Hypothesis(name, truth=entry.pop("is", None), **entry)
        for name, entry in entries.items()
    }


def answers(facts: Mapping[str, Fact]) -> list[Answer]:
    """The answer for each registered claim that says what it needs of data, in the order of the
    ledger."""
    return [_answer(claim, facts) for claim in registry().values() if claim.needs is not None]


def _answer(claim: Claim, facts: Mapping[str, Fact]) -> Answer:
    known = known_hypotheses()
    for name in claim.needs:
        if name not in known:
            raise BadParameter(f"claim {claim.id} needs {name!r} of data{nearest(name, known)}")
        needed = known[name]
        detail = facts[needed.fact].words if needed.fact in facts else "not reached"
        holds = needed.holds(facts)
        if holds is None:
            return Answer(claim, "undecided", f"not known whether {needed.words}", detail)
        if not holds:
            return Answer(claim, "does not apply", needed.fails, detail)
    return Answer(claim, "applies")
