"""Mutants: chapters run with one number of the library changed on purpose; a verdict must say no.

    python tests/mutants.py [CHAPTER ...] [--by 0.01] [--each N] [--jobs N]
    make mutants: a dozen places in every chapter, each changed by one per cent

A place is one number that a public function of the library hands back (a field, a tensor, a count)
or, for the dynamics, one sample or one layer that it is handed. Numbers are multiplied by 1 + by,
counts raised by one, answers negated, for every caller, as an error in the function itself would
be. The outcomes: `caught` (a verdict is no longer `reproduced`, or the chapter stops), `survived`,
or `unused` (no number of any verdict moves: what is only drawn, or cancels). The table
`tests/mutants.csv` is resumable; rows of other code are out of date.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib
import inspect
import json
import math
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import wraps
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from results_table import Table, code  # noqa: E402

from dlnlib.book.chapters import Chapter, chapters  # noqa: E402
from dlnlib.book.inprocess import Outcome, forked, swap, warm  # noqa: E402

COLUMNS = ("chapter", "code", "place", "by", "outcome", "detail", "seconds")
TABLE = Table(ROOT / "tests" / "mutants.csv", COLUMNS, key=("chapter", "place", "by"))
ROOMS = ("theory", "measure", "losses", "networks", "dynamics")
SAMPLE, LAYER = "<one sample", "<one layer"  # places of what the dynamics are handed
STILL = 1e-9  # relative change of a number below which it has not moved

Path_ = tuple[str, ...]


# --- the places of a chapter ---------------------------------------------------------------------


def functions() -> dict[str, Callable]:
    """The public functions of the library's rooms, by room and name."""
    for room in ROOMS:
        importlib.import_module(f"dlnlib.{room}")
    found = {}
    for key, module in sorted(sys.modules.items()):
        parts = key.split(".")
        if parts[0] != "dlnlib" or len(parts) != 3 or parts[1] not in ROOMS:
            continue
        for name, value in vars(module).items():
            public = inspect.isfunction(value) and not name.startswith("_")
            if public and value.__module__ == key:
                found[f"{parts[1]}.{name}"] = value
    return found


def leaves(value, depth: int = 3) -> Iterator[Path_]:
    """Paths to the numbers in a value: fields, keys, the first and the last of a list."""
    import torch

    if isinstance(value, torch.Tensor):
        if value.is_floating_point() and value.numel():
            yield ()
    elif isinstance(value, bool | int | float):
        yield ()
    elif depth:
        for name, part in _parts(value).items():
            yield from ((name, *rest) for rest in leaves(part, depth - 1))


def places(name: str, value) -> set[str]:
    """The places of a function that gave this value: of the dynamics, runs and what they are
    handed alone (the rest is bookkeeping)."""
    from dlnlib.dynamics import Trajectory

    found = {".".join((name, *leaf)) for leaf in leaves(value)}
    if not name.startswith("dynamics."):
        return found
    if not isinstance(value, Trajectory):
        return set()
    path = {place for place in found if place.split(".")[2] in ("weights", "clocks")}
    return path | {name + SAMPLE, name + LAYER}


def _parts(value) -> dict[str, object]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): part for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return value._asdict()
    if isinstance(value, list | tuple) and value:
        return {str(i): value[i] for i in sorted({0, len(value) - 1})}
    return {}


def changed(value, path: Path_, by: float):
    """A copy of `value` in which the number at `path` is another; itself where it has none there
    (functions may answer in several forms)."""
    if not path:
        return _other(value, by)
    parts = _parts(value)
    if path[0] not in parts:
        return value
    part = changed(parts[path[0]], path[1:], by)
    if dataclasses.is_dataclass(value):
        copy = object.__new__(type(value))
        copy.__dict__.update({**value.__dict__, path[0]: part})
        return copy
    if isinstance(value, dict):
        return {key: part if str(key) == path[0] else old for key, old in value.items()}
    if hasattr(value, "_replace"):
        return value._replace(**{path[0]: part})
    return type(value)(part if str(i) == path[0] else old for i, old in enumerate(value))


def _other(value, by: float):
    import torch

    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float) or (isinstance(value, torch.Tensor) and value.is_floating_point()):
        return value * (1 + by)
    return value


def survey(chapter: Chapter) -> tuple[Outcome, list[str]]:
    """The chapter's run as it is, and its places: what the functions that it called answered."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
        outcome = forked(chapter, {}, lambda: _watch(file.name))
        return outcome, json.loads(file.read() or "[]")


def _watch(path: str) -> None:
    seen: set[str] = set()

    def watched(name, function):
        @wraps(function)
        def call(*args, **kwargs):
            value = function(*args, **kwargs)
            new = places(name, value)
            if not new <= seen:
                seen.update(new)
                Path(path).write_text(json.dumps(sorted(seen)), encoding="utf-8")
            return value

        return call

    for name, function in functions().items():
        swap(function, watched(name, function))


# --- one mutant ----------------------------------------------------------------------------------


def mutate(place: str, by: float) -> None:
    """From here on the library errs at this place."""
    whole, marked, what = place.partition("<")
    room, name, *path = whole.split(".")
    function = functions()[f"{room}.{name}"]

    @wraps(function)
    def handed_other(weights, *args, **kwargs):
        if marked + what == LAYER:
            return function(_first_changed(weights, by), *args, **kwargs)
        first, *rest = args or [None]
        return function(weights, _first_changed(first, by), *rest, **kwargs)

    @wraps(function)
    def answered_other(*args, **kwargs):
        return changed(function(*args, **kwargs), tuple(path), by)

    swap(function, handed_other if marked else answered_other)


def _first_changed(value, by: float):
    """The first layer of weights, or the first row of data (of an objective too), times 1 + by."""
    import torch

    if dataclasses.is_dataclass(value):
        tensors = [n for n, part in _parts(value).items() if isinstance(part, torch.Tensor)]
        new = {n: _first_changed(getattr(value, n), by) for n in tensors[:1]}
        return dataclasses.replace(value, **new)

    if isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim:
        scale = torch.ones(len(value), *[1] * (value.ndim - 1), dtype=value.dtype)
        scale[0] += by
        return value * scale
    if isinstance(value, list) and value:
        return [changed(value[0], (), by), *value[1:]]
    return value


def judged(before: Outcome, after: Outcome) -> tuple[str, str]:
    """`caught`, `survived` or `unused`, and what said no or was moved most."""
    if after.error:
        return "caught", after.error[:200]
    for verdict in after.verdicts:
        if verdict["status"] != "reproduced":
            return "caught", f"{verdict['id']} {verdict['status']}: {_first_no(verdict)}"[:300]
    moves = sorted(_moves(before, after), reverse=True)
    return ("survived", moves[0][1]) if moves else ("unused", "")


def _first_no(verdict: dict) -> str:
    if verdict["reasons"]:
        return verdict["reasons"][0]
    return next(
        (c["name"] for c in verdict["checks"] if not c["holds"] and c["kind"] != "paper"), ""
    )


def _moves(before: Outcome, after: Outcome) -> Iterator[tuple[float, str]]:
    """How far each number of the verdicts has moved, relatively, where it has."""
    for old, new in zip(before.verdicts, after.verdicts, strict=True):
        for a, b in zip(old["checks"], new["checks"], strict=False):
            for part in ("measured", "expected"):
                x, y = float(a[part]), float(b[part])
                move = abs(y - x) / max(abs(x), abs(y)) if x != y else 0.0
                if math.isnan(move) or move > STILL:
                    yield move, f"{old['id']}: {a['name']} ({part} moved by {move:.1e})"


# --- the table -----------------------------------------------------------------------------------


def covered(chapter: Chapter, place: str) -> str:
    """Hash of what a row speaks about: the chapter's code and that of the function at fault."""
    room, name = place.partition("<")[0].split(".")[:2]
    function = functions().get(f"{room}.{name}")
    source = inspect.getsource(function) if function else ""
    return hashlib.sha256((code(chapter) + source).encode()).hexdigest()[:10]


def chosen(chapter: Chapter, found: list[str], each: int) -> list[str]:
    """A sample of the places, the rooms in turn, which changes little when others come or go."""
    drawn = sorted(found, key=lambda p: hashlib.sha256(f"{chapter.name} {p}".encode()).digest())
    turn = {room: 0 for room in ROOMS}
    order = {}
    for place in drawn:
        room = place.partition(".")[0]
        order[place] = turn[room], ROOMS.index(room)
        turn[room] += 1
    return sorted(drawn, key=order.get)[:each]


def of_chapter(chapter: Chapter, by: float, each: int) -> list[dict[str, str]]:
    """The rows of one chapter that are missing or out of date, added to the table one by one."""
    before, places = survey(chapter)
    new = []
    current = {
        row["place"]: row["code"]
        for row in TABLE.load()
        if row["chapter"] == chapter.name and row["by"] == str(by)
    }
    for place in chosen(chapter, places, each):
        if current.get(place) == covered(chapter, place):
            continue
        after = forked(chapter, {}, lambda place=place: mutate(place, by))
        outcome, detail = judged(before, after)
        values = (
            chapter.name,
            covered(chapter, place),
            place,
            by,
            outcome,
            detail,
            round(after.seconds, 1),
        )
        new.append(dict(zip(COLUMNS, map(str, values), strict=True)))
        TABLE.add(new[-1])
    return new


def summary(rows: list[dict[str, str]]) -> str:
    """Outcomes by chapter, and the survivors."""
    lines = []
    for name in sorted({row["chapter"] for row in rows}):
        count = Counter(row["outcome"] for row in rows if row["chapter"] == name)
        lines.append(f"{name:<24}" + "  ".join(f"{k} {count[k]}" for k in sorted(count)))
    total = Counter(row["outcome"] for row in rows)
    decided = total["caught"] + total["survived"]
    lines.append(f"{'all':<24}caught {total['caught']} of {decided}, unused {total['unused']}")
    survivors = [row for row in rows if row["outcome"] == "survived"]
    return "\n".join(
        lines + [f"  {r['chapter']}: {r['place']} by {r['by']}: {r['detail']}" for r in survivors]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER")
    parser.add_argument("--by", type=float, default=0.01, help="relative change (default 0.01)")
    parser.add_argument("--each", type=int, default=12, help="places of a chapter (default 12)")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    found = [
        c
        for c in chapters(ROOT)
        if c.claims and (not options.chapters or c.name in options.chapters)
    ]
    with ProcessPoolExecutor(options.jobs, initializer=warm) as pool:
        jobs = [pool.submit(of_chapter, c, options.by, options.each) for c in found]
        for job in as_completed(jobs):
            for row in job.result():
                print(row["chapter"], row["place"], row["outcome"], row["detail"], flush=True)
    names = {c.name for c in found}
    print(
        summary([r for r in TABLE.load() if r["chapter"] in names and r["by"] == str(options.by)])
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
