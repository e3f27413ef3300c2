"""The words of a verdict, and its plain text for regression tests; what readers see is made in
`instrument`.

The text holds what mathematics fixes, and so it is the same on every machine: how each check went,
and what was expected, to the digits that are known. What was measured is compared apart, as numbers
(`tests/numbers_within.py`).
"""

from __future__ import annotations

import hashlib
import html as _html
import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dlnlib.verdict.check import Check

if TYPE_CHECKING:
    from dlnlib.verdict.verdict import Verdict

__all__ = ["anchor", "compared", "number", "result", "text", "words"]

KIND_WORDS = {
    "hypothesis": "Hypothesis",
    "conclusion": "Conclusion",
    "invariant": "Invariant",
    "rate": "Rate",
    "constant": "Constant",
    "control": "Negative control",
    "paper": "The paper’s number",
}
SIGNS = {"<=": "≤", ">=": "≥", "==": "=", "~": "≈"}
PROVENANCE_WORDS = {
    "read": "read in the paper",
    "code": "read in the authors' code",
    "abstract": "abstract read, exact form derived here",
    "derived": "derived here",
}


def number(value: float, digits: int = 3) -> str:
    """`value` to a few significant digits, counts exactly.

    The nudge of one in 10^6 moves exact decimals and dyadic fractions off the rounding boundary,
    where the last bit of another machine would change the digit printed.
    """
    if abs(value) < 1e6 and value == int(value):
        return str(int(value))
    return f"{value * (1 + 1e-6):.{digits}g}"


def result(check: Check) -> str:
    """How a check went, in words; for a control, that the stated thing failed is the good
    outcome."""
    if check.kind == "control":
        return "fails, as told" if check.holds else "did not fail"
    if check.kind == "paper":
        return "agrees" if check.holds else "differs"
    return "holds" if check.holds else "does not hold"


def text(verdict: Verdict) -> str:
    """The stable plain-text form, one line per check."""
    claim = verdict.claim
    lines = [f"{claim.id}: {verdict.status}  ({claim.title}; {PROVENANCE_WORDS[claim.provenance]})"]
    lines += [
        f"  {check.kind:<10}  {result(check):<14}  {_plain_words(check)}"
        for check in verdict.checks
    ]
    lines += [
        f"  accuracy    {'enough' if limit.met else 'not enough':<14}  {limit.name}"
        for limit in verdict.limits
    ]
    if verdict.status == "undecided":
        lines += [
            f"  undecided because {_without_numbers(reason)}" for reason in verdict.open_reasons
        ]
    return "\n".join(lines)


def _plain_words(check: Check) -> str:
    return f"{check.name}: {check.relation} {_expected(check)}".rstrip()


def _expected(check: Check) -> str:
    """The expected value to the digits that are known, at most three.

    A constant is known to its tolerance. A bound is printed when it was written down, as a number
    of three digits at most; a computed one may be made of rounding, and is left to the comparison
    of numbers.
    """
    value, known = check.expected, 3
    if check.relation in ("<=", ">="):
        written = not math.isfinite(value) or math.isclose(float(f"{value:.3g}"), value)
        return number(value) if written else "a computed bound"
    if check.tolerance and value:
        relative = check.tolerance if check.relation == "~" else check.tolerance / abs(value)
        known = min(known, math.floor(-math.log10(relative)))
    return number(value, known) if known > 0 else "a number known to its size only"


def _without_numbers(reason: str) -> str:
    return reason.split(": ")[0] if " reached, " in reason else reason


def anchor(entry: Mapping) -> str:
    """The id of a verdict in its page: the claim, and a hash that tells apart runs with other
    parameters. Letters, digits and hyphens: pages use it as a selector."""
    settings = json.dumps(entry["parameters"], sort_keys=True)
    name = re.sub("[^A-Za-z0-9]+", "-", entry["id"])
    return f"verdict-{name}-{hashlib.sha256(settings.encode()).hexdigest()[:6]}"


def compared(check: Check) -> tuple[str, str]:
    """Measured and expected value with the digits that the comparison is about, at most 12."""
    digits, scale = 5, abs(check.expected) if check.relation == "==" else 1.0
    if check.relation in ("==", "~") and 0 < check.tolerance < scale:
        digits = min(max(digits, math.ceil(-math.log10(check.tolerance / scale)) + 1), 12)
    return tuple(
        str(v) if isinstance(v, int) else f"{v:.{digits}g}"
        for v in (check.measured, check.expected)
    )


def words(text: str) -> str:
    """Escaped text in which `$...$` is mathematics, in the form that the book's MathJax looks
    for."""
    return re.sub(
        r"\$([^$]+)\$",
        r'<span class="math notranslate nohighlight">\\(\1\\)</span>',
        _html.escape(text, quote=False),
    )
