"""Files that appear whole or not at all, alone or together, wherever a user wants them."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dlnlib.errors import BadOutput, shortened

__all__ = ["UNFINISHED", "place", "publish", "write_whole"]

UNFINISHED = ".unfinished"  # how names end of what is not yet whole


def place(given: str | Path, names: Iterable[str]) -> Path:
    """`given` as an absolute path, if files of these names can be written there: it is tried, and
    nothing is left.

    Raises BadOutput, in one line, when they cannot.
    """
    out = _absolute(given)
    with _told(out), _staging(out) as folder:
        (folder / "trial").write_bytes(b"trial")
        folders = [name for name in names if os.path.isdir(out / name)]
        if folders:
            raise BadOutput(f"output {out}: {folders[0]} in it is a folder; give another directory")
    return out


def publish(files: Mapping[str, str], out: Path) -> None:
    """Write these files into `out`: all of them, or none; what they replace comes back when that
    fails.

    They are written on the same device first, inside `out` or, when it is new, beside it, and then
    renamed.
    """
    with _told(out), _staging(out) as folder:
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        if os.path.isdir(out):
            _exchange(list(files), folder, out)
        else:
            umask = os.umask(0)
            os.umask(umask)
            folder.chmod(0o777 & ~umask)
            os.rename(folder, out)


def _exchange(names: list[str], folder: Path, out: Path) -> None:
    before = folder / "before"
    before.mkdir()
    try:
        for name in names:
            if os.path.lexists(out / name):
                os.replace(out / name, before / name)
            os.replace(folder / name, out / name)
    except BaseException:
        for name in names:
            if not (folder / name).exists():
                (out / name).unlink(missing_ok=True)
            if os.path.lexists(before / name):
                os.replace(before / name, out / name)
        raise


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A new folder on the device of `out`; afterwards it is gone, and so are parents of `out` made
    for nothing."""
    if os.path.exists(out) and not os.path.isdir(out):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    missing = [parent for parent in out.parents if not os.path.exists(parent)]
    made, folder = [], None
    try:
        for parent in reversed(missing):
            parent.mkdir()
            made.append(parent)
        folder = Path(
            tempfile.mkdtemp(prefix=".dlnlib-", dir=out if os.path.isdir(out) else out.parent)
        )
        if not os.path.isdir(out):
            os.rename(folder, out)  # a name that cannot be had is known before the run
            os.rename(out, folder)
        yield folder
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(out):
            for parent in reversed(made):
                parent.rmdir()


def _absolute(given: str | Path) -> Path:
    if not str(given) or "\0" in str(given):
        raise BadOutput(f"output {str(given)!r}: the name of a directory is needed")
    try:
        return Path(given).expanduser().resolve()
    except (OSError, RuntimeError) as err:  # no working folder, no such ~user, a circle of links
        why = getattr(err, "strerror", None) or err
        raise BadOutput(
            f"output {shortened(str(given), 200)}: {why}; give another directory"
        ) from err


@contextmanager
def _told(out: Path) -> Iterator[None]:
    """Whatever the system refuses, in one line."""
    try:
        yield
    except OSError as err:
        found = next((folder for folder in (out, *out.parents) if os.path.lexists(folder)), out)
        why = (
            f"{found} is a file" if os.path.isfile(found) else f"cannot be written ({err.strerror})"
        )
        raise BadOutput(
            f"output {shortened(str(out), 200)}: {why}; give another directory"
        ) from err


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a file beside `path`, and put it in place when it is on the disk.

    Whatever happens, and whenever, a reader finds the old file or the new one, whole.
    """
    temporary = path.with_name(f".{path.name}{UNFINISHED}")
    try:
        write(temporary)
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as err:
        temporary.unlink(missing_ok=True)
        raise BadOutput(
            f"{shortened(str(path), 200)} cannot be written ({err.strerror}); make room, or give "
            "another place"
        ) from err


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
