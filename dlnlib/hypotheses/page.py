"""A report as one HTML file that needs no other: every text of the user's is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from dlnlib.hypotheses.words import TITLES, in_words

if TYPE_CHECKING:
    from dlnlib.hypotheses.report import Report

__all__ = ["body", "page"]

STYLE = """
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
body { font: 16px/1.5 sans-serif; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; }
tr { border-bottom: 1px solid #ddd; }
th { font-weight: 600; white-space: nowrap; }
pre { overflow-x: auto; background: #f5f5f5; padding: .6rem; font-size: .85rem; }
.yes { color: #1b6e3c; } .no { color: #8a4b08; }
@media (prefers-color-scheme: dark) {
  body { background: #181818; color: #ddd; } pre { background: #262626; } tr { border-color: #444; }
  .yes { color: #7fd1a0; } .no { color: #e0a868; }
}
"""
SIGNS = {"applies": ("yes", "✓"), "does not apply": ("no", "✗"), "undecided": ("no", "?")}


def page(report: Report) -> str:
    """The whole file."""
    name = escape(report.data.name)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}: which claims apply</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>Which claims apply to {name}</h1>\n{body(report)}\n</body>\n</html>\n"
    )


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
