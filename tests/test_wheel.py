"""The wheel works anywhere: the command and the chapters travel with the library."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SOURCES = ("dlnlib", "book", "pyproject.toml", "README.md", "LICENSE", "_toc.yml", "_config.yml")


def pip(*arguments: str | Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "-q",
        "--disable-pip-version-check",
        *map(str, arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A prefix with the wheel in it, and nothing of this checkout; what it depends on is that of
    this Python."""
    source, prefix = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("prefix")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", source / "wheels", source)
    pip(
        "install",
        "--no-deps",
        "--no-index",
        "--ignore-installed",
        "--prefix",
        prefix,
        *(source / "wheels").glob("*.whl"),
    )
    return prefix


def run(prefix: Path, folder: Path, *arguments: str):
    """The command from the wheel, in a folder without a book."""
    packages = next(prefix.glob("lib/python*/site-packages"))
    command = [sys.executable, "-P", "-m", "dlnlib.cli", *arguments]
    env = {**os.environ, "PYTHONPATH": str(packages)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def test_the_wheel_brings_every_chapter(installed, tmp_path):
    listed = set(re.findall(r"^([a-z-]+): ", run(installed, tmp_path, "list").stdout, re.M))
    assert listed == {
        path.stem for path in (ROOT / "book").glob("*/*.md") if "{code-cell}" in path.read_text()
    }


def test_a_chapter_runs_from_the_wheel(installed, tmp_path):
    done = run(installed, tmp_path, "run", "convolution", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "convolution.html",
        "convolution.ipynb",
        "verdicts.json",
    }


def test_data_are_checked_from_the_wheel(installed, tmp_path):
    done = run(installed, tmp_path, "check", "six-points", "--html", "page.html")
    assert done.returncode == 0 and done.stderr == ""
    assert "-> dlnlib run max-margin --data six-points" in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
