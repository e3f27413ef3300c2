"""What the tools do wrong, mended in the built pages.

The bibliography calls itself a list and has no items. The theme's icons come twice: as fonts, which
no page from disk may read, and as a script of 1.5 MB that draws them. Here the one font that is
used goes into its style sheet, where pages from disk find it, and the script goes. MathJax, 2.3 MB,
goes from pages without a formula.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

LOADED = re.compile(
    r'<link rel="preload" as="font"[^>]*>\s*|<script src="[^"]*fontawesome[^"]*"></script>\s*'
)
FACE = re.compile(r"@font-face\{[^}]*\}")
MATHJAX = re.compile(r'<script [^>]*src="[^"]*/mathjax/[^"]*"[^>]*></script>\s*')
LIST = 'role="list" class="citation-list"'
USED = "fa-solid-900.woff2"


def mend(site: Path) -> None:
    """Of a built site: every page, the style sheets of the icons, and what they no longer need."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        mended = LOADED.sub("", text).replace(LIST, 'class="citation-list"')
        if 'class="math' not in text:
            mended = MATHJAX.sub("", mended)
        if mended != text:
            page.write_text(mended, encoding="utf-8")
    for folder in site.glob("_static/vendor/fontawesome/*"):
        font = folder / "webfonts" / USED
        if font.is_file():
            data = base64.b64encode(font.read_bytes()).decode("ascii")
            _style(folder / "css" / "all.min.css", data)
        for file in (*folder.glob("webfonts/*"), *folder.glob("js/*.js")):
            file.unlink()


def _style(sheet: Path, font: str) -> None:
    """The face that the theme uses reads its font from the sheet itself; all others go."""
    source = f"src:url(data:font/woff2;base64,{font}) format('woff2')"

    def face(found: re.Match) -> str:
        used = USED in found[0] and "6 Free" in found[0]
        return re.sub(r"src:[^;}]*", source, found[0]) if used else ""

    sheet.write_text(FACE.sub(face, sheet.read_text(encoding="utf-8")), encoding="utf-8")
