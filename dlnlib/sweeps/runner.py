"""The process in which the runs of one worker are made: one order a line on standard input, one
outcome a line on standard output.

The first run is made in the process itself, so that the kernels it loads are there for the forks in
which all others are made. When its input closes, because whoever asked is gone in whatever way, it
ends, and the run with it.

    python -P -m dlnlib.sweeps.runner warm|cold FOLDER

FOLDER, which is new and its own, is removed in the end.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys

from dlnlib.book import plots
from dlnlib.book.inprocess import Outcome, Script, forked, run, swap, warm

__all__ = ["serve"]


def serve(loaded: bool) -> None:
    """Answer orders until the input closes; `loaded` says that the first of them is made here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: meant for whoever asked
    orders, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):  # what a chapter's libraries print
        os.dup2(nowhere, descriptor)
    warm()
    swap(plots.show, _undrawn)  # no page is made of these runs
    while line := _line(orders):
        order = json.loads(line)
        script = Script(**{key: _tuple(value) for key, value in order["script"].items()})
        outcome, threads = None, _threads()
        if loaded:
            outcome, loaded = _here(script, order["values"], order["limit"]), False
        else:
            limit = order["limit"]
            outcome = forked(script, order["values"], limit=limit, asker=orders.fileno())
        told = {"status": outcome.status, "died": outcome.died, **outcome.__dict__}
        answers.write(json.dumps(told).encode() + b"\n")
        answers.flush()
        if _threads() > threads:  # a process with threads of its own must not fork
            return


def _here(script: Script, values: dict, limit: int) -> Outcome:
    """A run in this process; one that lasts too long ends the process."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, most))
    outcome = run(script, values)
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    return outcome


def _undrawn(fig, *, alt: str) -> None:
    """In place of `plots.show`."""


def _line(stream) -> bytes:
    """One line, read without taking more: `forked` watches the same descriptor."""
    parts = []
    while part := stream.readline():
        parts.append(part)
        if part.endswith(b"\n"):
            return b"".join(parts)
    return b""


def _threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:  # no Linux
        return 1


def _tuple(value):
    return tuple(value) if isinstance(value, list) else value


if __name__ == "__main__":
    try:
        serve(sys.argv[1] == "warm")
    finally:
        shutil.rmtree(sys.argv[2], ignore_errors=True)
