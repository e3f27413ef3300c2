"""An executed chapter as one HTML file that needs no other file and no network, mathematics
included."""

from __future__ import annotations

import io
import re
import tempfile
from importlib import metadata
from pathlib import Path

from dlnlib.book.chapters import read_yaml
from dlnlib.errors import BadBook

__all__ = ["mathjax_file", "render", "settings"]

EXTENSIONS = [
    "myst_nb",
    "sphinx_proof",
    "sphinxcontrib.bibtex",
    "sphinx_design",
    "sphinx_togglebutton",
]

STYLE = """
body { max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
body { font: 16px/1.6 sans-serif; color: #222; }
pre { overflow-x: auto; background: #f5f5f5; padding: 0.6rem; font-size: 0.85rem; }
a.headerlink { display: none; }
"""
PLAYGROUND = re.compile(r"^```\{playground\}.*?^```$", re.DOTALL | re.MULTILINE)
BIBLIOGRAPHY = "## References\n\n```{bibliography}\n:filter: docname in docnames\n```"


def mathjax_file() -> Path:
    """The one-file MathJax (the smaller bundles stop on \\boldsymbol) inside the installed, pinned
    package."""
    for file in metadata.files("sphinx-mathjax-offline") or ():
        if file.name == "tex-svg-full.js":
            return Path(file.locate())
    raise FileNotFoundError(
        "tex-svg-full.js is not in sphinx-mathjax-offline; install requirements.txt again"
    )


def render(notebook, title: str, root: Path) -> str:
    """The notebook as a single page: theorems, tables and figures as in the book, links to other
    chapters as text.

    Takes 2 to 3 s: Sphinx renders it with the book's own extensions in a temporary folder.
    """
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        source, built = Path(folder, "source"), Path(folder, "built")
        source.mkdir()
        page = nbformat.from_dict(notebook)
        for cell in page.cells:  # one file has no room for the scripts of a playground
            if cell.cell_type == "markdown":
                cell.source = PLAYGROUND.sub("", cell.source)
        if re.search(
            r"\{cite", "".join(cell.source for cell in page.cells if cell.cell_type == "markdown")
        ):
            page.cells.append(nbformat.v4.new_markdown_cell(BIBLIOGRAPHY))
        nbformat.write(page, source / "index.ipynb")
        _sphinx(source, built, title, root)
        return _inlined(built, root)


def settings(root: Path) -> dict:
    """The book's `_config.yml`; raises BadBook, naming the file and the place, when it cannot be
    used."""
    file = root / "_config.yml"
    book = read_yaml(file)
    parse = book.get("parse")
    extensions = parse.get("myst_enable_extensions") if isinstance(parse, dict) else None
    book["bibtex_bibfiles"] = book.get("bibtex_bibfiles", [])
    for name, found in (
        ("parse: myst_enable_extensions", extensions),
        ("bibtex_bibfiles", book["bibtex_bibfiles"]),
    ):
        if not (isinstance(found, list) and all(isinstance(item, str) for item in found)):
            raise BadBook(f"{file}: a list of texts is needed under `{name}`")
    return book


def _sphinx(source: Path, built: Path, title: str, root: Path) -> None:
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    book = settings(root)
    bibliography = [str(root / name) for name in book["bibtex_bibfiles"]]
    options = {
        "extensions": EXTENSIONS,
        "html_theme": "basic",
        "html_title": title,
        "pygments_style": "friendly",
        "nb_execution_mode": "off",
        "nb_merge_streams": True,
        "myst_enable_extensions": book["parse"]["myst_enable_extensions"],
        "bibtex_bibfiles": bibliography,
        "bibtex_reference_style": "author_year",
    }
    with patch_docutils(), docutils_namespace():
        # Warnings are dropped: references to the other chapters, which are not here, would each
        # give one.
        app = Sphinx(
            source, None, built, built / ".doctrees", "html", options, io.StringIO(), io.StringIO()
        )
        app.build()


def _inlined(built: Path, root: Path) -> str:
    """The built page's body with every stylesheet it uses, MathJax and its settings inside."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup((built / "index.html").read_text(encoding="utf-8"), "html.parser")
    sheets = [
        built / link["href"].partition("?")[0] for link in soup.select("link[rel=stylesheet]")
    ]
    sheets = [
        sheet.read_text(encoding="utf-8")
        for sheet in sheets
        if sheet.is_file() and sheet.name != "basic.css"
    ]
    own = root / "book" / "_static" / "dlnlib.css"
    style = "\n".join([*sheets, own.read_text(encoding="utf-8") if own.is_file() else "", STYLE])
    mathjax = "".join(
        str(script)
        for script in soup.find_all("script")
        if "window.MathJax" in (script.string or "")
    )
    body = soup.select_one("div.body")
    for image in body.find_all("img"):
        image["src"] = _embedded(built, image["src"])
    script = mathjax_file().read_text(encoding="utf-8").replace("</script", "<\\/script")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{soup.title}\n'
        f"<style>\n{style}\n</style>\n{mathjax}\n<script>{script}</script>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _embedded(built: Path, address: str) -> str:
    """A picture's address as a data address, unless it is one already."""
    import base64
    import mimetypes

    file = built / address
    if address.startswith("data:") or not file.is_file():
        return address
    kind = mimetypes.guess_type(file.name)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"
