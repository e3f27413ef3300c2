"""Running one chapter: notebook, page and verdicts appear together or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from dlnlib.book.chapters import Chapter, checked, find_book, sound
from dlnlib.book.execute import ChapterFailed, execute, no_room
from dlnlib.book.page import render, settings
from dlnlib.book.parameters import described
from dlnlib.book.publish import place, publish
from dlnlib.errors import BadInput, DlnError
from dlnlib.verdict.ledger import gather
from dlnlib.verdict.verdict import unreached

__all__ = ["run"]


def run(chapter: Chapter, given: Mapping[str, object], out: str | Path) -> list[dict]:
    """Run a chapter and write CHAPTER.ipynb, CHAPTER.html and verdicts.json into `out`; returns the
    verdicts.

    A chapter that stops for want of a result (data that are not separable, an integrator that
    stalls) still has all its verdicts: those that it had not reached are undecided, or have a
    hypothesis that is not met, for that reason. Where the given values name data, the page and each
    verdict (its field `data`) say what they are and what was done to them. Raises a BadInput when
    the input, the chapter or the place is wrong, ChapterFailed when the chapter has a defect; in
    each case nothing is written.
    """
    import nbformat

    values = checked(chapter, given)
    sound(chapter)
    book = chapter.book or find_book()
    settings(book)
    out = place(out, names := (f"{chapter.name}.ipynb", f"{chapter.name}.html", "verdicts.json"))
    told = described(chapter.parameters, values)
    notebook = _executed(chapter, values)
    verdicts = [
        entry | ({"data": told} if told else {}) for entry in gather(notebook, chapter.name)
    ]
    _tell(notebook, told)
    texts = (
        nbformat.writes(notebook),
        _page(chapter, notebook, book),
        json.dumps(verdicts, indent=1, allow_nan=False),
    )
    publish({name: text.rstrip("\n") + "\n" for name, text in zip(names, texts, strict=True)}, out)
    return verdicts


def _executed(chapter: Chapter, values: Mapping[str, object]):
    """The executed notebook; where a result was missing, the claims that were not reached get their
    verdicts too."""
    try:
        return execute(chapter, values)
    except BadInput:
        raise
    except DlnError as err:
        notebook = getattr(err, "notebook", None)
        if notebook is None:  # raised before a cell was run
            raise
        shown = {entry["id"] for entry in gather(notebook, chapter.name)}
        notebook.cells += _unreached(
            [name for name in chapter.claims if name not in shown], values, err
        )
        return notebook


def _tell(notebook, told: Mapping[str, str]) -> None:
    """Put what the data are behind the parameters, where a reader of the page looks for it."""
    from nbformat.v4 import new_markdown_cell

    if not told:
        return
    # every sign means itself: names of columns are a stranger's
    lines = [
        f"**{name}:** " + re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", sentence)
        for name, sentence in told.items()
    ]
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    places = [i for i, found in enumerate(tags) if {"parameters", "injected-parameters"} & {*found}]
    notebook.cells.insert(places[-1] + 1, new_markdown_cell("\n\n".join(lines)))


def _unreached(claims: list[str], values: Mapping[str, object], err: DlnError) -> list:
    """A cell of verdicts on these claims: undecided, or a hypothesis that is not met, with the
    reason."""
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

    verdicts = unreached(claims, values, err)
    outputs = [new_output("display_data", data=verdict._repr_mimebundle_()) for verdict in verdicts]
    words = new_markdown_cell(f"**The chapter stopped here:** {err} What was not decided:")
    return [words, new_code_cell("", outputs=outputs)]


def _page(chapter: Chapter, notebook, book: Path) -> str:
    """The chapter's page; Sphinx wraps whatever happens to it, a full disk too."""
    try:
        return render(notebook, chapter.title, book)
    except Exception as err:
        cause = err
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise ChapterFailed(
                f"chapter {chapter.name}: no page can be made of it: {err}"
            ) from err
        raise no_room(cause) from err
