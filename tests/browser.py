"""Pages in a headless browser, where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from bs4 import BeautifulSoup


def rendered(file: Path, profile: Path) -> str:
    """The page as a headless browser shows it, scripts run, with the network switched off."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium on this machine: the rendering of mathematics is not checked")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --virtual-time-budget=20000 --dump-dom"
    flags += " --proxy-server=127.0.0.1:9"  # nothing listens there
    command = [browser, *flags.split(), f"--user-data-dir={profile}", file.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout


def shows_its_mathematics(site: Path, folder: Path) -> None:
    """Every formula of every chapter with a verdict is typeset, without an error."""
    entries = json.loads((site / "claims.json").read_text())
    for name in sorted({entry["chapter"] for entry in entries if entry["checks"]}):
        page = next(site.glob(f"book/*/{name}.html"))
        written = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select(".math")
        soup = BeautifulSoup(rendered(page, folder / name), "html.parser")
        assert len(soup.find_all("mjx-container")) >= len(written) > 0, name
        assert not soup.select("[data-mjx-error], mjx-merror"), name
