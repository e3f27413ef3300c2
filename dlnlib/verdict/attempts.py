"""Experiments that may fail: what could not be run costs only the verdicts that need it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dlnlib.errors import BadInput, DlnError, HypothesisNotMet

__all__ = ["Missing", "attempt", "missing"]


@dataclass(frozen=True)
class Missing:
    """In place of a result: why there is none. False as a condition.

    `unmet` says that a hypothesis failed (no verdict speaks about such data), not the numerics.
    """

    reason: str
    unmet: bool = False

    def __bool__(self) -> bool:
        return False


def attempt(experiment: Callable, *args, advice: str = "", after=(), **kwargs):
    """`experiment(*args, **kwargs)`, or `Missing` with the reason where the library's own error
    stops it.

    `advice` tells a reader what to change, in terms of the chapter's parameters: it stands in place
    of the error's own words where these speak of arguments that only the code sees. Wrong input
    (`BadInput`) is still raised. `after` holds results without which this one is of no use, or
    hopeless: where one of them is `Missing`, that is returned and nothing is run.
    """
    for earlier in after:
        if isinstance(earlier, Missing):
            return earlier
    try:
        return experiment(*args, **kwargs)
    except BadInput:
        raise
    except DlnError as err:
        return missing(err, advice)


def missing(err: DlnError, advice: str = "") -> Missing:
    """What stands in place of a result that this error prevented."""
    unmet = isinstance(err, HypothesisNotMet)
    return Missing(f"{type(err).__name__}, {advice}" if advice else str(err), unmet)
