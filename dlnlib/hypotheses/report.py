"""`check`: facts of a data set, the claims that they meet, and what to run; as an object, text and
JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dlnlib.data.dataset import Dataset
from dlnlib.data.options import joined, query, split
from dlnlib.data.sources import load
from dlnlib.data.table import finished
from dlnlib.errors import DlnError
from dlnlib.hypotheses.certificate import Separation
from dlnlib.hypotheses.facts import Fact, facts_of
from dlnlib.hypotheses.needs import Answer, answers
from dlnlib.hypotheses.page import body
from dlnlib.hypotheses.words import TITLES, command, in_words

__all__ = ["Report", "check"]

# what is tried where a claim does not apply, the least change first
REMEDIES = ("constant", "scale=standard", "scale=standard&constant")


@dataclass(frozen=True, eq=False)
class Report:
    """What `check` found: `facts` by name, the `separation` with its certificate, and an answer for
    each claim.

    `source` is the name that a command can be given, empty for data in memory. Printed, a report is
    a page of text; `to_json` gives plain data.
    """

    data: Dataset
    facts: dict[str, Fact]
    separation: Separation
    answers: list[Answer]
    source: str = ""

    @property
    def applying(self) -> list[str]:
        """Ids of the claims that apply as the data are."""
        return [answer.claim.id for answer in self.answers if answer.status == "applies"]

    @property
    def commands(self) -> list[str]:
        """One `dlnlib run` for each chapter and options under which one of its claims applies; none
        for data without a name."""
        lines = (command(self.source, answer) for answer in self.answers if self.source)
        return list(dict.fromkeys(line for line in lines if line))

    @property
    def exit_status(self) -> int:
        """0 separable, 1 undecided, 3 not separable."""
        return {True: 0, None: 1, False: 3}[self.separation.separable]

    def to_json(self) -> dict:
        """Plain data: NaN and infinities are texts, rows are counted from 1."""
        certificate = {
            "direction": None
            if self.separation.direction is None
            else self.separation.direction.tolist(),
            "margin": self.separation.margin,
            "weights": {str(self.data.row(i)): a for i, a in self.separation.weights.items()},
            "length": self.separation.length,
        }
        return {
            "data": self.data.name,
            "told": self.data.sentence,
            "facts": {
                name: {"value": _plain(fact.value), "words": fact.words}
                for name, fact in self.facts.items()
            },
            "certificate": certificate,
            "claims": [
                {
                    "id": answer.claim.id,
                    "title": answer.claim.title,
                    "chapter": answer.claim.chapter,
                    "status": answer.status,
                    "because": answer.because,
                    "detail": answer.detail,
                    "after": answer.after,
                }
                for answer in self.answers
            ],
            "commands": self.commands,
        }

    def __str__(self) -> str:
        width = max(map(len, TITLES.values()))
        lines = [f"{self.data.name}: {self.data.sentence}", ""]
        lines += [
            f"  {TITLES[name].ljust(width)}  {fact.words}" for name, fact in self.facts.items()
        ]
        lines += ["", "claims"]
        lines += [f"  {ids.ljust(width)}  {words}" for ids, words in self.rows()]
        return "\n".join([*lines, "", *(f"-> {line}" for line in self.commands)]).rstrip()

    def rows(self) -> Iterator[tuple[str, str]]:
        """Claims of one chapter with the same answer, and the answer in words."""
        groups: dict[tuple[str, str], list[str]] = {}
        for answer in self.answers:
            groups.setdefault((answer.claim.chapter or "", in_words(answer)), []).append(
                answer.claim.id
            )
        for (chapter, words), ids in groups.items():
            yield chapter, f"{', '.join(ids)}: {words}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return body(self)


def check(x, y=None, **options) -> Report:
    """What data are, and which hypotheses of which claims they meet: certified where rounding could
    tell otherwise.

    Points x (n, d) with labels y (n,), or in x alone whatever `load` takes: a name, a file, a data
    frame; `options` are those of `load`. Raises a BadInput for data that cannot be used. Cost: a
    maximum margin for the data, and one for each remedy (a constant feature, standardised features)
    while some claim does not apply; seconds for thousands of points.
    """
    seed = options.pop("seed", 0)
    data = load(x if y is None else (x, y), seed, **options)
    facts, found = facts_of(data)
    said = answers(facts)
    for remedy in _remedies(data):
        if all(a.status == "applies" or a.after or not a.claim.takes for a in said):
            break
        said = _retried(said, data, remedy)
    named = y is None and isinstance(x, str | Path)
    return Report(data, facts, found, said, joined(str(x), query(**options)) if named else "")


def _remedies(data: Dataset) -> list[str]:
    """Options that the data do not have yet."""
    had = split(data.name)[1]
    return [
        remedy
        for remedy in REMEDIES
        if not ("scale" in remedy and had.scale != "none")
        and not ("constant" in remedy and (had.constant or data.name.endswith("+1")))
    ]


def _retried(said: list[Answer], data: Dataset, remedy: str) -> list[Answer]:
    """The answers, with this remedy named where it is the first that helps."""
    options = split(f"?{remedy}")[1]
    try:
        again = {a.claim.id: a.status for a in answers(facts_of(finished(data, options))[0])}
    except DlnError:  # nothing to be scaled
        return said
    return [
        replace(answer, after=remedy)
        if answer.status != "applies" and not answer.after and again[answer.claim.id] == "applies"
        else answer
        for answer in said
    ]


def _plain(value):
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
