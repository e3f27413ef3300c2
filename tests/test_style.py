"""Cells of chapters are laid out like the library, at 88 columns; docstrings reach the library's
page unharmed."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import dlnapi
import pytest
from conftest import ROOT
from docutils.core import publish_doctree
from docutils.nodes import system_message

from dlnlib.book.chapters import chapters, convert

COLUMNS = "88"
PACKAGES = ("data", "networks", "losses", "measure", "dynamics", "theory", "verdict", "sweeps")


def cells(folder: Path, sources: dict[str, str]) -> list[str]:
    """What ruff says of these cells: those it would lay out otherwise, and lines that are too
    long."""
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source.rstrip("\n") + "\n", encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    layout = [*ruff, "format", "--isolated", "--check", "--line-length", COLUMNS, str(folder)]
    length = [
        *ruff,
        "check",
        "--isolated",
        "--select",
        "E501",
        "--line-length",
        COLUMNS,
        "--output-format",
        "concise",
    ]
    said = [
        subprocess.run(c, capture_output=True, text=True).stdout
        for c in (layout, [*length, str(folder)])
    ]
    return [
        line for text in said for line in text.splitlines() if " --> " in line or "E501" in line
    ]


def test_cells_of_chapters_are_laid_out(tmp_path):
    sources = {}
    for chapter in chapters(ROOT):
        for i, cell in enumerate(convert(chapter.path).cells):
            if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
                sources[f"{chapter.name}-{i}"] = cell.source
    assert len(sources) > 300
    assert cells(tmp_path, sources) == []


@pytest.mark.parametrize("source", ["x = {'a':1}", f"# {'word ' * 20}"])
def test_a_cell_that_is_not_laid_out_is_named(tmp_path, source):
    assert "planted" in cells(tmp_path, {"planted": source})[0]


def warnings(text: str) -> list[str]:
    """What docutils finds wrong with a text."""
    tree = publish_doctree(text, settings_overrides={"report_level": 1, "warning_stream": False})
    return [message.astext() for message in tree.findall(system_message)]


def public(package: str):
    """The public functions and classes of a package, and the methods of the latter."""
    module = importlib.import_module(f"dlnlib.{package}")
    for name in module.__all__:
        found = getattr(module, name)
        yield name, found
        if isinstance(found, type):
            yield from (
                (f"{name}.{k}", getattr(found, k)) for k in vars(found) if not k.startswith("_")
            )


@pytest.mark.parametrize("package", PACKAGES)
def test_every_docstring_of_a_public_name_is_there_and_can_be_set(package):
    for name, found in public(package):
        if not callable(found):
            continue
        said = inspect.getdoc(found)  # a method may inherit what it says
        assert said, name
        lines = dlnapi.laid_out(said.splitlines())
        assert warnings("\n".join(lines)) == [], name


def test_what_is_laid_out_in_columns_stays_so_and_signs_mean_themselves():
    assert dlnapi.laid_out(["|w| of W_k (*runs, d), see `flow`"]) == [
        r"\|w\| of W\_k (\*runs, d), see ``flow``",
        "",
    ]
    assert dlnapi.laid_out(["", "steps     how many"])[:2] == ["::", ""]
    assert warnings("*runs, |w| and W_") != []
