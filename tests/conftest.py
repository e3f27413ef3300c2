"""Shared by all tests: what nbval compares, and a small book of one toy chapter."""

from __future__ import annotations

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dlnlib.verdict.ledger import gather
from dlnlib.verdict.verdict import MIME

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import numbers_within as numbers  # noqa: E402

# After the chapters, the files of minutes; many small ones are left for the end, so that no process
# waits for another.
LONG = ("test_site.py", "test_tables.py", "test_browser.py", "test_isolation.py", "test_cli.py")


def pytest_collection_modifyitems(items):
    items.sort(
        key=lambda item: 0 if item.path.suffix == ".ipynb" else 1 if item.path.name in LONG else 2
    )


def pytest_collectstart(collector):
    """nbval compares the text of verdicts; tables, pictures and printed lines are for readers."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += (
            "text/html",
            MIME,
            "image/png",
            "image/svg+xml",
            "stderr",
            "stdout",
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """After a cell of a reference notebook has run, its measured numbers are compared with those
    recorded beside it."""
    result = yield
    outputs = getattr(item, "test_outputs", None)
    if outputs and "nbval-check-output" in item.cell.metadata.get("tags", []):
        entries = gather({"cells": [{"outputs": outputs}]})
        recorded = json.loads(
            Path(item.parent.path).with_suffix(".json").read_text(encoding="utf-8")
        )
        lines = numbers.moved(recorded[item.cell.id], numbers.record(entries))
        if lines:
            pytest.fail("measured numbers moved:\n" + "\n".join(lines), pytrace=False)
    return result


def make_toy_book(folder: Path) -> Path:
    """A book of one fast chapter, with the real book's settings and extensions."""
    shutil.copytree(ROOT / "tests" / "toy", folder)
    for name in ("_config.yml", "requirements.txt"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("_ext", "_static"):
        shutil.copytree(
            ROOT / "book" / name,
            folder / "book" / name,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    shutil.copy(ROOT / "book" / "references.bib", folder / "book")
    return folder


class Tags(HTMLParser):
    """The tags of an HTML page in their order, closing ones as `/name`, and its style sheets: no
    tree is needed."""

    def __init__(self, page: str):
        super().__init__()
        self.all: list[tuple[str, dict[str, str]]] = []
        self.styles: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.all.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag):
        self.all.append((f"/{tag}", {}))

    def handle_data(self, data):
        if self.all and self.all[-1][0] == "style":
            self.styles.append(data)


def external(tags: Tags) -> list[str]:
    """Whatever an HTML page would fetch from the network when opened: scripts, styles, fonts,
    pictures, frames."""
    found = [attributes["src"] for _, attributes in tags.all if "src" in attributes]
    found += [
        attributes["href"] for tag, attributes in tags.all if tag == "link" and "href" in attributes
    ]
    styles = tags.styles + [
        attributes["style"] for _, attributes in tags.all if "style" in attributes
    ]
    found += [address for style in styles for address in fetched_by_css(style)]
    return [address for address in found if re.match(r"(https?:)?//", address)]


def fetched_by_css(style: str) -> list[str]:
    """The addresses in `url(...)` and `@import` of a stylesheet, comments left out."""
    style = re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL)
    return re.findall(r"""(?:url\(|@import)\s*["']?([^"')\s;]+)""", style)


@pytest.fixture
def toy_book(tmp_path) -> Path:
    """A fresh copy of the toy book."""
    return make_toy_book(tmp_path / "toy")
