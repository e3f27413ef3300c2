"""Named errors: every message says the value found, the value needed, and what to do, in one line.

`BadInput` is what a user typed or handed in wrongly (exit status 2 of the command line);
`HypothesisNotMet` is sound input about which the theorem says nothing (exit status 3).
"""

from __future__ import annotations

__all__ = [
    "DlnError",
    "BadInput",
    "BadData",
    "BadLabel",
    "NonFinite",
    "ShapeMismatch",
    "BadParameter",
    "BadBook",
    "BadOutput",
    "BadCluster",
    "UnknownChapter",
    "HypothesisNotMet",
    "NotSeparable",
    "VanishingGradient",
    "InitialRiskTooHigh",
    "IntegratorStalled",
    "StepRuleViolated",
    "NotCertified",
    "shortened",
]


def shortened(text: str, most: int = 60) -> str:
    """`text` as it stands in a message: a very long one is cut, and its length said."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


class DlnError(Exception):
    """Base class of every error that dlnlib raises on purpose."""


class BadInput(DlnError):
    """The input cannot be used as it stands."""


class BadData(BadInput):
    """A data set that cannot be read, is empty, has one class only, or is named wrongly."""


class BadLabel(BadData):
    """A label other than -1 or +1."""


class NonFinite(BadData):
    """A NaN or an infinity, with its position."""


class ShapeMismatch(BadInput):
    """Two tensors whose shapes do not fit, such as adjacent layers."""


class BadParameter(BadInput):
    """A parameter that is misspelt, of the wrong type, or out of range."""


class BadBook(BadInput):
    """A file of the book that cannot be read: its table of contents, its settings, a chapter."""


class BadOutput(BadInput):
    """A place that cannot be written to."""


class BadCluster(BadInput):
    """A cluster that does not answer, or whose workers have not this library."""


class UnknownChapter(BadInput):
    """A chapter name that the book does not have."""


class HypothesisNotMet(DlnError):
    """Sound input about which the theorem says nothing."""


class NotSeparable(HypothesisNotMet):
    """No w has <w, z_i> > 0 for all i; `certificate` is a convex combination a of the rows with z^T
    a = 0."""

    def __init__(self, message: str, certificate=None):
        super().__init__(message)
        self.certificate = certificate


class VanishingGradient(HypothesisNotMet):
    """grad R(W(0)) = 0: the dynamics cannot leave the start (first half of JT18, Assumption 2)."""


class InitialRiskTooHigh(HypothesisNotMet):
    """R(W(0)) > l(0) (second half of JT18, Assumption 2)."""


class IntegratorStalled(DlnError):
    """An integrator that could not go on, with where and why."""


class StepRuleViolated(DlnError):
    """A step rule asked to run where its own hypotheses fail."""


class NotCertified(DlnError):
    """A reference solution whose certificate did not reach the accuracy it must have: nothing can
    be decided."""
