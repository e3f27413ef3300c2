"""The real book in a headless browser; in a file of its own, so that it runs beside the other tests
of the site."""

from __future__ import annotations

import json

import pytest
from browser import not_typeset
from conftest import ROOT

SITE = ROOT / "_build" / "html"


def test_browser_shows_the_mathematics_of_the_book(tmp_path):
    """Of every chapter with a verdict."""
    if not (SITE / "claims.json").is_file():
        pytest.skip("the book has not been built here; make book first")
    entries = json.loads((SITE / "claims.json").read_text())
    names = sorted({entry["chapter"] for entry in entries if entry["checks"]})
    assert not_typeset([next(SITE.glob(f"book/*/{name}.html")) for name in names], tmp_path) == []
