"""Facts and answers as people read them, and commands as they type them."""

from __future__ import annotations

import shlex

from dlnlib.data.options import Options, inside, joined, split
from dlnlib.hypotheses.needs import Answer

__all__ = ["TITLES", "command", "in_words"]

TITLES = {
    "points": "points",
    "features": "features",
    "row_numbers": "suspicious",
    "constants": "constant features",
    "repeats": "repeated rows",
    "contradictions": "contradictions",
    "rank": "rank",
    "condition": "condition",
    "independent": "independent",
    "whitened": "whitened",
    "theta": "theta (orthogonality)",
    "separable": "separable",
    "margin": "maximum margin",
    "ball_margin": "margin in the ball",
    "support": "support vectors",
    "idle": "multipliers",
    "support_spans": "they span",
    "support_spans_all": "they span R^d",
    "dual_unique": "dual unique",
    "spread": "spread alpha",
}


def in_words(answer: Answer) -> str:
    """The answer for one claim, with the reason and the remedy."""
    if answer.status == "applies":
        return (
            "applies" if answer.claim.takes else "applies, but no chapter runs it on data of yours"
        )
    if answer.after:
        flags = _flags(split(f"?{answer.after}")[1])
        return f"only after {flags}: as they are, {answer.because}"
    return f"{answer.status}: {answer.because}"


def command(name: str, answer: Answer) -> str:
    """The line that runs the claim's chapter on the data of that name; empty where it would say
    nothing."""
    if not answer.claim.takes or not (answer.status == "applies" or answer.after):
        return ""
    head, had = split(name)
    if answer.claim.takes == "data":
        flags = " ".join(filter(None, (_flags(had), _flags(split(f"?{answer.after}")[1]))))
        return f"dlnlib run {answer.claim.chapter} --data {shlex.quote(head)} {flags}".rstrip()
    value = f"{answer.claim.takes}={joined(name, answer.after)}"
    return f"dlnlib run {answer.claim.chapter} -p {shlex.quote(value)}"


def _flags(options: Options) -> str:
    """Options as the command line takes them."""
    words = []
    if options.label is not None:
        classes = "=" + ",".join(map(inside, options.classes)) if options.classes else ""
        words += ["--label", inside(options.label) + classes]
    words += [word for column in options.drop for word in ("--drop", inside(column))]
    words += ["--scale", options.scale] if options.scale != "none" else []
    words += ["--sample", f"{options.sample},{options.seed}"] if options.sample is not None else []
    return shlex.join(words + ["--constant"] * options.constant)
