"""Checks of arguments that several packages make: each raises `BadParameter` with value, needed
value and remedy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dlnlib.errors import BadParameter

__all__ = ["need_positive", "one_a_layer", "need_momentum_and_decay", "require"]


def need_positive(**values: float) -> None:
    """Raise `BadParameter` for the first value, named, that is not a positive finite number."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise BadParameter(f"{name} is {value}, needed a positive number: change it")


def one_a_layer(eta: float | Sequence[float], depth: int | None) -> list[float]:
    """Step sizes of all layers, from one positive number or one a layer, 0 for a frozen one; any
    number of layers where depth is None."""
    etas = list(eta) if isinstance(eta, Sequence) else [eta] * (depth or 1)
    for value in etas:
        if value != 0 or not any(etas):
            need_positive(eta=value)
    if not etas or depth not in (None, len(etas)):
        raise BadParameter(
            f"eta has {len(etas)} entries, needed one number, or {depth or 'one'} a layer: change "
            "it"
        )
    return [float(value) for value in etas]


def need_momentum_and_decay(momentum: float, decay: float) -> None:
    """Raise `BadParameter` unless 0 <= momentum < 1 and decay is a finite number from 0 up."""
    if not 0 <= momentum < 1:
        raise BadParameter(f"momentum is {momentum}, needed a number from 0 to below 1: change it")
    if not 0 <= decay < math.inf:
        raise BadParameter(f"weight decay is {decay}, needed a number from 0 up: change it")


def require(holds: bool, name: str, value, needed: str) -> None:
    """BadParameter in one line, unless it holds."""
    if not holds:
        raise BadParameter(f"{name} = {value}, needed {needed}: change it")
