"""A verdict as readers see it: its status, what was decided and how sharply, the two or three
numbers that tell most, each on a gauge of measured against allowed; the table of all checks is
folded.
"""

from __future__ import annotations

import html as _html
import math
from collections import Counter
from typing import TYPE_CHECKING

from dlnlib.verdict.check import JUDGED, Check
from dlnlib.verdict.render import (
    KIND_WORDS,
    PROVENANCE_WORDS,
    SIGNS,
    anchor,
    compared,
    number,
    result,
    words,
)

if TYPE_CHECKING:
    from dlnlib.verdict.verdict import Verdict

__all__ = ["LINKS", "html", "known_to", "numbers", "share", "telling"]

LINKS = "<!--dln-links-->"  # where the book puts its links; nothing anywhere else
SHOWN = 3  # checks outside the fold


def html(verdict: Verdict) -> str:
    """The verdict as one section of HTML; every outcome is there in words as well as in colour."""
    claim, slug = verdict.claim, verdict.status.replace(" ", "-")
    name = _html.escape(claim.id)
    gauges = "\n".join(_gauge(check) for check in telling(verdict))
    return (
        f'<section class="dln-verdict dln-{slug}" id="{anchor(verdict.to_json())}" '
        f'aria-label="Verdict on {", ".join((name, *_case(verdict)))}">\n'
        f'<p class="dln-head"><span class="dln-status">{verdict.status}</span> '
        f"<strong>{name}</strong> {words(claim.title)}</p>\n"
        f'<p class="dln-decided">{_decided(verdict)}</p>\n'
        f'<ul class="dln-gauges">\n{gauges}\n</ul>\n{_notes(verdict)}'
        f'<p class="dln-from">{_origin(verdict)}{LINKS}</p>\n'
        f"<details><summary>All {len(verdict.checks)} checks of {name}</summary>\n"
        f"{_table(verdict)}\n</details>\n</section>"
    )


def telling(verdict: Verdict) -> list[Check]:
    """At most three checks: those that fail, else the tightest constant or rate, the tightest
    conclusion or invariant, and the first control."""
    failing = [check for check in verdict.checks if not check.holds and check.kind != "paper"]
    if failing:
        return failing[:SHOWN]
    found = []
    for kinds in (("constant", "rate"), ("conclusion",), ("invariant",)):
        known = [check for check in verdict.of(*kinds) if share(check) is not None]
        found += [max(known, key=share)] if known else verdict.of(*kinds)[:1]
    return found[: SHOWN - 1] + verdict.of("control")[:1]


def share(check: Check) -> float | None:
    """What was measured over what is allowed: 0 in the middle, 1 at the edge; None where the check
    has no such scale."""
    m, e, tau = check.measured, check.expected, check.tolerance
    if check.kind == "control" or not (math.isfinite(m) and math.isfinite(e)):
        return None
    if check.relation in ("==", "~"):
        allowed = tau if check.relation == "==" else tau * abs(e)
        return abs(m - e) / allowed if allowed else None
    if check.relation == "<=":
        return max(m, 0) / (e + tau) if e + tau > 0 else None
    return (e - tau) / m if e - tau > 0 and m > 0 else None


def numbers(check: Check) -> str:
    """Both numbers of a check; where 0 is expected, the allowance stands in its place."""
    measured, expected = compared(check)
    if check.expected == 0 and check.tolerance:
        around = "±" if check.relation in ("==", "~") else ""
        return f"{measured}, allowed {around}{number(check.tolerance)}"
    return f"{measured} {SIGNS[check.relation]} {expected}"


def known_to(verdict: Verdict) -> float | None:
    """The smallest relative error that every constant and rate of the verdict would show."""
    sizes = [
        check.tolerance / (1 if check.relation == "~" else abs(check.expected))
        for check in verdict.of("constant", "rate")
        if check.relation in ("==", "~") and check.tolerance and check.expected
    ]
    return max(sizes, default=None)


# --- sentences ------------------------------------------------------------------------------------


def _decided(verdict: Verdict) -> str:
    if verdict.status == "undecided":
        return f"Undecided: {'; '.join(words(reason) for reason in verdict.open_reasons)}."
    unmet = [check for check in verdict.of("hypothesis") if not check.holds]
    if unmet:
        return f"Says nothing about the claim: {_count(len(unmet), 'hypothesis')} not met."
    failing = [check for check in verdict.of(*JUDGED) if not check.holds]
    if failing:
        return f"{len(failing)} of {len(verdict.of(*JUDGED))} comparisons do not hold."
    counts = Counter(check.kind for check in verdict.of(*JUDGED))
    held = [_count(counts[kind], kind) for kind in JUDGED if counts[kind]]
    known = known_to(verdict)
    sharp = f", constants and rates known to {_relative(known)}" if known else ""
    controls = len(verdict.of("control"))
    told = f"; {_count(controls, 'control')} failed, as told" if controls else ""
    return f"{_list(held)} held{sharp}{told}."


def _case(verdict: Verdict) -> list[str]:
    """Part and data: what tells the verdicts on one claim apart."""
    found = [verdict.parameters.get(name) for name in ("part", "data")]
    return [_html.escape(str(value), quote=True) for value in found if value]


def _origin(verdict: Verdict) -> str:
    """Data and other parameters, provenance, source, seconds."""
    settings = dict(verdict.parameters)
    data = settings.pop("data", None)
    parts = [f"Data: <b>{_html.escape(str(data))}</b>"] if data else []
    rest = ", ".join(f"{name} = {value}" for name, value in settings.items())
    parts += [_html.escape(rest)] if rest else []
    parts += [f"{_html.escape(verdict.claim.source)}; {PROVENANCE_WORDS[verdict.claim.provenance]}"]
    parts += [f"{verdict.seconds:.1f} s"] if verdict.seconds else []
    return " · ".join(parts)


def _notes(verdict: Verdict) -> str:
    notes = [
        f"Accuracy: {words(limit.name)} {number(limit.attained)} "
        f"({'within' if limit.met else 'not within'} the {number(limit.needed)} needed)"
        for limit in verdict.limits
    ]
    return f'<p class="dln-notes">{"<br>".join(notes)}</p>\n' if notes else ""


def _count(count: int, kind: str) -> str:
    many = "hypotheses" if kind == "hypothesis" else f"{kind}s"
    return f"{count} {kind if count == 1 else many}"


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _relative(value: float) -> str:
    """A relative error for readers: per cent, or a power of ten."""
    if value >= 1e-3:
        return f"{number(100 * value, 1)} %"
    head, power = f"{value:.0e}".split("e")
    return f"{head}·10<sup>−{abs(int(power))}</sup>"


# --- numbers --------------------------------------------------------------------------------------


def _gauge(check: Check) -> str:
    """One line: the name, the two numbers, and how much of what is allowed was used."""
    used, bar = share(check), ""
    if used is not None:
        said = "less than 0.1 %" if used < 1e-3 else f"{100 * used:.2g} %"
        width = min(max(100 * used, 0.8), 100)
        bar = (
            f'<span class="dln-gauge" role="img" aria-label="{said} of what is allowed">'
            f'<span style="width:{width:.1f}%"></span></span>'
            f"<small>{said} of what is allowed</small>"
        )
    return (
        f'<li class="dln-{"ok" if check.holds else "bad"}">'
        f'<span class="dln-name"><small>{KIND_WORDS[check.kind]}</small> {words(check.name)}</span>'
        f'<span class="dln-numbers">{numbers(check)} <b>{result(check)}</b></span>{bar}</li>'
    )


def _table(verdict: Verdict) -> str:
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("Check", "What", "Measured", "Expected", "Result")
    )
    rows = "\n".join(_row(check) for check in verdict.checks)
    return (
        f'<table class="dln-checks">\n<caption>{_html.escape(verdict.claim.id)}: every comparison, '
        f"its allowance and the reason for it</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody>\n</table>"
    )


def _row(check: Check) -> str:
    allowance, (measured, expected) = "", compared(check)
    if check.tolerance:
        kind = "relative" if check.relation == "~" else "absolute"
        allowance = f"<br><small>± {number(check.tolerance)} {kind}: {words(check.reason)}</small>"
    outcome = "ok" if check.holds else "bad"
    return (
        f'<tr class="dln-{check.kind}"><td>{KIND_WORDS[check.kind]}</td>'
        f'<th scope="row">{words(check.name)}</th>'
        f'<td data-label="Measured">{measured}</td>'
        f'<td data-label="Expected"><span>{SIGNS[check.relation]} {expected}{allowance}</span></td>'
        f'<td data-label="Result" class="dln-{outcome}">{result(check)}</td></tr>'
    )
