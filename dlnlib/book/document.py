"""One HTML file that needs no other: no script, nothing fetched, light and dark."""

from __future__ import annotations

from html import escape

__all__ = ["document"]

STYLE = """
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; }
table { border-collapse: collapse; font-size: .9rem; margin: 1rem 0; display: block; }
table { overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0; }
tr { border-bottom: 1px solid #ddd; }
th { font-weight: 600; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; background: #f5f5f5; padding: .6rem; font-size: .85rem; }
img { max-width: 100%; background: #fff; }
.yes { color: #1b6e3c; } .no { color: #8a4b08; }
@media (prefers-color-scheme: dark) {
  body { background: #181818; color: #ddd; } pre { background: #262626; }
  tr { border-color: #444; } .yes { color: #7fd1a0; } .no { color: #e0a868; }
}
"""


def document(title: str, body: str) -> str:
    """The whole file; the title is text, the body HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
