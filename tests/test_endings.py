"""However a run ends, its kernel ends with it, also in the midst of a compiled call, and nothing is
left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

# A call into C that keeps the interpreter lock: nothing in the kernel's own Python can act until it
# returns.
HELD = "import ctypes\nctypes.PyDLL(None).sleep(600)"
COMPILED = """\
from numba import njit
@njit
def spin(n):
    total = 0.0
    for i in range(n):
        total += (i * total) % 3
    return total
spin(1)
ready()
spin(10**15)"""


def heard() -> None:
    """Tests under nohup ignore SIGHUP, and so would all that they start."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def start(toy_book, tmp_path):
    """Start a run whose chapter calls this code; returns the command's process and its kernel's
    pid."""
    started, temporary = tmp_path / "started", tmp_path / "temporary"
    temporary.mkdir()
    running = []

    def begin(code: str):
        chapter = toy_book / "book" / "toys" / "halving.md"
        ready = (
            f"def ready():\n    import os\n    open({str(started)!r}, "
            f"'w').write(f'{{os.getpid()}}.')\n"
        )
        code = code if "ready()" in code else f"ready()\n{code}"
        chapter.write_text(
            chapter.read_text().replace("x = factor**steps", f"{ready}{code}\nx = 1")
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
        command = [sys.executable, "-m", "dlnlib.cli", "run", "halving"]
        running.append(
            subprocess.Popen(
                command,
                cwd=toy_book,
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=heard,
            )
        )
        wait_until(lambda: started.is_file() and started.read_text().endswith("."), 120)
        return running[0], psutil.Process(int(started.read_text()[:-1]))

    yield begin
    for process in running:
        process.kill()
        process.wait()
        process.stderr.close()


def wait_until(holds, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def gone(process: psutil.Process) -> bool:
    """Ended; where nobody waits for orphans, its entry in the table of processes may stay."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_asked_to_end_does_so_within_a_second(start, toy_book, tmp_path, number):
    command, kernel = start(COMPILED if number == signal.SIGINT else HELD)
    begin = time.monotonic()
    command.send_signal(number)
    said = command.communicate()[1]
    assert time.monotonic() - begin < (1 if quiet() else 5)
    assert (command.returncode, said) == (
        128 + number,
        "dlnlib: interrupted; nothing was written\n",
    )
    wait_until(lambda: gone(kernel), 1)
    assert left(tmp_path) == [] and not (toy_book / "halving-run").exists()


def quiet() -> bool:
    """Whether this machine has a core to spare, so that seconds mean something."""
    return os.getloadavg()[0] < (os.cpu_count() or 1)


@pytest.mark.parametrize("code", [HELD, COMPILED], ids=["lock held", "compiled loop"])
def test_a_run_that_is_killed_takes_its_kernel_with_it(start, toy_book, tmp_path, code):
    command, kernel = start(code)
    command.kill()
    wait_until(lambda: gone(kernel), 5)
    wait_until(lambda: left(tmp_path) == [], 5)
    assert not (toy_book / "halving-run").exists()


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process that its parent is gone"
)
def test_a_kernel_ends_with_its_keeper(start, tmp_path):
    command, kernel = start(HELD)
    kernel.parent().kill()
    wait_until(lambda: gone(kernel), 5)
    assert command.wait(30) == 1
    assert command.stderr.read() == "dlnlib: chapter halving: the kernel ended (Kernel died)\n"
    assert left(tmp_path) == []
