"""What a user's machine may hold, and what changes nothing of a run: settings, modules, kernels,
places."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from dlnlib.book.execute import Workshop

CHAPTER = Path("book", "toys", "halving.md")
COMMAND = [sys.executable, "-P", "-m", "dlnlib.cli"]
BREAK = "raise SystemExit('a stranger')\n"
PRINTS = """\
import os, sys, matplotlib, numpy, dlnlib
assert matplotlib.rcParams["text.usetex"] is False and numpy.ones(1)[0] == 1
assert sys.executable == EXECUTABLE and dlnlib.__file__ == LIBRARY
assert "stranger" not in dir() and os.environ["MPLBACKEND"].endswith("inline")
x = factor**steps"""


def run(*arguments, book, start=(), **environment):
    """The command in a process of its own, with these environment variables changed (None:
    unset)."""
    changed = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    changed = {name: str(value) for name, value in changed.items() if value is not None}
    return subprocess.run(
        [*start, *COMMAND, *arguments], cwd=book, env=changed, capture_output=True, text=True
    )


def test_a_kernel_finds_no_module_through_a_relative_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", ".", str(ROOT), "book/toys"]))
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    workshop = Workshop()
    try:
        found = workshop.environment()
    finally:
        workshop.close()
    assert found["PYTHONPATH"] == str(ROOT) and "PYTHONWARNINGS" not in found
    assert not workshop.folder.exists()


def test_a_hostile_home_changes_nothing(toy_book, tmp_path):
    """Another python3 kernel, settings of Jupyter, IPython and matplotlib, modules beside the
    chapter and here, a narrow locale, an interpreter that stops at warnings: the run is the same.
    """
    home = tmp_path / "home"
    kernel = home / "jupyter" / "kernels" / "python3"
    for folder in (
        kernel,
        home / "ipython" / "profile_default" / "startup",
        home / "matplotlib",
        home / "config",
    ):
        folder.mkdir(parents=True)
    spec = {"argv": ["false"], "display_name": "Another", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    (home / "ipython" / "profile_default" / "startup" / "00.py").write_text("stranger = 1\n")
    (home / "ipython" / "profile_default" / "ipython_config.py").write_text(BREAK)
    (home / "ipython" / "profile_default" / "ipython_kernel_config.py").write_text(BREAK)
    (home / "config" / "jupyter_config.py").write_text(BREAK)
    for folder in (home / "matplotlib", toy_book, toy_book / CHAPTER.parent):
        (folder / "matplotlibrc").write_text("text.usetex: True\n")
        for name in ("numpy", "matplotlib", "torch", "ipykernel", "json", "select"):
            (folder / f"{name}.py").write_text(BREAK)
    (home / "startup.py").write_text(BREAK)
    chapter = toy_book / CHAPTER
    code = PRINTS.replace("EXECUTABLE", repr(sys.executable)).replace(
        "LIBRARY", repr(str(ROOT / "dlnlib" / "__init__.py"))
    )
    chapter.write_text(chapter.read_text().replace("x = factor**steps", code))
    before = sorted(home.rglob("*"))
    done = run(
        *("run", "halving", "-p", "steps=9", "-o", "out"),
        book=toy_book,
        HOME=home,
        JUPYTER_PATH=home / "jupyter",
        JUPYTER_DATA_DIR=home / "jupyter",
        JUPYTER_CONFIG_DIR=home / "config",
        JUPYTER_RUNTIME_DIR="/proc/nowhere",
        IPYTHONDIR=home / "ipython",
        MPLCONFIGDIR=home / "matplotlib",
        MATPLOTLIBRC=home / "matplotlib" / "matplotlibrc",
        MPLBACKEND="tkagg",
        PYTHONSTARTUP=home / "startup.py",
        PYTHONSAFEPATH=None,
        PYTHONIOENCODING="ascii",
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and done.stdout.isascii() and "1 ? 1 ? 1e-12" in done.stdout
    assert [path for path in sorted(home.rglob("*")) if "matplotlib" not in path.parts] == [
        path for path in before if "matplotlib" not in path.parts
    ]


@pytest.mark.parametrize("arguments", [("list",), ("run", "halving", "-p", "steps=1", "-o", "out")])
def test_a_closed_output_hides_no_verdict(toy_book, arguments):
    expected = 0 if arguments[0] == "list" else 1  # refuted
    streams = ">&-" if arguments[0] == "list" else "| true"
    script = f'"$@" {streams}; exit ${{PIPESTATUS[0]}}'
    done = run(*arguments, book=toy_book, start=("bash", "-c", script, "bash"))
    assert done.returncode == expected and done.stderr == "", done.stderr


@pytest.mark.skipif(
    sys.platform != "linux", reason="mount points and networks of one's own are Linux's"
)
def test_a_mount_point_without_a_network(toy_book):
    """The output lies on another device than its parent, and the machine has no network, not even
    its own."""
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-rmn", "true"], capture_output=True).returncode
    ):
        pytest.skip("this machine lets nobody have a mount point of their own")
    (toy_book / "out").mkdir()
    script = 'mount -t tmpfs none out && "$@" && mv out/* kept/ && [ -z "$(ls -A out)" ]'
    (toy_book / "kept").mkdir()
    done = run(
        "run",
        "halving",
        "-o",
        "out",
        book=toy_book,
        start=("unshare", "-rmn", "sh", "-c", script, "sh"),
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (toy_book / "kept").iterdir()) == [
        "halving.html",
        "halving.ipynb",
        "verdicts.json",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="mount points of one's own are Linux's")
@pytest.mark.parametrize(
    ("mount", "arguments", "words"),
    [
        ("mount -t tmpfs -o size=64k none out", ("-o", "out"), "output"),
        ("mount -t tmpfs -o ro none out", ("-o", "out"), "Read-only file system"),
        ("mount -t tmpfs -o ro none out", ("-o", "out/new"), "Read-only file system"),
        ("mount -t tmpfs -o size=64k none temporary", ("-o", "out"), "set TMPDIR"),
    ],
)
def test_a_full_or_locked_disk(toy_book, mount, arguments, words):
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode
    ):
        pytest.skip("this machine lets nobody have a mount point of their own")
    for name in ("out", "temporary"):
        (toy_book / name).mkdir()
    script = f'{mount} && "$@"; status=$?; ls -A out temporary >left; exit $status'
    done = run(
        *("run", "halving", *arguments),
        book=toy_book,
        start=("unshare", "-rm", "sh", "-c", script, "sh"),
        TMPDIR=toy_book / "temporary",
    )
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, (
        done.stderr
    )
    assert (toy_book / "left").read_text().split() == ["out:", "temporary:"]


def test_the_working_folder_is_gone(toy_book, tmp_path):
    (tmp_path / "gone").mkdir()
    script = 'cd gone && rmdir ../gone && exec "$@"'
    arguments = ("run", "halving", "--book", str(toy_book), "-o", str(tmp_path / "out"))
    done = run(*arguments, book=tmp_path, start=("sh", "-c", script, "sh"))
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert (tmp_path / "out" / "halving.html").is_file()
