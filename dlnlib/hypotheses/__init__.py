"""Which hypotheses of which claims a data set meets, before anything is run."""

from dlnlib.hypotheses.facts import Fact, facts_of
from dlnlib.hypotheses.needs import Answer, Hypothesis, answers, hypotheses
from dlnlib.hypotheses.report import Report, check
from dlnlib.hypotheses.separation import Separation, separation

__all__ = [
    "Answer",
    "Fact",
    "Hypothesis",
    "Report",
    "Separation",
    "answers",
    "check",
    "facts_of",
    "hypotheses",
    "separation",
]
