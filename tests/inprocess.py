"""Chapters run inside a process that has already loaded the library, each run in a fork of its own.

A kernel costs three seconds before its first line; a steady table of hundreds of runs cannot pay
that. The cells are the chapter's own, in their order, with the parameters put in behind the
parameters cell as papermill does.
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
from dlnlib.book.chapters import Chapter, convert
from dlnlib.errors import DlnError

__all__ = ["Outcome", "forked", "run", "swap", "warm"]

# seconds of processor time after which a run is ended: what else the machine does is not its fault
LIMIT = 300


@dataclass(frozen=True)
class Outcome:
    """How one run ended: verdicts as data with their texts, and the error that stopped it, if one
    did."""

    verdicts: list[dict] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    error: str = ""
    seconds: float = 0.0  # of processor time

    @property
    def status(self) -> str:
        """`no verdict`, `crash`, `stopped` (an error of the library's own), or the worst status of
        the verdicts."""
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

    import dlnlib.book.plots
    import dlnlib.dynamics
    import dlnlib.theory  # noqa: F401


def swap(original: Callable, other: Callable) -> None:
    """Put `other` in place of a function of the library wherever a loaded module holds it."""
    loaded = [m for key, m in sys.modules.items() if key.partition(".")[0] == "dlnlib"]
    for module in loaded:
        for name in [n for n, value in vars(module).items() if value is original]:
            setattr(module, name, other)


def run(chapter: Chapter, values: Mapping[str, object]) -> Outcome:
    """Run a chapter's cells here and now; never raises for what the chapter does."""
    from dlnlib.verdict.verdict import Verdict, unreached

    shown: list = []
    names: dict = {"__name__": "__main__"}
    start, error = time.process_time(), ""
    with _Displays(shown):
        try:
            for source in _cells(chapter, values):
                _execute(source, names, shown)
        except DlnError as problem:
            if isinstance(problem, errors.BadInput):
                error = f"{type(problem).__name__}: {' '.join(str(problem).split())}"
            else:  # as `dlnlib run` does
                known = {verdict.claim.id for verdict in shown if isinstance(verdict, Verdict)}
                shown += unreached(
                    [name for name in chapter.claims if name not in known], values, problem
                )
        except (
            BaseException
        ) as problem:  # also SystemExit: nothing a chapter does may end the table
            error = f"{type(problem).__name__}: {' '.join(str(problem).split())}"
            if os.environ.get("DLNLIB_TRACEBACK"):
                import traceback

                traceback.print_exc()
    verdicts = [value for value in shown if isinstance(value, Verdict)]
    verdicts = list({id(value): value for value in verdicts}.values())
    data = [verdict.to_json() for verdict in verdicts]
    return Outcome(data, [str(v) for v in verdicts], error, round(time.process_time() - start, 1))


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


def forked(
    chapter: Chapter, values: Mapping[str, object], prepare: Callable[[], None] | None = None
) -> Outcome:
    """`run` in a fork of this process, after `prepare()`; a run that lasts too long or dies is an
    outcome as well."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
        child = os.fork()
        if child == 0:
            _child(chapter, values, prepare, file.name)
        _, status, used = os.wait4(child, 0)
        text = file.read()
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        return Outcome(error=f"TooSlow: more than {LIMIT} s", seconds=LIMIT)
    if not text:
        return Outcome(
            error=f"Died: status {status}", seconds=round(used.ru_utime + used.ru_stime, 1)
        )
    return Outcome(**json.loads(text))


def _child(
    chapter: Chapter, values: Mapping[str, object], prepare: Callable[[], None] | None, path: str
) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 5))
        os.chdir(chapter.path.parent)
        if prepare:
            prepare()
        outcome = run(chapter, values)
        Path(path).write_text(json.dumps(outcome.__dict__), encoding="utf-8")
    finally:
        os._exit(0)
