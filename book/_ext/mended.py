"""What the tools do wrong, mended in the built pages.

The bibliography calls itself a list and has no items. The theme's icons come twice: as fonts, which
no page from disk may read, and as a script of 1.5 MB that draws them. Here the one font that is
used goes into its style sheet, where pages from disk find it, and the script goes. MathJax, 2.3 MB,
goes from pages without a formula. All folded cells have one name, which is not the one that is
seen, and all theorems and proofs one id: they are numbered.
"""

from __future__ import annotations

import base64
import re
from itertools import count
from pathlib import Path

LOADED = re.compile(
    r'<link rel="preload" as="font"[^>]*>\s*|<script src="[^"]*fontawesome[^"]*"></script>\s*'
)
FACE = re.compile(r"@font-face\{[^}]*\}")
MATHJAX = re.compile(r'<script [^>]*src="[^"]*/mathjax/[^"]*"[^>]*></script>\s*')
LIST = 'role="list" class="citation-list"'
FOLD = re.compile(r"<summary([^>]*)>(.*?)</summary>", re.DOTALL)
SAID = re.compile(r'<span class="visually-hidden">, fold \d+ of this page</span>')
NAMELESS = ' aria-label="Toggle hidden content"'
CONTENT = re.compile(r'id="(proof|proof-content)"')
USED = "fa-solid-900.woff2"


def mend(site: Path) -> None:
    """Of a built site: every page, the style sheets of the icons, and what they no longer need."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        mended = LOADED.sub("", text).replace(LIST, 'class="citation-list"')
        mended = _numbered(mended)
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


def _numbered(text: str) -> str:
    """The same page with a name of its own for every fold, and an id for every theorem's text."""
    folds, contents = count(1), count(1)

    def fold(found: re.Match) -> str:
        said = f'<span class="visually-hidden">, fold {next(folds)} of this page</span>'
        return f"<summary{found[1].replace(NAMELESS, '')}>{found[2]}{said}</summary>"

    text = FOLD.sub(fold, SAID.sub("", text))  # a page that this build did not write has them
    return CONTENT.sub(lambda found: f'id="{found[1]}-{next(contents)}"', text)


def _style(sheet: Path, font: str) -> None:
    """The face that the theme uses reads its font from the sheet itself; all others go."""
    source = f"src:url(data:font/woff2;base64,{font}) format('woff2')"

    def face(found: re.Match) -> str:
        used = USED in found[0] and "6 Free" in found[0]
        return re.sub(r"src:[^;}]*", source, found[0]) if used else ""

    sheet.write_text(FACE.sub(face, sheet.read_text(encoding="utf-8")), encoding="utf-8")
