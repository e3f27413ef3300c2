"""Chapters as notebooks: find and list them, read their parameters and claims, check what a user
gives them."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from dlnlib.book.parameters import Parameter, check, check_relations, read, relations
from dlnlib.errors import BadBook, BadParameter, UnknownChapter, shortened
from dlnlib.verdict.claims import nearest, registry

__all__ = [
    "Chapter",
    "allowed",
    "chapter",
    "chapters",
    "checked",
    "convert",
    "find_book",
    "pages",
    "parse",
    "read_yaml",
    "sound",
]

# more than any book has: a file that lists more, or nests without end, is no table of contents
PAGES = 10_000


@dataclass(frozen=True)
class Chapter:
    """A page of the book that can be run; `name` is its file name without the ending, `book` the
    book's folder.

    `requires` are relations between parameters, such as "2 * rank < width".
    """

    name: str
    path: Path
    title: str
    parameters: tuple[Parameter, ...]
    claims: tuple[str, ...]
    requires: tuple[str, ...] = ()
    book: Path | None = None


def find_book(folder: str | Path | None = None) -> Path:
    """The book in `folder`; without one, that of the working directory, of the checkout, or of the
    installed wheel.

    Folders above are not looked at: running a book runs its code, and they may belong to somebody
    else. Raises UnknownChapter when there is no book.
    """
    if folder is not None:
        if not _is_book(Path(folder)):
            raise UnknownChapter(f"no book in {folder}: a folder with _toc.yml and book/ is needed")
        return Path(os.path.abspath(folder))
    for place in (_working_folder, _checkout, _installed):
        found = place()
        if found is not None and _is_book(found):
            return found
    raise UnknownChapter(
        "no book (a folder with _toc.yml and book/) here or beside dlnlib; name one with --book DIR"
    )


def _is_book(folder: Path) -> bool:
    try:
        return (folder / "_toc.yml").is_file() and (folder / "book").is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _working_folder() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it was deleted
        return None


def _checkout() -> Path:
    return Path(__file__).resolve().parent.parent.parent


def _installed() -> Path | None:
    """The book that came with the wheel, in share/dlnlib of the environment."""
    try:
        files = metadata.files("dlnlib") or []
    except metadata.PackageNotFoundError:
        return None
    return next(
        (Path(file.locate()).resolve().parent for file in files if file.name == "_toc.yml"), None
    )


def chapters(root: Path | None = None) -> list[Chapter]:
    """The chapters in the order of the table of contents: every page that has code."""
    root = root or find_book()
    return [parse(path, root) for path in pages(root)]


def pages(root: Path) -> list[Path]:
    """The files of the chapters, none of them read as a notebook yet; raises BadBook."""
    paths = [
        root / f"{name}.md" for name in _files(read_yaml(root / "_toc.yml"), root / "_toc.yml")
    ]
    return [path for path in paths if os.path.isfile(path) and "```{code-cell}" in read_text(path)]


def read_text(file: Path) -> str:
    """The text of a file of the book; raises BadBook when there is none."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        line = err.object[: err.start].count(b"\n") + 1
        raise BadBook(f"{file}, line {line}: not UTF-8 ({err.reason}); save it as UTF-8") from err
    except OSError as err:
        raise BadBook(f"{file} cannot be read ({err.strerror})") from err


def read_yaml(file: Path) -> dict:
    """The mapping that a YAML file of the book holds; raises BadBook, naming the file and the
    line."""
    import yaml

    try:
        found = yaml.safe_load(read_text(file))
    except (yaml.YAMLError, ValueError) as err:  # ValueError: a date that is none
        raise BadBook(f"{file}{_yaml_place(err)}") from err
    except RecursionError as err:
        raise BadBook(f"{file}: nested too deeply") from err
    if not isinstance(found, dict):
        kind = "nothing" if found is None else f"a {type(found).__name__}"
        raise BadBook(
            f"{file} holds {kind}, names with values are needed, such as `root: book/intro`"
        )
    return found


def _yaml_place(err: Exception) -> str:
    mark, problem = getattr(err, "problem_mark", None), getattr(err, "problem", None) or str(err)
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{where}: {' '.join(problem.split())}"


def _files(toc: Mapping, file: Path) -> list[str]:
    """The pages that a table of contents lists, in its order."""
    found, waiting = [], [toc]
    for _ in range(PAGES):
        if not waiting:
            return found
        item = waiting.pop()
        if isinstance(item, list):
            waiting += reversed(item)
        elif isinstance(item, Mapping):
            if not isinstance(item.get("file", ""), str):
                raise BadBook(f"{file}: `file: {item['file']}` found, the name of a page is needed")
            found += [item["file"]] if "file" in item else []
            waiting += [item[key] for key in ("sections", "chapters", "parts") if key in item]
        elif item is not None:
            raise BadBook(
                f"{file}: {str(item)[:50]!r} found where pages are listed, `file: NAME` is needed"
            )
    raise BadBook(f"{file}: more than {PAGES} entries, or one that holds itself")


def chapter(name: str, root: Path | None = None) -> Chapter:
    """The chapter of this name, whatever is wrong with others; raises UnknownChapter, naming the
    closest one."""
    root = root or find_book()
    known = {path.stem: path for path in pages(root)}
    if name not in known:
        raise UnknownChapter(
            f"no chapter {shortened(name)!r} in the book{nearest(name[:60], known)}"
        )
    return parse(known[name], root)


def convert(path: Path):
    """The MyST text notebook at `path` as a notebook, in memory."""
    import jupytext
    import yaml

    text = read_text(path)
    try:
        notebook = jupytext.reads(text, fmt="md:myst")
    except (yaml.YAMLError, RecursionError) as err:
        raise BadBook(f"{path}, front matter{_yaml_place(err)}") from err
    except Exception as err:  # whatever else a parser of a malformed file may raise
        raise BadBook(f"{path} is no MyST notebook: {' '.join(str(err).split())[:200]}") from err
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "language": "python",
        "display_name": "Python 3",
    }
    return notebook


def parse(path: Path, book: Path | None = None) -> Chapter:
    """Title, parameters and claims of the chapter at `path`, read from its text and never by
    running it."""
    notebook = convert(path)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading = re.search(r"^# +(.+)$", prose, flags=re.MULTILINE)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [cell.source for cell in code if "parameters" in cell.metadata.get("tags", [])]
    front = notebook.metadata
    parameters = read("\n".join(tagged), front, path.name)
    requires = relations(front.get("requires"), parameters, path.name)
    claims = tuple(dict.fromkeys(name for cell in code for name in _claims(cell.source)))
    return Chapter(
        path.stem,
        path,
        heading.group(1) if heading else path.stem,
        parameters,
        claims,
        requires,
        book,
    )


def sound(chapter: Chapter) -> None:
    """Raises BadBook, naming cell and line, when a code cell is no Python: known before any kernel
    starts."""
    code = [cell.source for cell in convert(chapter.path).cells if cell.cell_type == "code"]
    for number, source in enumerate(code, start=1):
        if any(line.lstrip().startswith(("%", "!")) for line in source.splitlines()):  # for IPython
            continue
        try:
            compile(
                source,
                chapter.path.name,
                "exec",
                flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
                dont_inherit=True,
            )
        except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
            place = (
                f", line {err.lineno}: {err.msg}" if isinstance(err, SyntaxError) else f": {err}"
            )
            raise BadBook(f"{chapter.path.name}, code cell {number}{place}") from err


def _claims(source: str) -> list[str]:
    """The registered claim ids that a cell's code names."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (
        SyntaxError,
        ValueError,
        RecursionError,
        MemoryError,
    ):  # a cell magic; `sound` names what is wrong
        return []
    return [
        n.value
        for n in nodes
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and n.value in registry()
    ]


def checked(chapter: Chapter, given: Mapping[str, object]) -> dict[str, object]:
    """The given values, converted to the types of the chapter's defaults, within their ranges and
    in the relations that the chapter requires.

    Raises as `allowed`, and BadParameter for a relation between parameters that fails.
    """
    values = allowed(chapter, given)
    defaults = {parameter.name: parameter.default for parameter in chapter.parameters}
    check_relations(chapter.requires, {**defaults, **values})
    return values


def allowed(chapter: Chapter, given: Mapping[str, object]) -> dict[str, object]:
    """The given values, converted to the types of the chapter's defaults and within their ranges.

    Texts (from a command line) are read as the default's type. Data sets must load; a file's path
    is made absolute. Raises BadParameter for a name the chapter does not have (naming the closest),
    a wrong type or a value out of range, and BadData for data that cannot be used.
    """
    if not chapter.parameters:
        raise BadParameter(
            f"chapter {chapter.name} has no parameters cell, so it cannot be run with parameters"
        )
    known = {parameter.name: parameter for parameter in chapter.parameters}
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        closest = nearest(unknown[:60], known)
        raise BadParameter(
            f"chapter {chapter.name} has no parameter {shortened(unknown)!r}{closest}"
        )
    return {name: check(known[name], value) for name, value in given.items()}
