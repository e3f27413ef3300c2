"""What makes two runs the same: the chapter's code, the library, the parameters, the data."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import dlnlib
from dlnlib.book.chapters import Chapter
from dlnlib.book.inprocess import Script

__all__ = ["code", "library", "name_of", "parameters"]

# rooms that change no number of a run
BESIDE = ("book", "sweeps", "cli.py", "__init__.pyi", "py.typed")


def code(script: Script) -> str:
    """A hash of what the cells of a chapter say, whatever their layout and comments."""
    said = [ast.unparse(ast.parse(cell)) for cell in script.cells]
    return hashlib.sha256("\0".join([script.name, *said]).encode()).hexdigest()[:16]


@cache
def library() -> str:
    """A hash of all files of the library that a run's numbers depend on."""
    root, found = Path(dlnlib.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*")):
        part = path.relative_to(root)
        if path.suffix in (".py", ".yml") and part.parts[0] not in BESIDE:
            found.update(str(part).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def parameters(chapter: Chapter, values: Mapping[str, object]) -> dict[str, object]:
    """All parameters of a run: its own values, and the defaults of the others."""
    return {p.name: values.get(p.name, p.default) for p in chapter.parameters}


def name_of(chapter: Chapter, hashed: str, values: Mapping[str, object]) -> str:
    """The name of a run's result: a hash of the code, the library, all parameters, and the contents
    of files of data."""
    files = [
        digest
        for parameter in chapter.parameters
        if parameter.data and (digest := _contents(str(values.get(parameter.name, ""))))
    ]
    said = json.dumps([hashed, library(), parameters(chapter, values), files], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:24]


@cache
def _contents(names: str) -> str:
    """A hash of the files that these names of data mean; empty when they mean none."""
    found = []
    for name in names.split(";"):
        path = Path(name.strip().partition("?")[0])
        if path.is_absolute() and path.is_file():
            found.append(hashlib.sha256(path.read_bytes()).hexdigest())
    return " ".join(found)
