"""Which hypotheses of which claims a data set meets, before anything is run."""

from dlnlib.hypotheses.certificate import Separation, separation
from dlnlib.hypotheses.facts import Fact, facts_of
from dlnlib.hypotheses.needs import Answer, Hypothesis, answers, known_hypotheses
from dlnlib.hypotheses.report import Report, check

__all__ = [
    "Answer",
    "Fact",
    "Hypothesis",
    "Report",
    "Separation",
    "answers",
    "check",
    "facts_of",
    "known_hypotheses",
    "separation",
]
