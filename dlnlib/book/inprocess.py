"""Chapters run inside a process that has already loaded the library, each run in a fork of its own.

A kernel costs three seconds before its first line; tables and sweeps of hundreds of runs cannot pay
that. The cells are the chapter's own, in their order, with the parameters put in behind the
parameters cell as papermill does, and the verdicts are those that a notebook would show.
"""

from __future__ import annotations

import ast
import ctypes
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dlnlib import errors
from dlnlib.book.chapters import Chapter, convert, sound
from dlnlib.book.keeper import PR_SET_PDEATHSIG
from dlnlib.errors import BadBook, DlnError
from dlnlib.verdict.verdict import Verdict, unreached

__all__ = ["LIMIT", "Outcome", "Script", "forked", "run", "script", "swap", "warm"]

# seconds of processor time after which a run is ended: what else the machine does is not its fault
LIMIT = 300


@dataclass(frozen=True)
class Script:
    """What of a chapter is executed: its cells, and after which of them the parameters are set."""

    name: str
    claims: tuple[str, ...]
    cells: tuple[str, ...]
    parameters: tuple[int, ...]


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

    @property
    def died(self) -> bool:
        """Whether the process of the run ended before it could say anything: not the run's own
        result."""
        return self.error.startswith("Died:")


def script(chapter: Chapter) -> Script:
    """The chapter as it is executed; raises BadBook where a cell is no Python, or needs a kernel
    (`%`, `!`, `await`)."""
    sound(chapter)
    code = [cell for cell in convert(chapter.path).cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        try:
            compile(cell.source, chapter.path.name, "exec", dont_inherit=True)
        except SyntaxError as err:
            raise BadBook(
                f"{chapter.path.name}, code cell {number}, line {err.lineno}: only a notebook can "
                f"run this; use `dlnlib run {chapter.name}`"
            ) from err
    tagged = [i for i, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", [])]
    return Script(chapter.name, chapter.claims, tuple(c.source for c in code), tuple(tagged))


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


def run(chapter: Chapter | Script, values: Mapping[str, object]) -> Outcome:
    """Run a chapter's cells here and now; never raises for what the chapter does."""
    chapter = script(chapter) if isinstance(chapter, Chapter) else chapter
    start, shown, error = time.process_time(), _Shown(), ""
    names: dict = {"__name__": "__main__"}
    with _Displays(shown):
        try:
            for number, source in enumerate(chapter.cells):
                _execute(source, names, shown)
                if number in chapter.parameters:
                    names.update(values)  # as values: nothing that a user gives is ever code
        except DlnError as problem:
            if isinstance(problem, errors.BadInput):
                error = _one_line(problem)
            else:  # as `dlnlib run` does
                shown.add(*unreached(_missing(chapter, shown), values, problem))
        except BaseException as problem:  # nothing a chapter does may end the table
            error = _one_line(problem)
            if os.environ.get("DLNLIB_TRACEBACK"):
                import traceback

                traceback.print_exc()
    verdicts = [{**entry, "chapter": chapter.name} for entry in shown.verdicts]
    return Outcome(verdicts, shown.texts, error, round(time.process_time() - start, 3))


def _one_line(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {' '.join(str(problem).split())}"


def _missing(chapter: Script, shown: _Shown) -> list[str]:
    known = {entry["id"] for entry in shown.verdicts}
    return [name for name in chapter.claims if name not in known]


class _Shown:
    """The verdicts displayed so far, as they were then; one that is shown twice counts once, as in
    the ledger."""

    def __init__(self):
        self.verdicts: list[dict] = []
        self.texts: list[str] = []
        self._known: set[str] = set()

    def add(self, *values: object) -> None:
        for verdict in values:
            if not isinstance(verdict, Verdict):
                continue
            entry = verdict.to_json()
            said = json.dumps({**entry, "seconds": 0}, sort_keys=True)
            if said not in self._known:
                self._known.add(said)
                self.verdicts.append(entry)
                self.texts.append(str(verdict))


def _execute(source: str, names: dict, shown: _Shown) -> None:
    """Run a cell; the value of a last line that is an expression is shown, as a notebook does."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    if last is not None:
        shown.add(eval(compile(ast.Expression(last.value), "<cell>", "eval"), names))


class _Displays:
    """While it lasts, what a chapter displays or prints goes nowhere else."""

    def __init__(self, shown: _Shown):
        self.shown = shown

    def __enter__(self):
        import builtins

        import IPython.display

        self.module, self.saved, self.out = IPython.display, IPython.display.display, sys.stdout
        IPython.display.display = builtins.display = lambda *values, **_: self.shown.add(*values)
        sys.stdout = open(os.devnull, "w")

    def __exit__(self, *_):
        import builtins

        self.module.display = self.saved
        del builtins.display
        sys.stdout.close()
        sys.stdout = self.out


def forked(
    chapter: Chapter | Script,
    values: Mapping[str, object],
    prepare: Callable[[], None] | None = None,
    *,
    limit: float | None = None,
    asker: int | None = None,
) -> Outcome:
    """`run` in a fork of this process, after `prepare()`; a run that lasts too long or dies is an
    outcome as well.

    `limit` is in seconds of processor time (default: `LIMIT`). When the descriptor `asker` is
    closed at its other end, nobody waits for the outcome: the fork and this process end at once.
    """
    chapter = script(chapter) if isinstance(chapter, Chapter) else chapter
    limit = LIMIT if limit is None else limit
    # what a chapter leaves in its working folder is not kept
    with tempfile.TemporaryDirectory(prefix="dlnlib-") as folder:
        end, own = os.pipe()
        child = os.fork()
        if child == 0:
            _child(chapter, values, prepare, limit, folder, own)
        os.close(own)
        text = _said(child, end, asker)
        _, status, used = os.wait4(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        return Outcome(error=f"TooSlow: more than {limit:g} s", seconds=limit)
    if not text or status:
        seconds = round(used.ru_utime + used.ru_stime, 3)
        return Outcome(error=f"Died: status {status}", seconds=seconds)
    return Outcome(**json.loads(text))


def _said(child: int, end: int, asker: int | None) -> bytes:
    """All that a fork writes to its pipe."""
    parts, watched = [], [end] if asker is None else [end, asker]
    with open(end, "rb", buffering=0) as pipe:
        while True:
            ready, _, _ = select.select(watched, [], [])
            if asker in ready:
                os.kill(child, signal.SIGKILL)
                raise SystemExit(1)
            part = pipe.read(1 << 16)
            if not part:
                return b"".join(parts)
            parts.append(part)


def _child(
    chapter: Script,
    values: Mapping[str, object],
    prepare: Callable[[], None] | None,
    limit: float,
    folder: str,
    pipe: int,
) -> None:
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
        os.chdir(folder)
        if prepare:
            prepare()
        text = json.dumps(run(chapter, values).__dict__)
        with open(pipe, "wb") as stream:
            stream.write(text.encode())
    finally:
        os._exit(0)
