"""Cells of chapters are laid out like the library, at 88 columns; docstrings reach the library's
page unharmed."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from functools import cache
from pathlib import Path

import dlnapi
import pytest
from conftest import ROOT
from docutils.core import publish_doctree
from docutils.nodes import system_message

from dlnlib.book.chapters import chapters, convert

COLUMNS = "88"
CELL = 25  # lines of a cell that the reader sees at once
SHARE = 0.4  # of a chapter's lines, seen at once
FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
PACKAGES = (
    "data",
    "networks",
    "losses",
    "measure",
    "dynamics",
    "theory",
    "hypotheses",
    "verdict",
    "recorder",
    "sweeps",
)


opened = cache(convert)  # each chapter is read once by the tests of its cells


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
        for i, cell in enumerate(opened(chapter.path).cells):
            if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
                sources[f"{chapter.name}-{i}"] = cell.source
    assert len(sources) > 300
    assert cells(tmp_path, sources) == []


def test_parameters_of_chapters_fit_their_lines():
    """Their comments stand below one another, which the formatter would undo."""
    lines = {line for chapter in chapters(ROOT) for line in parameter_lines(chapter.path)}
    assert len(lines) > 100 and [line for line in lines if len(line) > int(COLUMNS)] == []


def parameter_lines(path: Path) -> list[str]:
    tagged = [c for c in opened(path).cells if "parameters" in c.metadata.get("tags", [])]
    return [line for cell in tagged for line in cell.source.splitlines()]


@pytest.mark.parametrize("source", ["x = {'a':1}", f"# {'word ' * 20}"])
def test_a_cell_that_is_not_laid_out_is_named(tmp_path, source):
    assert "planted" in cells(tmp_path, {"planted": source})[0]


def in_sight(path: Path) -> list[str]:
    """What a reader of this chapter meets besides its idea: code too long to be seen at once, or
    folded under no name."""
    code = [cell for cell in opened(path).cells if cell.cell_type == "code"]
    folded = [cell for cell in code if FOLDED & set(cell.metadata.get("tags", []))]
    seen = [len(cell.source.splitlines()) for cell in code if cell not in folded]
    share = sum(seen) / len(path.read_text(encoding="utf-8").splitlines())
    nameless = [
        cell
        for cell in folded
        if not cell.metadata.get("mystnb", {}).get("code_prompt_show", "").strip()
    ]
    return (
        [f"a visible cell of {lines} lines" for lines in seen if lines > CELL]
        + [f"visible code is {share:.0%} of the lines"] * (share > SHARE)
        + ["a folded cell without a name"] * bool(nameless)
    )


def test_a_chapter_shows_its_idea_and_folds_the_rest():
    found = {chapter.name: in_sight(chapter.path) for chapter in chapters(ROOT)}
    assert {name: said for name, said in found.items() if said} == {}


NAMED = """---
mystnb:
  code_prompt_show: "What it holds"
tags: [hide-input]
---"""


@pytest.mark.parametrize(
    ("head", "lines", "prose", "said"),
    [
        ("", 25, 100, []),
        ("", 26, 100, ["a visible cell of 26 lines"]),
        ("", 25, 20, ["visible code is 52% of the lines"]),
        (":tags: [hide-input]", 3, 100, ["a folded cell without a name"]),
        (NAMED, 200, 10, []),
    ],
)
def test_a_chapter_that_shows_too_much_is_told(tmp_path, head, lines, prose, said):
    cell = ["```{code-cell} python", *filter(None, [head]), *["x = 1"] * lines, "```"]
    page = tmp_path / "page.md"
    page.write_text("\n".join(["# Title", *cell, *["word"] * prose]) + "\n", encoding="utf-8")
    assert in_sight(page) == said


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
