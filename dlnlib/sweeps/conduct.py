"""A sweep: the runs that are still to be made, handed to a cluster, each result kept as soon as it
is there."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from dlnlib import __version__
from dlnlib.book.chapters import Chapter, chapter, find_book
from dlnlib.book.inprocess import Script, script
from dlnlib.book.parameters import check_relations
from dlnlib.errors import BadCluster, BadData, BadParameter, shortened
from dlnlib.sweeps.cluster import connected, slots
from dlnlib.sweeps.grid import combinations
from dlnlib.sweeps.identity import code, library, name_of, parameters
from dlnlib.sweeps.store import Store
from dlnlib.sweeps.table import current, frame, write
from dlnlib.sweeps.worker import one

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client

__all__ = ["Sweep", "sweep"]

LIMIT = 3600  # seconds of processor time of one run
AHEAD = 2  # runs handed out for each that can be made at once
KEPT = ("status", "error", "verdicts", "seconds")  # of an outcome
AGAIN = 5  # seconds after which the cluster is asked for its size again


@dataclass(frozen=True)
class Sweep:
    """What a sweep came to: its directory, how many runs were asked for, how many of them are new,
    were refused or lost, and the statuses of all."""

    out: Path
    runs: int
    new: int
    lost: int
    statuses: dict[str, int]

    @property
    def exit_status(self) -> int:
        """0 all reproduced; 1 something else, or a run lost; 3 only hypotheses that were not
        met."""
        worse = set(self.statuses) - {"reproduced", "hypotheses not met", "no verdict", "refused"}
        if self.lost or worse:
            return 1
        return 3 if "hypotheses not met" in self.statuses else 0

    @property
    def table(self) -> pd.DataFrame:
        """All checks of all runs in the directory, a row each."""
        import pandas as pd

        return pd.read_parquet(self.out / "table.parquet")

    def __str__(self) -> str:
        words = ", ".join(f"{count} {status}" for status, count in self.statuses.items())
        words = words or "none has a result"
        lost = f"; {self.lost} died and are not kept: the same command tries again"
        return f"{self.runs} runs, {self.new} of them new: {words}{lost if self.lost else ''}"


def sweep(
    name: str,
    grid: Mapping[str, object],
    out: str | Path,
    *,
    zips: Iterable[Mapping[str, object]] = (),
    scheduler: str | None = None,
    workers: int | None = None,
    security=None,
    book: str | Path | None = None,
    progress: bool | None = None,
) -> Sweep:
    """Run a chapter for every combination of parameters and keep one table of all checks.

    `grid` maps a parameter to its values (a sequence, or a text such as "2,3,4" or "0:100"); each
    mapping of `zips` holds parameters whose values go side by side. `out` gets `table.csv`,
    `table.parquet`, and one file a run, from which the same call goes on after an interruption of
    any kind; runs that are finished are not made again. `workers` processes on this machine
    (default: one a core), or the Dask cluster whose scheduler has the address `scheduler`
    (`security`: a `distributed.Security`, for tls://). `progress` shows a bar; by default where
    standard error is a terminal. Raises BadParameter for values that the chapter does not allow,
    BadOutput for a place that cannot be written or where another sweep is at work, BadCluster for a
    cluster that does not answer or has another library.
    """
    found = chapter(name, find_book(book))
    if workers is not None and workers < 1:
        raise BadParameter(f"workers = {workers}: at least 1 is needed")
    zips = list(zips)
    runs = combinations(found, grid, zips)
    names = [*grid, *(key for group in zips for key in group)]
    store = Store(_absolute(out))
    with store.held():
        work = _Work(found, script(found), store, runs, names)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        try:
            if work.todo:
                processes = min(workers or cores or 1, len(work.todo))
                with connected(scheduler, processes, security) as client:
                    work.make(client, progress)
        except BaseException as err:
            err.add_note(work.told())
            if isinstance(err, BadCluster):  # an interrupt is not kept waiting
                work.tabulate()
            raise
        work.tabulate()
    return work.summary()


def _absolute(out: str | Path) -> Path:
    return Path(os.path.abspath(os.path.expanduser(out)))


def _outcome(future) -> dict:
    """What a worker handed back; of one whose workers were killed, that it died."""
    from distributed import KilledWorker

    if future.status == "finished":
        return future.result()
    problem = future.exception()
    if isinstance(problem, KilledWorker):
        return {"died": True}
    raise BadCluster(f"a worker failed: {shortened(' '.join(str(problem).split()), 200)}")


class _Work:
    """The runs of a sweep: which there are, which are done, which were lost."""

    def __init__(self, chapter: Chapter, script: Script, store: Store, runs: list, names: list):
        self.chapter, self.script, self.store = chapter, script, store
        self.code, self.new, self.lost, self.changed = code(script), 0, 0, False
        self.runs = {name_of(chapter, self.code, values): values for values in runs}
        self.about = self._described(names)
        reasons = {name: self._no(values) for name, values in self.runs.items()}
        self.refused = {name: why for name, why in reasons.items() if why}
        if len(self.refused) == len(self.runs):
            raise BadParameter(next(iter(self.refused.values())))
        self.statuses = self._kept_before()
        known = self.statuses.keys() | self.refused.keys()
        self.todo = [name for name in self.runs if name not in known]
        unsaid = self.refused.keys() - self.statuses.keys()
        if self.todo or unsaid:
            self.about["tables"] = ""
        store.describe(self.about)
        for name in unsaid:
            why = self.refused[name]
            self._keep(name, {"status": "refused", "error": why, "verdicts": [], "seconds": 0.0})

    def _kept_before(self) -> dict[str, str]:
        """The statuses of the runs that are finished; what was refused may be allowed by now."""
        found = {}
        for name in self.runs.keys() & self.store.names():
            result = self.store.result(name)
            if result and (result["status"] == "refused") is (name in self.refused):
                found[name] = str(result["status"])
        return found

    def _described(self, names: list[str]) -> dict:
        """What `sweep.json` will say; raises BadData when the directory is another chapter's."""
        before = self.store.about()
        if before and before["chapter"] != self.chapter.name:
            raise BadData(
                f"{self.store.folder} holds a sweep of {before['chapter']}, not of "
                f"{self.chapter.name}; give another directory"
            )
        return {
            "chapter": self.chapter.name,
            "title": self.chapter.title,
            "code": self.code,
            "library": library(),
            "version": __version__,
            "names": list(dict.fromkeys([*before.get("names", ()), *names])),
            "tables": before.get("tables", ""),
        }

    def _no(self, values: Mapping[str, object]) -> str:
        """Why a combination is refused; empty when it is not."""
        try:
            check_relations(self.chapter.requires, parameters(self.chapter, values))
        except BadParameter as err:
            return str(err)
        return ""

    def make(self, client: Client, progress: bool | None) -> None:
        """Make the runs, and keep each result as it comes."""
        from distributed import as_completed
        from tqdm import tqdm

        done, disable = len(self.runs) - len(self.todo), None if progress is None else not progress
        waiting, running = iter(self.todo), as_completed(loop=client.loop)
        size, asked = slots(client), time.monotonic()
        bar = tqdm(total=len(self.runs), initial=done, desc=self.chapter.name, disable=disable)
        with bar:
            for name in islice(waiting, AHEAD * size):
                running.add(self._submit(client, name))
            for future in running:
                self._take(future)
                bar.update()
                if time.monotonic() - asked > AGAIN:
                    size, asked = slots(client), time.monotonic()
                for name in islice(waiting, max(0, AHEAD * size - running.count())):
                    running.add(self._submit(client, name))

    def _submit(self, client: Client, name: str):
        values = self.runs[name]
        order = json.dumps({"script": asdict(self.script), "values": values, "limit": LIMIT})
        return client.submit(one, order, key=f"dlnlib-{name}", pure=False)

    def _take(self, future) -> None:
        """Keep a result; raises BadCluster when the scheduler is gone."""
        name = future.key.removeprefix("dlnlib-")
        if future.status in ("cancelled", "lost"):
            raise BadCluster("the scheduler is gone")
        outcome = _outcome(future)
        if outcome["died"]:
            self.lost += 1
        else:
            self._keep(name, {key: outcome[key] for key in KEPT})
            self.new += 1

    def _keep(self, name: str, outcome: Mapping[str, object]) -> None:
        values = parameters(self.chapter, self.runs[name])
        own = {"run": name, "chapter": self.chapter.name, "parameters": values}
        self.store.add(name, {**own, "code": self.code, "library": library(), **outcome})
        self.statuses[name], self.changed = outcome["status"], True

    def tabulate(self) -> None:
        """Make the tables of what is there, unless they are made of just this."""
        said = json.dumps([sorted(self.store.names()), self.about["names"], self.code, library()])
        made_of, folder = hashlib.sha256(said.encode()).hexdigest(), self.store.folder
        there = all((folder / f"table.{ending}").is_file() for ending in ("csv", "parquet"))
        if self.changed or not there or self.about["tables"] != made_of:
            write(frame(current(self.store, self.about), self.about["names"]), folder)
            self.about["tables"] = made_of
            self.store.describe(self.about)

    def told(self) -> str:
        """What is kept of an unfinished sweep."""
        return f"{len(self.statuses)} of {len(self.runs)} runs are kept; the same command goes on"

    def summary(self) -> Sweep:
        """What all runs that were asked for came to."""
        ordered = dict(Counter(self.statuses.values()).most_common())
        return Sweep(self.store.folder, len(self.runs), self.new, self.lost, ordered)
