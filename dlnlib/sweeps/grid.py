"""Grids of parameters: every combination of some, side by side for others, each once."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping

from dlnlib.book.chapters import Chapter, allowed
from dlnlib.book.parameters import Parameter
from dlnlib.errors import BadParameter, shortened

__all__ = ["MOST", "combinations", "from_text", "zipped_from_text"]

MOST = 1_000_000  # runs of a sweep
RANGE = re.compile(r"(-?\d{1,18}):(-?\d{1,18})(?::(-?\d{1,18}))?")
NAME = re.compile(r"[A-Za-z_]\w*=")

Values = dict[str, object]
Axis = dict[str, list]


def from_text(text: str) -> tuple[str, str]:
    """Name and values of `NAME=V1,V2,...` or `NAME=FIRST:END[:STEP]`, the values still as text."""
    name, equals, values = text.partition("=")
    if not (equals and name.strip() and values.strip()):
        raise BadParameter(
            f"--grid {shortened(text)}: NAME=VALUES is needed, such as depth=2,3,4 or seed=0:100"
        )
    return name.strip(), values.strip()


def zipped_from_text(text: str) -> dict[str, str]:
    """Names and values of `NAME=VALUES,NAME=VALUES`: parameters that change side by side."""
    parts: list[str] = []
    for piece in text.split(","):
        if NAME.match(piece.strip()) or not parts:
            parts.append(piece.strip())
        else:  # the next value of the same name
            parts[-1] += f",{piece}"
    found = dict(map(from_text, parts))
    if len(found) < 2 or len(found) < len(parts):
        raise BadParameter(
            f"--zip {shortened(text)}: two names or more are needed, each once, such as "
            "seed=0:3,width=4:7"
        )
    return found


def combinations(
    chapter: Chapter, grid: Mapping[str, object], zips: Iterable[Mapping[str, object]] = ()
) -> list[Values]:
    """The values of each run, in the order of the names, every combination once.

    `grid` maps a name to its values (a sequence, or a text as on the command line); each mapping of
    `zips` holds names whose values go side by side. Raises BadParameter for a name given twice, a
    value that the chapter does not allow, lists of unequal length side by side, or more than a
    million runs.
    """
    groups = [{name: values} for name, values in grid.items()] + [dict(names) for names in zips]
    names = [name for group in groups for name in group]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadParameter(f"{shortened(twice)} is given twice; once is needed")
    axes = [_axis(chapter, group) for group in groups]
    lengths = [len(next(iter(axis.values()))) for axis in axes]
    if math.prod(lengths) > MOST:
        words = " x ".join(map(str, lengths))
        raise BadParameter(f"{words} runs: at most {MOST} can be asked for; make the grid smaller")
    found = (_joined(row) for row in itertools.product(*map(_side_by_side, axes)))
    return list({tuple(map(repr, values.values())): values for values in found}.values())


def _side_by_side(axis: Axis) -> list[Values]:
    return [dict(zip(axis, row, strict=True)) for row in zip(*axis.values(), strict=True)]


def _joined(parts: Iterable[Values]) -> Values:
    return {name: value for part in parts for name, value in part.items()}


def _axis(chapter: Chapter, group: Mapping[str, object]) -> Axis:
    """The values of names that go side by side, each as the chapter takes it."""
    known = {parameter.name: parameter for parameter in chapter.parameters}
    axis = {}
    for name, given in group.items():
        allowed(chapter, {name: known[name].default} if name in known else {name: None})
        axis[name] = [_one(chapter, name, value) for value in _listed(known[name], given)]
    counts = {name: len(values) for name, values in axis.items()}
    if len(set(counts.values())) > 1:
        words = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise BadParameter(f"side by side, {words} values; give as many of each")
    return axis


def _one(chapter: Chapter, name: str, value):
    plain = value.item() if hasattr(value, "item") else value  # a scalar of numpy
    return allowed(chapter, {name: plain})[name]


def _listed(parameter: Parameter, given) -> list:
    """The values that were given for a parameter: a range, a list, one value."""
    if not isinstance(given, str):
        values = list(given) if isinstance(given, Iterable) else [given]
    elif type(parameter.default) is int and (found := RANGE.fullmatch(given)):
        values = _range(parameter.name, given, found)
    else:  # names of data have commas themselves
        values = [part.strip() for part in given.split("|" if parameter.data else ",")]
        values = [part for part in values if part] if parameter.data else values
    if not values:
        raise BadParameter(f"{parameter.name} = {shortened(str(given))}: no values; give some")
    return values


def _range(name: str, given: str, found: re.Match) -> range:
    first, end, step = (int(number) for number in found.groups(default="1"))
    values = range(first, end, step) if step else range(0)
    if not 0 < len(values) <= MOST:
        raise BadParameter(
            f"{name} = {given}: {len(values)} values; FIRST:END or FIRST:END:STEP of at most "
            f"{MOST} is needed, END left out"
        )
    return values
