"""Chapters as notebooks: find and list them, read their parameters and claims, check what a user gives them."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dlnlib.claims import nearest, registry
from dlnlib.errors import BadParameter, UnknownChapter
from dlnlib.parameters import Parameter, check, check_relations, read

__all__ = ["Chapter", "chapter", "chapters", "checked", "convert", "find_book", "parse"]

@dataclass(frozen=True)
class Chapter:
    """A page of the book that can be run; `name` is its file name without the ending.

    `requires` are relations between parameters, such as "2 * rank < width".
    """

    name: str
    path: Path
    title: str
    parameters: tuple[Parameter, ...]
    claims: tuple[str, ...]
    requires: tuple[str, ...] = ()


def find_book(start: Path | None = None) -> Path:
    """The directory with `_toc.yml`: from `start` (default: the working directory) upwards, else the checkout that
    this package was imported from. Raises UnknownChapter when there is none."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parent.parent):
        if (folder / "_toc.yml").is_file() and (folder / "book").is_dir():
            return folder
    raise UnknownChapter(f"no book (a folder with _toc.yml and book/) in {here} or above; run this inside the book")


def chapters(root: Path | None = None) -> list[Chapter]:
    """The chapters in the order of the table of contents: every page that has code."""
    import yaml

    root = root or find_book()
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    paths = [root / f"{name}.md" for name in _files(toc)]
    return [parse(path) for path in paths if path.is_file() and "```{code-cell}" in path.read_text(encoding="utf-8")]


def _files(toc) -> list[str]:
    if isinstance(toc, list):
        return [name for item in toc for name in _files(item)]
    if not isinstance(toc, dict):
        return []
    own = [toc["file"]] if "file" in toc else []
    return own + [name for key in ("parts", "chapters", "sections") for name in _files(toc.get(key))]


def chapter(name: str, root: Path | None = None) -> Chapter:
    """The chapter of this name; raises UnknownChapter, naming the closest one."""
    known = {entry.name: entry for entry in chapters(root)}
    if name not in known:
        raise UnknownChapter(f"no chapter {name!r} in the book{nearest(name, known)}")
    return known[name]


def convert(path: Path):
    """The MyST text notebook at `path` as a notebook, in memory."""
    import jupytext

    notebook = jupytext.reads(path.read_text(encoding="utf-8"), fmt="md:myst")
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return notebook


def parse(path: Path) -> Chapter:
    """Title, parameters and claims of the chapter at `path`, read from its text and never by running it."""
    notebook = convert(path)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading = re.search(r"^# +(.+)$", prose, flags=re.MULTILINE)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [cell.source for cell in code if "parameters" in cell.metadata.get("tags", [])]
    front = notebook.metadata
    parameters = read("\n".join(tagged), front, path.name)
    requires = tuple(front.get("requires") or ())
    claims = tuple(dict.fromkeys(name for cell in code for name in _claims(cell.source)))
    return Chapter(path.stem, path, heading.group(1) if heading else path.stem, parameters, claims, requires)


def _claims(source: str) -> list[str]:
    """The registered claim ids that a cell's code names."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:  # a cell magic
        return []
    return [
        n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str) and n.value in registry()
    ]


def checked(chapter: Chapter, given: Mapping[str, object]) -> dict[str, object]:
    """The given values, converted to the types of the chapter's defaults and within their ranges.

    Texts (from a command line) are read as the default's type. Data sets must load; a file's path is made absolute.
    Raises BadParameter for a name the chapter does not have (naming the closest), a wrong type, a value out of range
    or a relation between parameters that fails, and BadData for data that cannot be used.
    """
    if not chapter.parameters:
        raise BadParameter(f"chapter {chapter.name} has no parameters cell, so it cannot be run with parameters")
    known = {parameter.name: parameter for parameter in chapter.parameters}
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        raise BadParameter(f"chapter {chapter.name} has no parameter {unknown!r}{nearest(unknown, known)}")
    values = {name: check(known[name], value) for name, value in given.items()}
    defaults = {name: parameter.default for name, parameter in known.items()}
    check_relations(chapter.requires, {**defaults, **values})
    return values
