"""The JSON form of a verdict, both ways, with the contradictions that reading back refuses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dlnlib.errors import BadData, DlnError, shortened
from dlnlib.verdict.check import STATUSES, Check, Limit
from dlnlib.verdict.claims import PROVENANCES, Claim

if TYPE_CHECKING:
    from dlnlib.verdict.verdict import Verdict

__all__ = ["UNRUN", "fields_from_json", "unrun_to_json", "validate", "verdict_to_json"]

REQUIRED = {
    "id": str,
    "title": str,
    "source": str,
    "provenance": str,
    "chapter": str | None,
    "status": str,
    "checks": list,
    "parameters": Mapping,
    "seconds": int | float,
}
UNRUN = ("not yet run", "not in this edition")
CHECK_REQUIRED = ("kind", "name", "measured", "relation", "expected", "tolerance", "holds")


def verdict_to_json(verdict: Verdict) -> dict:
    """The verdict as strict JSON data: design section 4's fields, then what only this library
    reads."""
    return {
        "id": verdict.claim.id,
        "title": verdict.claim.title,
        "source": verdict.claim.source,
        "provenance": verdict.claim.provenance,
        "chapter": verdict.chapter,
        "status": verdict.status,
        "checks": [_check_to_json(check) for check in verdict.checks],
        "parameters": {name: _encode(value) for name, value in verdict.parameters.items()},
        "seconds": verdict.seconds,
        "needs_control": verdict.claim.needs_control,
        "accuracy": [
            {"name": a.name, "attained": _encode(a.attained), "needed": _encode(a.needed)}
            for a in verdict.limits
        ],
        "doubts": list(verdict.doubts),
        "reasons": verdict.open_reasons if verdict.status == "undecided" else [],
    }


def unrun_to_json(claim: Claim) -> dict:
    """The entry of a registered claim for which no verdict was emitted."""
    return {
        "id": claim.id,
        "title": claim.title,
        "source": claim.source,
        "provenance": claim.provenance,
        "chapter": claim.chapter,
        "status": UNRUN[0] if claim.chapter else UNRUN[1],
        "checks": [],
        "parameters": {},
        "seconds": 0.0,
    }


def fields_from_json(data: Mapping) -> dict:
    """The fields of the verdict that `data` describes; every `holds` is recomputed and must agree
    with the text."""
    validate(data)
    where = f"verdict {data['id']}"
    named = {name: data[name] for name in ("id", "title", "source", "provenance")}
    try:
        return {
            "claim": Claim(
                **named, chapter=None, needs_control=bool(data.get("needs_control", False))
            ),
            "parameters": data["parameters"],
            "seconds": data["seconds"],
            "chapter": data["chapter"],
            "checks": [_check_from_json(entry, where) for entry in data["checks"]],
            "limits": [_limit_from_json(entry) for entry in data.get("accuracy", [])],
            "doubts": [_text(doubt) for doubt in data.get("doubts", [])],
        }
    except BadData:
        raise
    except (
        DlnError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        AttributeError,
        RecursionError,
    ) as err:
        raise BadData(f"{where}: {err}") from err


def validate(data: Mapping, statuses: tuple[str, ...] = STATUSES) -> None:
    """Raises BadData unless all fields are there, each of its type, with one of these statuses."""
    if not isinstance(data, Mapping):
        raise BadData(f"a verdict is a JSON object, not {type(data).__name__}")
    where = f"verdict {shortened(str(data.get('id', '?')))}"
    for key, kind in REQUIRED.items():
        if key not in data:
            raise BadData(f"{where}: the field {key!r} is missing")
        if not isinstance(data[key], kind) or isinstance(data[key], bool):
            raise BadData(f"{where}: the field {key!r} cannot be {shortened(repr(data[key]))}")
    for key, known in (("status", statuses), ("provenance", PROVENANCES)):
        if data[key] not in known:
            raise BadData(
                f"verdict {data['id']}: {key} {shortened(repr(data[key]))} is not one of "
                f"{', '.join(known)}"
            )


def _check_to_json(check: Check) -> dict:
    return {
        "kind": check.kind,
        "name": check.name,
        "measured": _encode(check.measured),
        "relation": check.relation,
        "expected": _encode(check.expected),
        "tolerance": check.tolerance,
        "holds": check.holds,
        "reason": check.reason,
    }


def _check_from_json(entry: Mapping, where: str) -> Check:
    missing = [key for key in CHECK_REQUIRED if not isinstance(entry, Mapping) or key not in entry]
    if missing:
        raise BadData(f"{where}: a check lacks {', '.join(missing)}")
    check = Check(
        _text(entry["kind"]),
        _text(entry["name"]),
        _decode(entry["measured"]),
        _text(entry["relation"]),
        _decode(entry["expected"]),
        _decode(entry["tolerance"]),
        _text(entry.get("reason", "")),
    )
    if check.holds is not entry["holds"]:
        raise BadData(
            f"{where}: check {check.name!r} is written as holds={entry['holds']}, its numbers say "
            "otherwise"
        )
    return check


def _limit_from_json(entry: Mapping) -> Limit:
    return Limit(_text(entry["name"]), _decode(entry["attained"]), _decode(entry["needed"]))


def _encode(value):
    """JSON has no NaN and no infinity: they travel as the strings 'nan', 'inf', '-inf'."""
    if isinstance(value, list | tuple):
        return [_encode(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _decode(value):
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadData(f"{shortened(repr(value))} is not a number")
    if isinstance(value, str) and value not in ("nan", "inf", "-inf"):
        raise BadData(f"{shortened(repr(value))} is not a number")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise BadData("a number has more than 64 bits")
    return float(value) if isinstance(value, str) else value


def _text(value) -> str:
    if not isinstance(value, str):
        raise BadData(f"{shortened(repr(value))} is not a text")
    return value
