"""The registry: every claim the book answers for, with its title, source and provenance, read from
`claims.yml`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from dlnlib.errors import BadParameter

__all__ = ["PROVENANCES", "Claim", "claim", "nearest", "registry"]

PROVENANCES = ("read", "code", "abstract", "derived")


@dataclass(frozen=True)
class Claim:
    """One statement of a paper; `provenance` says whether it was read there, in the code, or
    re-derived here.

    `needs`: the hypotheses on data that the verdict depends on, None where nobody has said;
    `takes`: the parameter of the chapter that takes data, None where there is none.
    """

    id: str
    title: str
    source: str
    provenance: str
    chapter: str | None = None
    needs_control: bool = False
    needs: tuple[str, ...] | None = None
    takes: str | None = None

    def __post_init__(self):
        if self.provenance not in PROVENANCES:
            raise BadParameter(
                f"claim {self.id}: provenance {self.provenance!r} is not one of "
                f"{', '.join(PROVENANCES)}"
            )


@cache
def registry() -> dict[str, Claim]:
    """All registered claims by id, in the order of `claims.yml` (which is the order of the
    ledger)."""
    import yaml

    text = resources.files("dlnlib.verdict").joinpath("claims.yml").read_text(encoding="utf-8")
    entries = [Claim(**entry) for entry in yaml.safe_load(text)]
    return {entry.id: entry for entry in entries}


def nearest(name: str, names) -> str:
    """`; did you mean X?` for the closest of `names`, or the whole list when nothing is close."""
    names = [str(n) for n in names]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names) or 'none'}"


def claim(id: str) -> Claim:
    """The registered claim with this id; raises BadParameter, naming the closest id, when there is
    none."""
    known = registry()
    if id not in known:
        raise BadParameter(f"no claim {id!r} in dlnlib/claims.yml{nearest(id, known)}")
    return known[id]
