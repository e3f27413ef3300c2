"""A report as one HTML file that needs no other: every text of the user's is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from dlnlib.book.document import document
from dlnlib.hypotheses.words import TITLES, in_words

if TYPE_CHECKING:
    from dlnlib.hypotheses.report import Report

__all__ = ["body", "page"]

SIGNS = {"applies": ("yes", "✓"), "does not apply": ("no", "✗"), "undecided": ("no", "?")}


def page(report: Report) -> str:
    """The whole file."""
    name = report.data.name
    heading = f"<h1>Which claims apply to {escape(name)}</h1>"
    return document(f"{name}: which claims apply", f"{heading}\n{body(report)}")


def body(report: Report) -> str:
    """Facts, claims and commands, without the frame of a page."""
    facts = "\n".join(
        f'<tr><th scope="row">{TITLES[name]}</th><td>{escape(fact.words)}</td></tr>'
        for name, fact in report.facts.items()
    )
    claims = "\n".join(_row(answer, in_words(answer)) for answer in report.answers)
    lines = escape("\n".join(report.commands)) or "nothing applies"
    return (
        f"<p>{escape(report.data.sentence)}</p>\n<h2>The data</h2>\n<table>\n{facts}\n</table>\n"
        "<h2>The "
        "claims</h2>\n<table>\n<thead><tr><th>Claim</th><th></th><th>Chapter</th><th>Answer</th></tr></thead>\n"
        f"<tbody>\n{claims}\n</tbody>\n</table>\n<h2>What to run</h2>\n<pre>{lines}</pre>"
    )


def _row(answer, words: str) -> str:
    kind, sign = SIGNS["applies" if answer.after else answer.status]
    claim = answer.claim
    return (
        f'<tr><th scope="row">{escape(claim.id)}</th><td>{escape(claim.title)}</td>'
        f"<td>{escape(claim.chapter or '')}</td>"
        f'<td class="{kind}">{sign} {escape(words)}</td></tr>'
    )
