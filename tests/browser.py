"""Pages in a headless browser, where there is one."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path

import pytest
from devtools import chromium

# One start of the browser for all pages: each is opened in a frame, which says what it holds when
# MathJax has ended. The frames are hidden: typesetting needs no layout, which takes longer than the
# typesetting.
COUNTS = """<!DOCTYPE html>
<body><script>
(async () => {
  const counts = [];
  for (const page of PAGES) {
    const frame = document.createElement("iframe");
    const loaded = new Promise(done => { frame.onload = done; });
    frame.hidden = true;
    frame.src = page;
    document.body.append(frame);
    await loaded;
    await frame.contentWindow.MathJax?.startup?.promise;
    const count = what => frame.contentDocument.querySelectorAll(what).length;
    counts.push([count("mjx-container"), count("[data-mjx-error], mjx-merror")]);
    frame.remove();
  }
  document.body.textContent = JSON.stringify(counts);
})();
</script></body>
"""


def mathematics(pages: list[Path], folder: Path) -> list[list[int]]:
    """How many formulas a headless browser shows on each page and how many errors, with the network
    switched off."""
    browser = chromium()
    if browser is None:
        pytest.skip("no chromium on this machine: the rendering of mathematics is not checked")
    frames = folder / "frames.html"
    frames.write_text(
        COUNTS.replace("PAGES", json.dumps([page.resolve().as_uri() for page in pages]))
    )
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
        "--disable-background-networking"
    )
    flags += " --disable-component-update --disable-sync --virtual-time-budget=20000 --dump-dom"
    flags += " --proxy-server=127.0.0.1:9"  # nothing listens there
    flags += " --allow-file-access-from-files"  # the frames are read from the page around them
    command = [browser, *flags.split(), f"--user-data-dir={folder / 'profile'}", frames.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300).stdout
    return json.loads(html.unescape(re.search("<body>(.*)</body>", shown, re.DOTALL)[1]))


def not_typeset(pages: list[Path], folder: Path) -> list[str]:
    """The names of those of these pages that show an error or not every formula."""
    counts = mathematics(pages, folder)
    written = [
        len(re.findall(r'class="math[ "]', page.read_text(encoding="utf-8"))) for page in pages
    ]
    return [
        page.name
        for page, number, (typeset, errors) in zip(pages, written, counts, strict=True)
        if errors or not typeset >= number > 0
    ]
