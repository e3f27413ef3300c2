"""One way of executing a chapter, for `dlnlib run`, the book's build and the references: papermill,
in a kernel that depends on nothing but this Python and this library, and that never outlives the
run."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from dlnlib import errors
from dlnlib.book.chapters import Chapter, convert
from dlnlib.errors import BadOutput, DlnError

__all__ = ["ChapterFailed", "execute", "execute_notebook", "no_room", "plain_environment"]

TIMEOUT = 3600  # seconds a cell may take: a runner's own parameters may be large
START = 120  # seconds a kernel may take to answer: a busy machine needs some
LONGEST_SOCKET = 90  # characters: a socket's path may have 107
KEEPER = Path(__file__).with_name("keeper.py")
# a user's settings that reach a kernel
IGNORED = ("MPLBACKEND", "PYTHONINSPECT", "PYTHONSTARTUP", "PYTHONWARNINGS")


def plain_environment() -> dict[str, str]:
    """The environment of this process, without what would change the result of another."""
    kept = {name: value for name, value in os.environ.items() if name not in IGNORED}
    kept.setdefault("OMP_NUM_THREADS", "1")  # more threads are slower on small tensors
    paths = [path for path in kept.pop("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(path)]
    return kept | ({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})


class ChapterFailed(Exception):
    """A chapter stopped on an error that is not the user's: a defect, with the kernel's own account
    of it."""


def execute(chapter: Chapter, values: Mapping[str, object]):
    """The chapter's notebook, executed with these checked parameters."""
    return execute_notebook(convert(chapter.path), values, chapter.name)


def execute_notebook(notebook, values: Mapping[str, object], name: str, timeout: float = TIMEOUT):
    """The notebook of the chapter of that name, executed; an interrupt kills its kernel at once.

    Raises the library's own error when the chapter raised one, with what was run so far as its
    `notebook`; ChapterFailed for any other.
    """
    workshop = Workshop()
    _stand_somewhere(workshop.folder.parent)
    ended, outcome = threading.Event(), []

    def work():
        from jupyter_core.utils import ensure_event_loop

        loop = ensure_event_loop()  # of this thread; nbclient uses it, and leaves it open
        try:
            outcome.append(_papermill(notebook, values, name, timeout, workshop))
        except BaseException as problem:
            outcome.append(problem)
        loop.close()
        ended.set()

    try:
        # In a thread of its own: an exception in the midst of an event loop would leave the kernel
        # to itself.
        threading.Thread(target=work, daemon=True).start()
        ended.wait()
    finally:
        workshop.close()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _stand_somewhere(folder: Path) -> None:
    """Jupyter asks for the working folder; where it was deleted, another one serves."""
    try:
        os.getcwd()
    except FileNotFoundError:
        os.chdir(folder)


def _papermill(
    notebook, values: Mapping[str, object], name: str, timeout: float, workshop: Workshop
):
    import logging

    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    ended = workshop.folder / "ended.ipynb"
    try:
        done = papermill.execute_notebook(
            notebook,
            str(ended),
            dict(values),
            progress_bar=sys.stderr.isatty() if sys.stderr else False,
            kernel_manager_class=workshop.manager(),
            shutdown_kernel="immediate",
            start_timeout=START,
            execution_timeout=timeout,
        )
    except papermill.exceptions.PapermillExecutionError as err:
        named = _named(name, err.ename, err.evalue, f"code cell {err.exec_count}")
        if isinstance(named, DlnError):
            named.notebook = _up_to_the_error(ended)
        raise named from err
    except CellTimeoutError as err:
        raise ChapterFailed(f"chapter {name}: a cell took more than {timeout:g} s") from err
    except OSError as err:
        raise no_room(err) from err
    except (DeadKernelError, RuntimeError) as err:
        raise ChapterFailed(
            f"chapter {name}: the kernel ended{workshop.last_words() or f' ({err})'}"
        ) from err
    return _tidy(done)


def no_room(err: OSError) -> BadOutput:
    """Nothing can be written where temporary files go."""
    where = tempfile.tempdir or os.environ.get("TMPDIR") or "the temporary folder"
    return BadOutput(f"{where} cannot be written ({err.strerror}); set TMPDIR to another directory")


def _named(name: str, ename: str, evalue: str, where: str) -> Exception:
    """The kernel's error as the library's own class when it is one of them."""
    known = getattr(errors, ename, None) if ename in errors.__all__ else None
    if isinstance(known, type) and issubclass(known, DlnError):
        return known(evalue)
    return ChapterFailed(f"chapter {name} failed in {where}: {ename}: {evalue}")


def _up_to_the_error(path: Path):
    """The notebook as far as it ran: without papermill's own cells about the error, and without the
    traceback."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    own = "papermill-error-cell-tag"
    notebook.cells = [cell for cell in notebook.cells if own not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.output_type != "error"]
    return _tidy(notebook)


def _tidy(notebook):
    """Without papermill's bookkeeping: it holds times and paths of this machine, and empty lists of
    tags.

    What is left is the notebook that was given, as the build's cache must find it again.
    """
    for holder in (notebook, *notebook.cells):
        holder.metadata.pop("papermill", None)
        holder.metadata.pop("execution", None)
        if not holder.metadata.get("tags", True):
            del holder.metadata["tags"]
    return notebook


class Workshop:
    """A temporary folder with all that a kernel writes, and the pipe whose end is the kernel's (see
    `keeper`)."""

    def __init__(self):
        self.held, self._end = None, None
        self._closed, self._lock = False, threading.Lock()
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="dlnlib-"))
            for name in ("work", "tmp"):
                (self.folder / name).mkdir()
            (self.folder / "matplotlibrc").touch()
        except OSError as err:
            raise no_room(err) from err

    def manager(self) -> type:
        """A manager of kernels that are this Python with this library, whatever kernels and
        settings the user has."""
        from jupyter_client import AsyncKernelManager
        from jupyter_client.kernelspec import KernelSpec

        workshop = self
        file = str(self.folder / "kernel.json")

        class Manager(AsyncKernelManager):
            def __init__(self, **settings):
                super().__init__(**settings)
                self.connection_file = file
                # ipc: files, no network, no ports
                self.transport = "ipc" if len(file) < LONGEST_SOCKET else "tcp"

            @property
            def kernel_spec(self):
                return KernelSpec(
                    argv=workshop.command(), display_name="Python 3", language="python"
                )

            async def start_kernel(self, **settings):
                await workshop.start(
                    lambda own: super(Manager, self).start_kernel(**{**settings, **own})
                )
                workshop.started(self.provisioner.pid)

        return Manager

    def command(self) -> list[str]:
        package = str(KEEPER.parent.parent)
        kernel = [
            sys.executable,
            "-P",
            str(KEEPER),
            "serve",
            "{keeper}",
            package,
            "-f",
            "{connection_file}",
        ]
        kernel += ["--log-level=50", "--HistoryManager.enabled=False"]
        return [sys.executable, "-I", "-S", str(KEEPER), "keep", str(self.folder), *kernel]

    def environment(self) -> dict[str, str]:
        """The user's, without what would change a result: other settings of Python, IPython and
        matplotlib."""
        own = {
            # the kernel's debugger prints a warning otherwise
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "MATPLOTLIBRC": str(self.folder / "matplotlibrc"),
            "IPYTHONDIR": str(self.folder / "ipython"),
            "TMPDIR": str(self.folder / "tmp"),
        }
        return plain_environment() | own

    async def start(self, launch) -> None:
        theirs, self.held = os.pipe()
        with open(self.folder / "log", "wb") as log:
            try:
                await launch(
                    dict(
                        stdin=theirs,
                        stdout=log,
                        stderr=log,
                        cwd=str(self.folder / "work"),
                        env=self.environment(),
                    )
                )
            finally:
                os.close(theirs)

    def started(self, group: int) -> None:
        with self._lock:
            self._end = group
            if self._closed:
                self._kill()

    def last_words(self) -> str:
        """What the kernel said last, as the end of a sentence; empty when it said nothing."""
        try:
            lines = (self.folder / "log").read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return ""
        said = [line.strip() for line in lines if line.strip()]
        return f": {said[-1][:200]}" if said else ""

    def close(self) -> None:
        """Kill the kernel, its children and its keeper, and remove the folder."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._kill()
                if self.held is not None:
                    os.close(self.held)
        _remove(self.folder)

    def _kill(self) -> None:
        try:
            if self._end is not None:
                os.killpg(self._end, signal.SIGKILL)
        except ProcessLookupError:
            pass


def _remove(folder: Path) -> None:
    """Remove a folder in which a process that is being killed may still write."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.02)
