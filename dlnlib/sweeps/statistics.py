"""What a sweep shows: statuses, distributions of measured numbers, means against parameters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlnlib.book.publish import write_whole
from dlnlib.errors import BadData, shortened
from dlnlib.sweeps.page import page
from dlnlib.sweeps.store import Store
from dlnlib.sweeps.table import current, frame

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Report", "report"]

LEVEL = 0.95  # of the intervals
SEED = "seed"  # what numbers are distributed over, as are parameters of many values
MOST_VALUES = 20
WIDEST = 52  # characters of a text in such a table
VISIBLE = 1e-3  # a smaller relative difference is not worth a line on a terminal
MOST_LINES = 20  # of a table on a terminal
KEY = ["claim", "check", "kind"]


@dataclass(frozen=True)
class Report:
    """What the finished runs of a sweep show.

    `statuses`: runs by claim and status. `distributions`: for each check how many runs, the share
    in which it holds, quantiles of the measured number. `means`: the mean of each measured number
    at each value of each parameter, with a 95 % interval of Student's t over the other runs.
    `refusals`: reasons for which runs have no verdict, with their number. `table`: all rows.
    """

    title: str
    runs: int
    table: pd.DataFrame
    statuses: pd.DataFrame
    distributions: pd.DataFrame
    means: pd.DataFrame
    refusals: pd.DataFrame

    def __str__(self) -> str:
        """What fits a terminal: the numbers that vary, the checks that fail; the page has all."""
        failing = self.distributions[self.distributions["holds"] < 1]
        varying = self.distributions[
            _varying(self.distributions["least"], self.distributions["most"])
        ]
        means = self.means.groupby([*KEY, "parameter"])["mean"]
        seen = self.means[_varying(means.transform("min"), means.transform("max"))]
        parts = [f"{self.title}: {self.runs} runs", self.statuses.to_string(index=False)]
        for name, found in (
            ("does not always hold", failing),
            ("measured", _telling(varying)),
            (f"means with {LEVEL:.0%} intervals", _telling(seen)),
            ("without a verdict", self.refusals),
        ):
            if len(found):
                parts.append(f"{name}\n{_lines(found)}")
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        return page(self)

    def write_page(self, path: str | Path) -> None:
        """Write the report as one HTML page that needs nothing else; raises BadOutput."""
        text = page(self)
        whole = Path(path).expanduser().absolute()
        write_whole(whole, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def report(out: str | Path) -> Report:
    """The report of the sweep in the directory `out`, from the runs that are finished; raises
    BadData when there are none."""
    store = Store(Path(out).expanduser())
    about = store.about()
    if not about:
        raise BadData(
            f"{shortened(str(out), 200)}: no sweep there; make one with `dlnlib sweep CHAPTER "
            f"--grid seed=0:10 -o DIR`"
        )
    table = frame(current(store, about), about["names"])
    if table.empty:
        raise BadData(f"{shortened(str(out), 200)}: no run is finished yet")
    names = [str(name) for name in table.columns[: len(about["names"])]]
    checks = table[table["check"].notna()]
    return Report(
        f"{about['chapter']}: {about['title']}",
        table["run"].nunique(),
        table,
        _statuses(table),
        _distributions(checks),
        _means(checks, names),
        _refusals(table),
    )


def _telling(found: pd.DataFrame) -> pd.DataFrame:
    """The rows about rates and constants, where there are any; else all."""
    told = found[found["kind"].isin(("rate", "constant"))]
    return told if len(told) else found


def _varying(least: pd.Series, most: pd.Series) -> pd.Series:
    """Where two numbers differ in the digits that are shown."""
    return most - least > VISIBLE * abs(least).combine(abs(most), max)


def _lines(found: pd.DataFrame) -> str:
    """A table for a terminal, cut where it is long."""
    shown = found.head(MOST_LINES).drop(columns=["kind", "expected"], errors="ignore")
    for name in shown.columns.intersection(["check", "reason"]):
        shown = shown.assign(**{name: shown[name].fillna("").map(_cut)})
    text = shown.to_string(index=False, na_rep="", float_format="{:.4g}".format)
    more = len(found) - len(shown)
    return f"{text}\n... {more} more: --html PAGE shows all" if more else text


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def _statuses(table: pd.DataFrame) -> pd.DataFrame:
    said = table.assign(claim=table["claim"].fillna("(none)"))
    found = said.groupby(["claim", "status"], sort=False)["run"].nunique()
    return found.rename("runs").reset_index().sort_values("claim", kind="stable")


def _distributions(checks: pd.DataFrame) -> pd.DataFrame:
    grouped = checks.groupby(KEY, sort=False)
    measured = grouped["measured"]
    found = grouped.agg(runs=("run", "nunique"), holds=("holds", "mean"))
    for name, share in (("least", 0), ("5 %", 0.05), ("median", 0.5), ("95 %", 0.95), ("most", 1)):
        found[name] = measured.quantile(share)
    found["expected"] = grouped["expected"].median()
    return found.reset_index()


def _means(checks: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Mean and interval of each number that varies, at each value of each parameter."""
    import pandas as pd
    from scipy.stats import t

    parts = []
    for name in names:
        if name == SEED or not 1 < checks[name].nunique() <= MOST_VALUES:
            continue
        found = checks.groupby([*KEY, name], sort=False)["measured"].agg(["count", "mean", "std"])
        freedom = (found["count"] - 1).clip(lower=1)
        half = t.ppf((1 + LEVEL) / 2, freedom) * found["std"] / found["count"] ** 0.5
        found = found.assign(low=found["mean"] - half, high=found["mean"] + half).reset_index()
        found = found.rename(columns={name: "value"}).assign(parameter=name)
        parts.append(found[[*KEY, "parameter", "value", "count", "mean", "low", "high"]])
    if not parts:
        return pd.DataFrame(columns=[*KEY, "parameter", "value", "count", "mean", "low", "high"])
    means = pd.concat(parts, ignore_index=True)
    spread = means.groupby([*KEY, "parameter"])["mean"].transform(lambda m: m.max() - m.min())
    means = means[spread > 0]
    together = means.groupby([*KEY, "parameter"], sort=False).ngroup().argsort(kind="stable")
    return means.iloc[together].reset_index(drop=True)


def _refusals(table: pd.DataFrame) -> pd.DataFrame:
    without = table[table["check"].isna()]
    columns = ["status", "reason"]
    found = without.groupby(columns, sort=False, dropna=False)["run"].nunique()
    return found.rename("runs").reset_index()
