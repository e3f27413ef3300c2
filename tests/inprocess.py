"""Chapters run inside a process that has already loaded the library, each run in a fork of its own.

A kernel costs three seconds before its first line; a steady table of hundreds of runs cannot pay that. The cells are
the chapter's own, in their order, with the parameters put in behind the parameters cell as papermill does.
"""

from __future__ import annotations

import ast
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dlnlib import errors
from dlnlib.notebooks import Chapter, convert

__all__ = ["Outcome", "forked", "run", "warm"]

LIMIT = 300  # seconds after which a run is ended


@dataclass(frozen=True)
class Outcome:
    """How one run ended: verdicts as data with their texts, and the error that stopped it, if one did."""

    verdicts: list[dict] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    error: str = ""
    seconds: float = 0.0

    @property
    def status(self) -> str:
        """`no verdict`, `crash`, `stopped` (an error of the library's own), or the worst status of the verdicts."""
        if self.error:
            known = getattr(errors, self.error.partition(":")[0], None)
            if known and issubclass(known, errors.HypothesisNotMet):
                return "hypotheses not met"
            return "stopped" if known else "crash"
        order = ("refuted", "undecided", "hypotheses not met", "reproduced")
        found = {verdict["status"] for verdict in self.verdicts}
        return next((status for status in order if status in found), "no verdict")


def warm() -> None:
    """What every run needs, loaded once before the forks."""
    import clarabel  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import scipy.optimize  # noqa: F401
    import sklearn.datasets  # noqa: F401

    import dlnlib.flow
    import dlnlib.plots  # noqa: F401


def run(chapter: Chapter, values: Mapping[str, object]) -> Outcome:
    """Run a chapter's cells here and now; never raises for what the chapter does."""
    from dlnlib.verdict import Verdict

    shown: list = []
    names: dict = {"__name__": "__main__"}
    start, error = time.perf_counter(), ""
    with _Displays(shown):
        try:
            for source in _cells(chapter, values):
                _execute(source, names, shown)
        except BaseException as problem:  # also SystemExit: nothing a chapter does may end the table
            error = f"{type(problem).__name__}: {' '.join(str(problem).split())}"
            if os.environ.get("DLNLIB_TRACEBACK"):
                import traceback

                traceback.print_exc()
    verdicts = [value for value in shown if isinstance(value, Verdict)]
    verdicts = list({id(value): value for value in verdicts}.values())
    data = [verdict.to_json() for verdict in verdicts]
    return Outcome(data, [str(v) for v in verdicts], error, round(time.perf_counter() - start, 1))


def _cells(chapter: Chapter, values: Mapping[str, object]) -> list[str]:
    sources = []
    for cell in convert(chapter.path).cells:
        if cell.cell_type != "code":
            continue
        sources.append(cell.source)
        if "parameters" in cell.metadata.get("tags", []):
            sources.append("\n".join(f"{name} = {value!r}" for name, value in values.items()))
    return sources


def _execute(source: str, names: dict, shown: list) -> None:
    """Run a cell; the value of a last line that is an expression is shown, as a notebook does."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
        shown.extend(value if isinstance(value, tuple) else [value])


class _Displays:
    """While it lasts, what a chapter displays or prints goes nowhere else."""

    def __init__(self, shown: list):
        self.shown = shown

    def __enter__(self):
        import builtins

        import IPython.display

        self.module, self.saved, self.out = IPython.display, IPython.display.display, sys.stdout
        IPython.display.display = builtins.display = lambda *values, **_: self.shown.extend(values)
        sys.stdout = open(os.devnull, "w")

    def __exit__(self, *_):
        import builtins

        self.module.display = self.saved
        del builtins.display
        sys.stdout.close()
        sys.stdout = self.out


def forked(chapter: Chapter, values: Mapping[str, object], prepare: Callable[[], None] | None = None) -> Outcome:
    """`run` in a fork of this process, after `prepare()`; a run that lasts too long or dies is an outcome as well."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
        start = time.perf_counter()
        child = os.fork()
        if child == 0:
            _child(chapter, values, prepare, file.name)
        while time.perf_counter() - start < LIMIT:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            time.sleep(0.05)
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Outcome(error=f"TooSlow: more than {LIMIT} s", seconds=LIMIT)
        text = file.read()
    seconds = round(time.perf_counter() - start, 1)
    if not text:
        return Outcome(error=f"Died: status {status}", seconds=seconds)
    return Outcome(**json.loads(text))


def _child(chapter: Chapter, values: Mapping[str, object], prepare: Callable[[], None] | None, path: str) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir(chapter.path.parent)
        if prepare:
            prepare()
        outcome = run(chapter, values)
        Path(path).write_text(json.dumps(outcome.__dict__), encoding="utf-8")
    finally:
        os._exit(0)
