"""The directory of a sweep: one whole file a run, one lock, and the tables made from the files.

sweep.json                 chapter, code, names of the grid
runs/NAME.json             one result each, written whole: temporary file, fsync, rename
table.csv, table.parquet   a row a check
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dlnlib.book.publish import UNFINISHED, write_whole
from dlnlib.errors import BadData, BadOutput, shortened

__all__ = ["Store"]


class Store:
    """The results of a sweep in the directory `folder`."""

    def __init__(self, folder: Path):
        self.folder, self.runs = folder, folder / "runs"

    @contextmanager
    def held(self) -> Iterator[None]:
        """The directory, for one sweep at a time; raises BadOutput when another is at work or
        nothing can be written."""
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            lock = open(self.folder / ".lock", "a+", encoding="utf-8")
        except OSError as err:
            raise self._closed(err) from err
        with lock:
            try:
                _take(lock, self.folder)
                self._swept()
            except OSError as err:
                raise self._closed(err) from err
            yield

    def _closed(self, err: OSError) -> BadOutput:
        return BadOutput(
            f"output {shortened(str(self.folder), 200)}: cannot be written ({err.strerror}); give "
            "another directory"
        )

    def _swept(self) -> None:
        """Remove what a killed sweep left half-written, and try to write."""
        trial = self.runs / f".trial{UNFINISHED}"
        trial.write_bytes(b"trial")
        for folder in (self.folder, self.runs):
            for rest in folder.glob(f".*{UNFINISHED}"):
                rest.unlink()

    def about(self) -> dict:
        """What `sweep.json` says; empty when there is none. Raises BadData when it is no such
        file."""
        path = self.folder / "sweep.json"
        if not path.exists():
            return {}
        found = _read(path)
        texts = ("chapter", "title", "code", "library", "version")
        if not (
            isinstance(found, dict)
            and all(isinstance(found.get(key), str) for key in texts)
            and isinstance(found.get("names"), list)
            and all(isinstance(name, str) for name in found["names"])
        ):
            raise BadData(f"{path}: not written by a sweep; give another directory")
        return found

    def describe(self, about: Mapping[str, object]) -> None:
        """Write `sweep.json`."""
        self._json(self.folder / "sweep.json", about)

    def add(self, name: str, result: Mapping[str, object]) -> None:
        """Keep the result of a run: from now on it is finished."""
        self._json(self.runs / f"{name}.json", result)

    def names(self) -> set[str]:
        """The names of all finished runs."""
        return {path.stem for path in self.runs.glob("[!.]*.json")}

    def results(self) -> Iterator[dict]:
        """The results of the finished runs in the order of their names; a file that is no result is
        passed over."""
        for path in sorted(self.runs.glob("[!.]*.json")):
            if (result := self.result(path.stem)) is not None:
                yield result

    def result(self, name: str) -> dict | None:
        """The result of that name; nothing when it is not there, or not one."""
        found = _read(self.runs / f"{name}.json")
        whole = isinstance(found, dict) and found.get("run") == name and "status" in found
        return found if whole and isinstance(found.get("verdicts"), list) else None

    def _json(self, path: Path, content: Mapping[str, object]) -> None:
        text = json.dumps(content, allow_nan=False)
        write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _take(lock, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        lock.seek(0)
        who = lock.read(20).strip()
        words = f" (process {who})" if who.isdigit() else ""
        raise BadOutput(
            f"output {shortened(str(folder), 200)}: another sweep is at work there{words}; wait "
            "for it, or give another directory"
        ) from err
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
