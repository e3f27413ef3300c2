"""Docstrings of the library as they are written: plain text with formulas, laid out for Sphinx's
autodoc.

The docstrings are read in editors and terminals, so they hold no markup: `|w|`, `(*runs, d)` and
`W_k` mean themselves. Here paragraphs are escaped, names in backticks become code, and lines that
are laid out in columns stay as they are.
"""

from __future__ import annotations

import re
from itertools import groupby

COLUMNS = re.compile(r"\S {2,}\S")
SPECIAL = re.compile(r"([\\*|_`<>])")


def laid_out(lines: list[str]) -> list[str]:
    """The same text as reStructuredText."""
    blocks = [
        list(block) for blank, block in groupby(lines, lambda line: not line.strip()) if not blank
    ]
    return [line for block in blocks for line in (*_block(block), "")]


def _block(lines: list[str]) -> list[str]:
    if any(COLUMNS.search(line) or line.startswith(" ") for line in lines):
        return ["::", "", *(f"   {line}" for line in lines)]
    return [_escaped(line) for line in lines]


def _escaped(line: str) -> str:
    parts = re.split(r"(`[^`]+`)", line)
    return "".join(
        f"`{part}`" if part.startswith("`") else SPECIAL.sub(r"\\\1", part) for part in parts
    )


def process(app, what, name, obj, options, lines) -> None:
    lines[:] = laid_out(lines)


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
