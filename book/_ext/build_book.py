"""Builds the book: chapters are executed side by side into the cache that Sphinx then reads;
warnings are errors.

python book/_ext/build_book.py [ROOT] [--jobs N]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from dlnbook import cache_path, read
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn

from dlnlib.book.chapters import Chapter, chapters
from dlnlib.book.execute import TIMEOUT, ChapterFailed, execute_notebook
from dlnlib.book.page import settings
from dlnlib.errors import DlnError


def run(chapter: Chapter, root: Path):
    """Execute one chapter: the notebook, the seconds it took, and None or where and why it
    failed."""
    start = time.perf_counter()
    limit = settings(root).get("execute", {}).get("timeout", TIMEOUT)
    notebook, error = None, None
    try:
        notebook = execute_notebook(read(chapter.path, root), {}, chapter.name, limit)
    except (ChapterFailed, DlnError) as err:  # with the traceback of the cell, for the author
        error = f"{type(err).__name__}: {err}\n{err.__cause__ or ''}"
    return notebook, time.perf_counter() - start, error


def execute(root: Path, build: Path, jobs: int) -> bool:
    """Run every chapter that the cache does not hold; a failing one is reported and the others'
    results are kept."""
    cache = get_cache(str(cache_path(root, build)))
    todo = [chapter for chapter in chapters(root) if not cached(cache, read(chapter.path, root))]
    failed = []
    # threads: each waits for a kernel, which is a process of its own
    pool = ThreadPoolExecutor(jobs)
    running = {pool.submit(run, chapter, root): chapter for chapter in todo}
    for future in as_completed(running):
        chapter = running[future]
        try:
            notebook, seconds, error = future.result()
        except (
            Exception
        ) as err:  # a defect, or no kernel could start: name the chapter and go on with the others
            seconds, error = 0.0, repr(err)
        if error is None:
            bundle = CacheBundleIn(notebook, str(chapter.path), data={"execution_seconds": seconds})
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
            print(f"{chapter.name}: executed in {seconds:.1f} s", flush=True)
        else:
            failed.append(chapter.name)
            print(f"chapter {chapter.name} FAILED: {error}", file=sys.stderr, flush=True)
    if failed:
        print(f"book not built: {', '.join(failed)} failed", file=sys.stderr)
    return not failed


def cached(cache, notebook) -> bool:
    """Whether the cache holds this notebook's outputs."""
    try:
        cache.match_cache_notebook(notebook)
    except KeyError:
        return False
    return True


def render(root: Path, build: Path) -> int:
    """Sphinx with warnings as errors.

    What an unfinished or failed build has read is thrown away: Sphinx would not read those pages
    again, and so would not repeat their warnings, and a second build would succeed.
    """
    doctrees, marker = build / ".doctrees", build / ".unfinished"
    if marker.exists():
        shutil.rmtree(doctrees, ignore_errors=True)
    marker.touch()
    program = Path(sys.executable).with_name("jupyter-book")
    command = [program, "build", root, "--path-output", build.parent, "-W", "--keep-going", "-q"]
    status = subprocess.run(command, cwd=root).returncode
    if status == 0:
        marker.unlink()
        print(f"The book is in {build / 'html' / 'index.html'}")
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path.cwd())
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        help="chapters run at once (default: all cores)",
    )
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    build = root / "_build"
    build.mkdir(exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        return 0 if execute(root, build, arguments.jobs) and render(root, build) == 0 else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        # without waiting for the chapters that are running: their kernels end with this process
        os._exit(130)


if __name__ == "__main__":
    raise SystemExit(main())
