"""The real book in a headless browser; in a file of its own, so that it runs beside the other tests of the site."""

from __future__ import annotations

import pytest
from browser import shows_its_mathematics
from conftest import ROOT

SITE = ROOT / "_build" / "html"


def test_browser_shows_the_mathematics_of_the_book(tmp_path):
    if not (SITE / "claims.json").is_file():
        pytest.skip("the book has not been built here; make book first")
    shows_its_mathematics(SITE, tmp_path)
