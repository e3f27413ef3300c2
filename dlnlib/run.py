"""Running one chapter: notebook, page and verdicts appear together or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from dlnlib import page
from dlnlib.execute import ChapterFailed, execute, no_room
from dlnlib.ledger import gather
from dlnlib.notebooks import Chapter, checked, find_book, sound
from dlnlib.publish import place, publish

__all__ = ["ChapterFailed", "execute", "run"]


def run(chapter: Chapter, given: Mapping[str, object], out: str | Path) -> list[dict]:
    """Run a chapter and write CHAPTER.ipynb, CHAPTER.html and verdicts.json into `out`; returns the verdicts.

    Raises a BadInput before any kernel starts when the input, the chapter or the place is wrong, the chapter's own
    named error when it raises one, ChapterFailed otherwise; in each case nothing is written.
    """
    import nbformat

    values = checked(chapter, given)
    sound(chapter)
    book = chapter.book or find_book()
    page.settings(book)
    out = place(out, names := (f"{chapter.name}.ipynb", f"{chapter.name}.html", "verdicts.json"))
    notebook = execute(chapter, values)
    verdicts = gather(notebook, chapter.name)
    texts = nbformat.writes(notebook), _page(chapter, notebook, book), json.dumps(verdicts, indent=1, allow_nan=False)
    publish({name: text.rstrip("\n") + "\n" for name, text in zip(names, texts, strict=True)}, out)
    return verdicts


def _page(chapter: Chapter, notebook, book: Path) -> str:
    """The chapter's page; Sphinx wraps whatever happens to it, a full disk too."""
    try:
        return page.render(notebook, chapter.title, book)
    except Exception as err:
        cause = err
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise ChapterFailed(f"chapter {chapter.name}: no page can be made of it: {err}") from err
        raise no_room(cause) from err
