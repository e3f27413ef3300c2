"""What a Dask worker does: hand runs to processes of its own, and say what it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import dlnlib
from dlnlib import __version__
from dlnlib.book.execute import plain_environment
from dlnlib.sweeps.identity import library

__all__ = ["about", "one"]

TRIES = 3  # a process of a run that is killed is no result: it is made again

_idle: list[Process] = []  # a worker with several threads has as many


class Process:
    """A `runner`, with a folder for what it leaves."""

    def __init__(self, how: str):
        self.folder = tempfile.mkdtemp(prefix="dlnlib-")
        (Path(self.folder) / "matplotlibrc").touch()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "dlnlib.sweeps.runner", how, self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self.folder,
            env=_environment(self.folder),
        )

    def answer(self, order: str) -> dict | None:
        """The outcome of an order; nothing when the process ended."""
        try:
            self.process.stdin.write(order.encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            return None
        return json.loads(line) if line.endswith(b"\n") else None

    @property
    def alive(self) -> bool:
        """Whether it can take another order."""
        return self.process.poll() is None

    def close(self) -> None:
        """End it, and remove its folder."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            try:
                stream.close()
            except OSError:  # what was not taken any more
                pass
        shutil.rmtree(self.folder, ignore_errors=True)


def one(order: str) -> dict:
    """Make one run; the order is JSON: script, values, limit in seconds of processor time.

    A run whose process was killed is made again, twice at most.
    """
    how = "warm"
    for _ in range(TRIES):
        process = _ready(how)
        outcome = process.answer(order)
        if outcome is not None and not outcome["died"]:
            _idle.append(process)
            return outcome
        if outcome is None:  # the first run may have ended it: not in the process itself again
            process.close()
            how = "cold"
        else:
            _idle.append(process)
    return outcome or {"died": True, "error": "Died: its process ended"}


def _ready(how: str) -> Process:
    while _idle:
        process = _idle.pop()
        if process.alive:
            return process
        process.close()
    return Process(how)


def about() -> dict[str, str]:
    """Which library a worker has: its version, and a hash of its files."""
    return {"version": __version__, "library": library()}


def _environment(folder: str) -> dict[str, str]:
    """The worker's, without what would change a result; the library is this one."""
    plain = plain_environment()
    paths = [str(Path(dlnlib.__file__).resolve().parent.parent)]
    paths += filter(None, plain.get("PYTHONPATH", "").split(os.pathsep))
    own = {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "MPLBACKEND": "agg",
        "MATPLOTLIBRC": str(Path(folder) / "matplotlibrc"),
        "TMPDIR": folder,
    }
    return plain | own
