"""A sweep that is killed again and again, and what must be left: nothing lost, repeated or corrupt.

    python tests/kill_sweep.py KILLS [SEED]

Each time one process of the sweep dies by SIGKILL, drawn by the seed: the command, a Dask worker,
the process of its runs, a run, or all at once as when a machine goes down. Where the command died,
the same command is started again.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
RUNS_A_KILL = 6
PATIENCE = 600  # seconds without a new result after which something is wrong


@dataclass
class Killed:
    """What was killed, and what was found wrong."""

    kills: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    runs: int = 0


class Sweep:
    """The command on a book of one chapter, started as often as needed."""

    def __init__(self, book: Path, out: Path, runs: int, workers: int):
        self.out, self.runs, self.process = out, runs, None
        self.command = [sys.executable, "-m", "dlnlib.cli", "sweep", "halving", "--book", str(book)]
        self.command += [
            "--grid",
            f"seed=20:{20 + runs}",
            "--workers",
            str(workers),
            "-o",
            str(out),
        ]

    def start(self) -> None:
        paths = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        self.process = subprocess.Popen(
            self.command,
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def results(self) -> dict[str, tuple[int, int]]:
        """The files of the finished runs; a file written anew has another inode."""
        found = {}
        for path in (self.out / "runs").glob("[!.]*.json"):
            stat = path.stat()
            found[path.name] = stat.st_ino, stat.st_mtime_ns
        return found

    def wait_for(self, more: int) -> None:
        """Until so many more results are there, or the command ended."""
        before, since = len(self.results()), time.monotonic()
        while len(self.results()) < before + more and self.process.poll() is None:
            time.sleep(0.01)
            if time.monotonic() - since > PATIENCE:
                raise TimeoutError(f"{len(self.results())} results, no more in {PATIENCE} s")


def kinds(command: psutil.Process) -> dict[str, list[psutil.Process]]:
    """The processes of a sweep by what they are."""
    found = {"command": [command], "worker": [], "runner": [], "run": []}
    for process in command.children(recursive=True):
        try:
            line, above = " ".join(process.cmdline()), " ".join(process.parent().cmdline())
        except (psutil.Error, AttributeError):
            continue
        if "dlnlib.sweeps.runner" in line:
            found["run" if "dlnlib.sweeps.runner" in above else "runner"].append(process)
        elif "spawn_main" in line:
            found["worker"].append(process)
    return found


def kill_one(sweep: Sweep, draw: random.Random) -> str:
    """Kill a process of the sweep, or all; the kind of what was killed."""
    command = psutil.Process(sweep.process.pid)
    everything = [command, *command.children(recursive=True)]
    there = {kind: found for kind, found in kinds(command).items() if found}
    kind = draw.choice([*there, "machine"])
    victims = everything if kind == "machine" else [draw.choice(there[kind])]
    for victim in victims:
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            pass
    if kind in ("command", "machine"):
        sweep.process.wait()
        sweep.process.stdout.close()
        _, alive = psutil.wait_procs(everything, timeout=30)
        if alive:
            raise AssertionError(f"processes outlive the sweep: {alive}")
    return kind


def main(kills: int, seed: int, folder: Path, book: Path, workers: int = 2) -> Killed:
    """Kill a sweep so many times, let it end, and look at what is left."""
    draw, told = random.Random(seed), Killed(runs=kills * RUNS_A_KILL)
    sweep = Sweep(book, folder / "out", told.runs, workers)
    sweep.start()
    while len(told.kills) < kills:
        room = told.runs - len(sweep.results())
        sweep.wait_for(draw.randint(0, max(0, room // (kills - len(told.kills)) - 1)))
        time.sleep(draw.random() * 0.1)
        if sweep.process.poll() is not None:
            break
        before = sweep.results()
        told.kills.append(kill_one(sweep, draw))
        told.wrong += compared(before, sweep.results())
        if sweep.process.poll() is not None:
            sweep.start()
    before = sweep.results()
    said, _ = sweep.process.communicate()
    told.wrong += compared(before, sweep.results()) + judged(sweep, said)
    return told


def compared(before: dict, after: dict) -> list[str]:
    """Finished runs that are gone or were written again."""
    lost = [f"lost {name}" for name in before if name not in after]
    return lost + [f"repeated {n}" for n, seen in before.items() if after.get(n, seen) != seen]


def judged(sweep: Sweep, said: str) -> list[str]:
    """What is wrong with the end: the files, the table, the exit status."""
    import pandas as pd

    wrong = [] if sweep.process.returncode == 0 else [f"exit {sweep.process.returncode}: {said}"]
    if len(sweep.results()) != sweep.runs:
        wrong.append(f"{len(sweep.results())} results of {sweep.runs}")
    seeds = set()
    for path in (sweep.out / "runs").iterdir():
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            measured = [check["measured"] for check in result["verdicts"][0]["checks"]]
            seeds.add(result["parameters"]["seed"])
        except (ValueError, LookupError) as err:
            measured = repr(err)
        if measured != [1.0, 0.5**8, 1.0]:
            wrong.append(f"corrupt {path.name}: {measured}")
    if seeds != set(range(20, 20 + sweep.runs)):
        wrong.append(f"{len(seeds)} seeds")
    table = pd.read_parquet(sweep.out / "table.parquet")
    if len(table) != 3 * sweep.runs or table["run"].nunique() != sweep.runs:
        wrong.append(f"a table of {len(table)} rows")
    return wrong


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    from conftest import make_toy_book

    with tempfile.TemporaryDirectory() as place:
        asked, drawn = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
        found = main(asked, drawn, Path(place), make_toy_book(Path(place) / "book"))
    print(f"{len(found.kills)} kills of {found.runs} runs: {', '.join(found.kills)}")
    print("\n".join(found.wrong) or "0 lost, 0 repeated, 0 corrupt")
    sys.exit(bool(found.wrong))
