"""The table of a sweep: a row a check, the names of the grid as columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlnlib.book.publish import write_whole
from dlnlib.errors import BadData
from dlnlib.sweeps.store import Store

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "current", "frame", "write"]

COLUMNS = (
    "claim",
    "status",
    "check",
    "kind",
    "measured",
    "relation",
    "expected",
    "allowance",
    "holds",
    "reason",
    "seconds",
    "run",
)
NUMBERS = ("measured", "expected", "allowance", "seconds")


def current(store: Store, about: Mapping) -> Iterator[dict]:
    """The finished runs of the code and library that `sweep.json` names; what older code left is
    passed over."""
    wanted = (about["code"], about["library"])
    for result in store.results():
        if (result.get("code"), result.get("library")) == wanted:
            yield result


def frame(results: Iterable[Mapping], names: Sequence[str]) -> pd.DataFrame:
    """One row a check; a verdict without checks, and a run without verdicts, have one row with the
    reason."""
    import pandas as pd

    shown = [f"{name}_" if name in COLUMNS else name for name in names]
    rows: list[tuple] = []
    for result in results:
        try:
            place = tuple(result["parameters"].get(name) for name in names)
            rows += [(*place, *row) for row in _rows(result)]
        except (KeyError, TypeError, AttributeError, ValueError) as err:
            raise BadData(f"run {result.get('run')}: not a result of a sweep ({err!r})") from err
    table = pd.DataFrame(rows, columns=[*shown, *COLUMNS])
    table = table.astype(dict.fromkeys(NUMBERS, "float64") | {"holds": "boolean"})
    return table.sort_values([*shown, "run"], kind="stable", ignore_index=True)


def _rows(result: Mapping) -> Iterator[tuple]:
    """The rows of a run, in the order of COLUMNS."""
    end = (result["seconds"], result["run"])
    if not result["verdicts"] or result["error"]:
        yield None, result["status"], None, None, *[None] * 5, result["error"], *end
    for verdict in result["verdicts"]:
        start = (verdict["id"], verdict["status"])
        if not verdict["checks"]:
            reasons = "; ".join(verdict.get("reasons", ()))
            yield *start, None, None, *[None] * 5, reasons, *end
        for check in verdict["checks"]:
            yield *start, *_numbers(check), check.get("reason", ""), *end


def _numbers(check: Mapping) -> tuple:
    return (
        check["name"],
        check["kind"],
        float(check["measured"]),  # "inf" and "nan" travel as texts
        check["relation"],
        float(check["expected"]),
        float(check["tolerance"]),
        check["holds"],
    )


def write(table: pd.DataFrame, folder: Path) -> None:
    """`table.csv` and `table.parquet` in the directory, each whole."""
    write_whole(
        folder / "table.csv", lambda path: table.to_csv(path, index=False, lineterminator="\n")
    )
    write_whole(folder / "table.parquet", lambda path: table.to_parquet(path, index=False))
