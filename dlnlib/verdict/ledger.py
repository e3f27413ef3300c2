"""The ledger: verdicts gathered from executed notebooks, one entry each, and every registered claim
without one."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlnlib.errors import BadData, shortened
from dlnlib.verdict.claims import registry
from dlnlib.verdict.json import UNRUN, unrun_to_json, validate
from dlnlib.verdict.render import PROVENANCE_WORDS, SIGNS, compared, number, result
from dlnlib.verdict.verdict import MIME, Verdict

__all__ = ["Row", "complete", "exit_status", "gather", "load", "row", "summary", "table"]


@dataclass(frozen=True)
class Row:
    """One line of the ledger, in words."""

    id: str
    title: str
    chapter: str
    case: str
    provenance: str
    status: str
    telling: str


def gather(notebook: Mapping, chapter: str | None = None) -> list[dict]:
    """The verdicts displayed in an executed notebook, in order; a verdict shown twice counts once.

    Raises BadData when an output claims to be a verdict and is not a valid one.
    """
    found = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if MIME in output.get("data", {}):
                entry = dict(output["data"][MIME])
                Verdict.from_json(entry)
                entry["chapter"] = chapter or entry["chapter"]
                found[json.dumps({**entry, "seconds": 0}, sort_keys=True)] = entry
    return list(found.values())


def complete(entries: Iterable[Mapping]) -> list[dict]:
    """`entries` in the order of the registry (home chapter first), with an entry for each claim
    that has none.

    Raises BadData for a verdict on a claim that is not registered.
    """
    entries, known = list(entries), registry()
    for entry in entries:
        if entry["id"] not in known:
            raise BadData(
                f"verdict {entry['id']} in chapter {entry['chapter']}: not registered in "
                "dlnlib/verdict/claims.yml"
            )
    ordered = []
    for claim in known.values():
        own = [entry for entry in entries if entry["id"] == claim.id]
        own.sort(key=lambda entry: entry["chapter"] != claim.chapter)
        ordered += own or [unrun_to_json(claim)]
    return ordered


def row(entry: Mapping) -> Row:
    """The line of one entry; `case` names the part of the claim and the data: one claim may have
    several verdicts."""
    case = ", ".join(
        str(entry["parameters"][key]) for key in ("part", "data") if entry["parameters"].get(key)
    )
    provenance = PROVENANCE_WORDS[entry["provenance"]]
    chapter = entry["chapter"] or ""
    return Row(
        entry["id"], entry["title"], chapter, case, provenance, entry["status"], _telling(entry)
    )


def _telling(entry: Mapping) -> str:
    if not entry["checks"]:
        return ""
    check = Verdict.from_json(entry).telling()
    measured, expected = compared(check)
    allowance = f" ± {number(check.tolerance, 1)}" if check.tolerance else ""
    words = f"{check.name}: {measured} {SIGNS[check.relation]} {expected}{allowance}"
    return words if check.holds and check.kind != "control" else f"{words} ({result(check)})"


def summary(entries: Iterable[Mapping]) -> str:
    """How many verdicts have which status, in one line."""
    counts = Counter(entry["status"] for entry in entries)
    return ", ".join(f"{count} {status}" for status, count in counts.most_common())


def table(entries: Sequence[Mapping]) -> str:
    """The ledger as plain text for a terminal."""
    if not entries:
        return "no verdicts"
    rows = [row(entry) for entry in entries]
    cells = [("claim", "chapter", "data", "status", "most telling number")]
    cells += [(r.id, r.chapter, r.case, r.status, r.telling) for r in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(4)]
    return "\n".join(
        "  ".join([*(line[i].ljust(widths[i]) for i in range(4)), line[4]]).rstrip()
        for line in cells
    )


def exit_status(entries: Iterable[Mapping]) -> int:
    """0 all reproduced; 1 something refuted, undecided or not yet run; 3 hypotheses not met (and
    nothing worse)."""
    statuses = {entry["status"] for entry in entries}
    if statuses & {"refuted", "undecided", "not yet run"}:
        return 1
    if "hypotheses not met" in statuses:
        return 3
    return 0 if "reproduced" in statuses else 1


def load(path: str | Path) -> list[dict]:
    """The entries of a `claims.json` or `verdicts.json`, or of the one inside a directory; raises
    BadData."""
    path = Path(path)
    names = ("claims.json", "verdicts.json", "_build/html/claims.json")
    found = next((path / name for name in names if os.path.isfile(path / name)), path)
    if not os.path.isfile(found):
        shown = shortened(str(path), 200)
        raise BadData(
            f"{shown}: no claims.json or verdicts.json there; build the book (make book) or run a "
            "chapter first"
        )
    try:
        entries = json.loads(found.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (ValueError, OSError, RecursionError) as err:
        raise BadData(f"{found}: not readable as JSON ({err})") from err
    if not isinstance(entries, list):
        raise BadData(f"{found}: a list of verdicts is needed, not {type(entries).__name__}")
    for entry in entries:
        try:
            _check_entry(entry)
        except BadData as err:
            raise BadData(f"{found}: {err}") from err
    return entries


def _check_entry(data: Mapping) -> None:
    """Raises BadData unless `data` is a verdict that agrees with itself, or the entry of a claim
    without one."""
    if isinstance(data, Mapping) and data.get("status") in UNRUN:
        validate(data, UNRUN)
        if data["checks"]:
            raise BadData(f"verdict {data['id']}: {data['status']!r} with checks")
    else:
        Verdict.from_json(data)


def _no_constant(name: str):
    raise ValueError(f"{name} is no JSON")
