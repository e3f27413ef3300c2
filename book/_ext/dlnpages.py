"""Sphinx extension: what every page says of itself to search engines and links, and each chapter as
an executed notebook beside its source."""

from __future__ import annotations

import html
from pathlib import Path

import nbformat
from dlnbook import executed
from docutils import nodes

LONGEST = 200  # characters of a description


def description(doctree) -> str:
    """The first paragraph of a page that is a sentence, cut at a word."""
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if len(text.split()) > 6:
            return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " …"
    return ""


def describe(app, pagename, templatename, context, doctree) -> None:
    if doctree is None:
        return
    title = html.escape(app.env.titles[pagename].astext(), quote=True)
    name = app.config.html_title or app.config.project
    facts = {
        "og:type": "article",
        "og:title": title,
        "og:site_name": html.escape(name, quote=True),
        "og:description": html.escape(description(doctree) or f"A page of {name}", quote=True),
    }
    tags = [f'<meta name="description" content="{facts["og:description"]}" />']
    tags += [f'<meta property="{name}" content="{said}" />' for name, said in facts.items()]
    context["metatags"] = "\n".join([context.get("metatags", ""), *tags, ""])


def offer_notebook(app, pagename, templatename, context, doctree) -> None:
    """The executed notebook, which the theme then offers beside the text it was made of."""
    notebook = executed(app, pagename) if doctree is not None else None
    if notebook is None:
        return
    name = f"{pagename}.ipynb"
    path = Path(app.outdir) / "_sources" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    context["ipynb_source"] = name


def setup(app):
    app.connect("html-page-context", describe)
    app.connect("html-page-context", offer_notebook, priority=400)  # before the theme's buttons
    return {"parallel_read_safe": True, "parallel_write_safe": False}
