"""The steady table: every chapter over seeds, ends of ranges and data sets, one row a run, kept in
`tests/steady.csv`.

    python tests/steady.py [CHAPTER ...] [--only seeds|ends|data] [--jobs N]
    make steady: all of it

Rows that the table holds for the chapter's present code are not run again, so that an interrupted
table goes on where it was. A run ends well when its status is `reproduced`, `undecided` or
`hypotheses not met`; all others are listed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from results_table import Table, code, codes  # noqa: E402

from dlnlib.book.chapters import Chapter, chapters, checked  # noqa: E402
from dlnlib.book.inprocess import Outcome, forked, warm  # noqa: E402
from dlnlib.book.parameters import Parameter  # noqa: E402
from dlnlib.errors import BadParameter  # noqa: E402

COLUMNS = ("chapter", "code", "parameters", "status", "seconds", "verdicts", "reason")
TABLE = Table(ROOT / "tests" / "steady.csv", COLUMNS, key=("chapter", "parameters"))
CASES = sorted((ROOT / "tests" / "cases").glob("*.csv"))
DATA = [
    "iris",
    "iris+1",
    "wine:0,1",
    "breast-cancer",
    "breast-cancer+1",
    "digits:0,1",
    "digits:3,8",
]
# the last: a page without claims
GOOD = ("reproduced", "undecided", "hypotheses not met", "no verdict")
SEEDS = range(20)

Values = dict[str, object]


def seeds(chapter: Chapter) -> Iterator[Values]:
    """The defaults with each of twenty seeds."""
    if any(parameter.name == "seed" for parameter in chapter.parameters):
        yield from ({"seed": seed} for seed in SEEDS)


def ends(chapter: Chapter) -> Iterator[Values]:
    """Each parameter at the ends and in the middle of its range, the others at their defaults."""
    for parameter in chapter.parameters:
        if parameter.name != "seed":
            yield from ({parameter.name: value} for value in _places(parameter))


def _places(parameter: Parameter) -> list[object]:
    if parameter.choices:
        return list(parameter.choices)
    if parameter.least is None:
        return []
    kind, least, most = type(parameter.default), float(parameter.least), float(parameter.most)
    wide = least > 0 and most / least >= 100
    middle = (least * most) ** 0.5 if wide else (least + most) / 2
    return list(
        dict.fromkeys(
            kind(round(v) if kind is int else float(f"{v:.3g}")) for v in (least, middle, most)
        )
    )


def data(chapter: Chapter) -> Iterator[Values]:
    """Each bundled data set and each file of `tests/cases`, for a chapter whose data can be
    chosen."""
    if any(parameter.name == "data" for parameter in chapter.parameters):
        yield from ({"data": name} for name in [*DATA, *map(_relative, CASES)])


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


KINDS = {"data": data, "ends": ends, "seeds": seeds}


def row(chapter: Chapter, values: Values, outcome: Outcome) -> dict[str, str]:
    """One line of the table."""
    verdicts = "; ".join(f"{v['id']} {v['status']}" for v in outcome.verdicts)
    reasons = [f"{v['id']}: {_reason(v)}" for v in outcome.verdicts if v["status"] != "reproduced"]
    return {
        "chapter": chapter.name,
        "code": code(chapter),
        "parameters": _text(values),
        "status": outcome.status,
        "seconds": str(round(outcome.seconds, 1)),
        "verdicts": verdicts,
        "reason": outcome.error or "; ".join(reasons),
    }


def _reason(verdict: dict) -> str:
    """Why a verdict is not `reproduced`: what kept it undecided, or the first check that fails."""
    if verdict["reasons"]:
        return verdict["reasons"][0]
    kinds = ("hypothesis",) if verdict["status"] == "hypotheses not met" else ()
    failing = [c for c in verdict["checks"] if not c["holds"] and c["kind"] != "paper"]
    failing = [c for c in failing if not kinds or c["kind"] in kinds]
    if not failing:
        return "?"
    check = failing[0]
    return (
        f"{check['name']} ({check['measured']} {check['relation']} {check['expected']} +- "
        f"{check['tolerance']})"
    )


def _text(values: Values) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())


def wanted(found: list[Chapter], kinds: list[str]) -> list[tuple[Chapter, Values]]:
    """The runs that are still to be made, data and ends before seeds; what the chapter refuses is
    no run."""
    present = {(r["chapter"], r["parameters"]) for r in TABLE.current(codes(found))}
    runs = [
        (chapter, values) for kind in kinds for chapter in found for values in KINDS[kind](chapter)
    ]
    return [run for run in runs if (run[0].name, _text(run[1])) not in present and _accepted(*run)]


def _accepted(chapter: Chapter, values: Values) -> bool:
    try:
        checked(chapter, {name: _absolute(value) for name, value in values.items()})
    except BadParameter:
        return False
    return True


def _absolute(value: object) -> object:
    return str(ROOT / value) if str(value).startswith("tests/") else value


def one(chapter: Chapter, values: Values) -> dict[str, str]:
    """Run one of them and return its row."""
    given = checked(chapter, {name: _absolute(value) for name, value in values.items()})
    return row(chapter, values, forked(chapter, given))


def summary(rows: list[dict[str, str]]) -> str:
    """Runs, statuses, slowest: what the chapter on numerics prints."""
    counts = Counter(r["status"] for r in rows)
    slowest = max(rows, key=lambda r: float(r["seconds"]), default=None)
    words = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    last = (
        f"; slowest {slowest['chapter']} {slowest['parameters']}, {slowest['seconds']} s"
        if slowest
        else ""
    )
    return f"{len(rows)} runs: {words}{last}"


def main() -> int:
    from tqdm import tqdm

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER")
    parser.add_argument(
        "--only", choices=KINDS, action="append", help="these runs only (default: all kinds)"
    )
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    found = [c for c in chapters(ROOT) if not options.chapters or c.name in options.chapters]
    todo = wanted(found, options.only or list(KINDS))
    with ProcessPoolExecutor(options.jobs, initializer=warm) as pool:
        running = [pool.submit(one, *run) for run in todo]
        for future in tqdm(as_completed(running), total=len(todo), disable=None, desc="steady"):
            new = future.result()
            TABLE.add(new)
            if new["status"] not in GOOD:
                tqdm.write(
                    f"{new['chapter']} {new['parameters']}: {new['status']}: {new['reason'][:200]}"
                )
    rows = TABLE.current(codes(found))
    print(summary(rows))
    bad = [r for r in rows if r["status"] not in GOOD]
    for r in bad:
        print(f"  {r['chapter']} {r['parameters']}: {r['status']}: {r['reason'][:300]}")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
