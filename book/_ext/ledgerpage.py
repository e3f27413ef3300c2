"""The ledger as HTML: grouped by chapter, readable without scripts; `_static/ledger.js` adds
filters and sorting."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlnlib.verdict import ledger
from dlnlib.verdict.check import Check
from dlnlib.verdict.instrument import numbers, share, telling
from dlnlib.verdict.render import anchor, result, words
from dlnlib.verdict.verdict import Verdict

HEAD = ("Claim", "Verdict", "Most telling number", "Where it comes from")


@dataclass(frozen=True)
class Home:
    """A chapter: its title with its number, and its address."""

    title: str
    address: str


def table(entries: Sequence[Mapping], homes: Mapping[str, Home]) -> str:
    """Every entry, under its chapter; chapters in the order of the book."""
    head = "".join(f'<th scope="col">{name}</th>' for name in HEAD)
    order = [name for name in homes if any(e["chapter"] == name for e in entries)]
    others = [e for e in entries if e["chapter"] not in homes]
    groups = [_group(homes[n], [e for e in entries if e["chapter"] == n], homes) for n in order]
    groups += [_group(Home("Not in this edition", ""), others, homes)] if others else []
    return (
        f'<table class="dln-ledger">\n<caption>{html.escape(ledger.summary(entries))}.</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n{''.join(groups)}</table>"
    )


def links(name: str, page: str, data: str) -> str:
    """What a verdict with this anchor leads to."""
    row = name.replace("verdict-", "row-", 1)
    return (
        f' · <a href="{page}#{row}">in the ledger</a> · <a href="#{name}">link to this verdict</a>'
        f' · <a href="{data}">as data</a>'
    )


def paper(source: str) -> str:
    """The paper that a claim's source names: its authors and year."""
    found = re.match(r"(?:an example for )?(.*?\(\d{4}\))", source)
    return found[1] if found else "this book"


def _group(home: Home, entries: Sequence[Mapping], homes: Mapping[str, Home]) -> str:
    counts = Counter(entry["status"] for entry in entries)
    said = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    title = html.escape(home.title)
    title = f'<a href="{home.address}">{title}</a>' if home.address else title
    rows = "\n".join(_row(entry, homes) for entry in entries)
    return (
        f'<tbody>\n<tr class="dln-group"><th colspan="{len(HEAD)}" scope="rowgroup">{title} '
        f"<small>{said}</small></th></tr>\n{rows}\n</tbody>\n"
    )


def _row(entry: Mapping, homes: Mapping[str, Home]) -> str:
    line = ledger.row(entry)
    name, told = html.escape(line.id), ""
    if entry["checks"]:
        verdict = Verdict.from_json(entry)
        name = f'<a href="{homes[line.chapter].address}#{anchor(entry)}">{name}</a>'
        told = _number(telling(verdict)[0])
    case = f"<small>{html.escape(line.case)}</small>" if line.case else ""
    facts = {
        "paper": paper(entry["source"]),
        "status": line.status,
        "provenance": line.provenance,
        "data": str(entry["parameters"].get("data", "")) or "made for the claim",
    }
    attributes = " ".join(f'data-{key}="{html.escape(fact)}"' for key, fact in facts.items())
    row = anchor(entry).replace("verdict-", "row-", 1)
    return (
        f'<tr id="{row}" class="dln-{line.status.replace(" ", "-")}" {attributes}>'
        f'<th scope="row"><b>{name}</b> {words(line.title)} {case}</th>'
        f'<td><span class="dln-status">{line.status}</span></td><td>{told}</td>'
        f"<td><small>{html.escape(entry['source'])}; {line.provenance}</small></td></tr>"
    )


def _number(check: Check) -> str:
    used = share(check)
    share_used = "" if used is None else f"{max(100 * used, 0.1):.2g} % of what is allowed"
    sharp = f" <small>({share_used})</small>" if share_used else ""
    said = f"{words(check.name)}: <b>{numbers(check)}</b>{sharp}"
    return said if check.holds and check.kind != "control" else f"{said} ({result(check)})"
