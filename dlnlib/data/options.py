"""What the name of a data set asks for beside the data: a query, as in an address.

    mine.csv?label=species=setosa,virginica&drop=id&scale=standard&constant

    label=COLUMN                     the column of labels, else the last one: two values, -1 and +1
    label=COLUMN=POSITIVE,NEGATIVE   two classes out of many
    label=COLUMN=POSITIVE            one class against the rest
    drop=COLUMN                      leave a column out; may be repeated
    scale=ball                       all points divided by the largest norm
    scale=standard                   every feature to mean 0 and deviation 1
    scale=none                       as they are (the default)
    constant                         a last feature 1, after scaling
    sample=N, sample=N,SEED          N rows, of each class its share; the seed is 0 unless said

One text so holds all that a rerun needs. A column or a class whose name has one of ? & = , ; in it
is written with %3F %26 %3D %2C %3B. Columns without names are numbered from 1."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote

from dlnlib._checks import require
from dlnlib.errors import BadParameter, shortened

__all__ = ["SCALES", "Options", "inside", "joined", "query", "split"]

SCALES = ("ball", "standard", "none")
WORDS = ("label", "drop", "scale", "constant", "sample")
SEPARATORS = "?&;"  # of a name; inside a word's value they are escaped


@dataclass(frozen=True)
class Options:
    """What is asked for, each as written; `text` is the query that it was read from."""

    label: str | None = None
    classes: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    scale: str = "none"
    constant: bool = False
    sample: int | None = None
    seed: int = 0
    text: str = ""


def split(spec: str) -> tuple[str, Options]:
    """The name and the options that a text holds; raises BadParameter for a word that is not known,
    given twice, or of a wrong value.

    A file whose own name has a question mark is taken as it is.
    """
    name, mark, text = spec.rpartition("?")
    if not mark or _is_file(spec):
        return spec, Options()
    found: dict[str, list[str | None]] = {}
    for part in filter(None, text.split("&")):
        word, equals, value = part.partition("=")
        found.setdefault(_known(word), []).append(value if equals else None)
    twice = next((word for word in found if word != "drop" and len(found[word]) > 1), None)
    if twice:
        raise BadParameter(f"{twice} is given twice for {shortened(name)}; once is needed")
    label, classes = _label(_only(found, "label"))
    sample, seed = _sample(_only(found, "sample"))
    scale = _only(found, "scale") or "none"
    require(scale in SCALES, "scale", shortened(scale), f"one of {', '.join(SCALES)}")
    if found.get("constant", [None]) != [None]:
        raise BadParameter("constant takes no value: write it alone, as in mine.csv?constant")
    drop = tuple(unquote(value or "") for value in found.get("drop", ()))
    require("" not in drop, "drop", "''", "the name of a column")
    return name, Options(label, classes, drop, scale, "constant" in found, sample, seed, text)


def joined(name: str, more: str) -> str:
    """The name with further options; those that it has come first."""
    if not more:
        return name
    return f"{name}{'&' if '?' in name and not _is_file(name) else '?'}{more}"


def query(
    label: str | None = None,
    drop: str | Iterable[str] = (),
    scale: str | None = None,
    constant: bool = False,
    sample: int | str | None = None,
) -> str:
    """The query of options that are given one by one; what separates names is escaped."""
    drop = [drop] if isinstance(drop, str) else list(drop)
    values = [("label", label), *(("drop", name) for name in drop)]
    values += [("scale", scale), ("sample", sample)]
    parts = [f"{word}={_escaped(str(value))}" for word, value in values if value is not None]
    return "&".join(parts + ["constant"] * bool(constant))


def inside(name: str) -> str:
    """The name of a column or a class as it stands in the value of an option."""
    name = re.sub("%(?=[0-9A-Fa-f]{2})", "%25", name)
    return "".join(quote(sign) if sign in "=,?&;" else sign for sign in name)


def _escaped(value: str) -> str:
    return "".join(quote(sign) if sign in SEPARATORS else sign for sign in value)


def _is_file(name: str) -> bool:
    return "\0" not in name and os.path.isfile(name)


def _known(word: str) -> str:
    if word not in WORDS:
        raise BadParameter(f"option '{shortened(word)}' is not one of {', '.join(WORDS)}")
    return word


def _only(found: dict[str, list[str | None]], word: str) -> str | None:
    if word not in found:
        return None
    if not found[word][0]:
        raise BadParameter(f"{word} has no value, needed one, such as {word}={EXAMPLES[word]}")
    return found[word][0]


EXAMPLES = {"label": "species", "scale": "standard", "sample": "500"}


def _label(value: str | None) -> tuple[str | None, tuple[str, ...]]:
    if value is None:
        return None, ()
    column, equals, text = value.partition("=")
    classes = tuple(unquote(name).strip() for name in text.split(",")) if equals else ()
    if not column or "" in classes or len(classes) > 2 or len(set(classes)) < len(classes):
        wanted = "COLUMN, COLUMN=POSITIVE or COLUMN=POSITIVE,NEGATIVE, two different classes"
        raise BadParameter(f"label = {shortened(value)}, needed {wanted}: change it")
    return unquote(column), classes


def _sample(value: str | None) -> tuple[int | None, int]:
    if value is None:
        return None, 0
    try:
        count, seed = map(int, (*value.split(","), "0")[:2])
        if value.count(",") > 1 or count < 2 or not 0 <= seed < 2**63:
            raise ValueError
    except ValueError:
        wanted = "a whole number of rows, at least 2, or that and a seed, as in sample=500,3"
        raise BadParameter(f"sample = {shortened(value)}, needed {wanted}") from None
    return count, seed
