"""Tables of runs as data in the repository: resumable, filled by several processes, out of date
when the code is."""

from __future__ import annotations

import ast
import csv
import fcntl
import hashlib
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dlnlib.book.chapters import Chapter, convert

__all__ = ["Table", "code", "codes"]

Row = dict[str, str]


def code(chapter: Chapter) -> str:
    """A short hash of what a chapter's code says, whatever its layout, comments and imports.

    Rows of other code are out of date.
    """
    sources = [cell.source for cell in convert(chapter.path).cells if cell.cell_type == "code"]
    trees = map(ast.parse, sources)
    said = [
        ast.unparse(node)
        for tree in trees
        for node in tree.body
        if not isinstance(node, ast.Import | ast.ImportFrom)
    ]
    return hashlib.sha256("\0".join(said).encode()).hexdigest()[:10]


def codes(found: Iterable[Chapter]) -> dict[str, str]:
    """The hash of each chapter's code, by name."""
    return {chapter.name: code(chapter) for chapter in found}


@dataclass(frozen=True)
class Table:
    """Rows in a CSV file, one for each value of `key`; `chapter` and `code` are among the
    columns."""

    path: Path
    columns: tuple[str, ...]
    key: tuple[str, ...]

    def load(self) -> list[Row]:
        """The rows written so far."""
        if not self.path.is_file():
            return []
        with open(self.path, newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def current(self, hashes: Mapping[str, str]) -> list[Row]:
        """The rows of these chapters that belong to their present code."""
        return [row for row in self.load() if hashes.get(row["chapter"]) == row["code"]]

    def add(self, new: Row) -> None:
        """Put one row into the table, in place of an older one with the same key; the file is whole
        at all times."""
        with self._locked():
            others = [row for row in self.load() if self._key(row) != self._key(new)]
            rows = sorted([*others, new], key=self._key)
            temporary = self.path.with_suffix(".tmp")
            with open(temporary, "w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, self.columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
            temporary.replace(self.path)

    def _key(self, row: Row) -> tuple[str, ...]:
        return tuple(row[name] for name in self.key)

    @contextmanager
    def _locked(self):
        with open(self.path.with_suffix(".lock"), "w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield
