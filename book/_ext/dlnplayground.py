"""Sphinx extension: `{playground} NAME` puts a playground on a page, `{claim-score}` the ledger's
score.

A playground is `book/_static/playground/NAME.js`; what stands in the directive is shown where
scripts do not run. Scripts go to the pages that ask for them, and to no other.
"""

from __future__ import annotations

import html
from collections import Counter
from pathlib import Path

from dlnbook import all_entries
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

SHARED = ("flow", "layers", "ui", "points")  # in this order, before the playgrounds themselves
STATIC = Path(__file__).resolve().parent.parent / "_static"


def names() -> list[str]:
    """The playgrounds that there are."""
    found = {path.stem for path in (STATIC / "playground").glob("*.js")}
    return sorted(found - set(SHARED))


class Playground(SphinxDirective):
    """`{playground} NAME`; with `:play:` it begins by itself, unless the reader wants no motion."""

    required_arguments = 1
    has_content = True
    option_spec = {"play": directives.flag}

    def run(self):
        name = self.arguments[0]
        if name not in names():
            raise self.error(f"playground {name!r} is not one of {', '.join(names())}")
        shown = getattr(self.env, "dln_playgrounds", {})
        shown.setdefault(self.env.docname, []).append(name)
        self.env.dln_playgrounds = shown
        play = ' data-play="yes"' if "play" in self.options else ""
        before = f'<div class="dln-playground" data-name="{html.escape(name)}"{play}>'
        still = nodes.container(classes=["dln-still"])
        self.state.nested_parse(self.content, self.content_offset, still)
        return [_raw(before), still, _raw("</div>")]


class ScoreNode(nodes.General, nodes.Element):
    """Stands where the score goes until every chapter has been read."""


class ClaimScore(SphinxDirective):
    """`{claim-score}`: how many claims have which verdict."""

    def run(self):
        self.env.dln_scores = getattr(self.env, "dln_scores", set()) | {self.env.docname}
        return [ScoreNode()]


def score(entries: list[dict]) -> str:
    """The score as HTML: verdicts by status, claims, checks, failed controls, and data sets."""
    statuses = Counter(entry["status"] for entry in entries)
    checks = [check for entry in entries for check in entry["checks"]]
    controls = [c for c in checks if c["kind"] == "control" and c["holds"]]
    facts = [(statuses["reproduced"], f"of {len(entries)} verdicts reproduced")]
    facts += [(count, status) for status, count in statuses.most_common() if status != "reproduced"]
    facts += [
        (len({entry["id"] for entry in entries}), "claims"),
        (len(checks), "comparisons of numbers"),
        (len(controls), "controls failed, as told"),
    ]
    cells = "".join(f"<div><dt>{words}</dt><dd>{count:,}</dd></div>" for count, words in facts)
    return f'<dl class="dln-score">{cells}</dl>'


def fill_score(app, doctree, docname) -> None:
    for node in list(doctree.findall(ScoreNode)):
        node.replace_self(_raw(score(all_entries(app.env))))


def add_scripts(app, pagename, templatename, context, doctree) -> None:
    shown = getattr(app.env, "dln_playgrounds", {}).get(pagename)
    if not shown:
        return
    app.add_css_file("playground/playground.css")
    for name in dict.fromkeys((*SHARED, *shown)):
        app.add_js_file(f"playground/{name}.js", loading_method="defer")


def forget(app, env, docname) -> None:
    getattr(env, "dln_playgrounds", {}).pop(docname, None)


def outdated(app, env, added, changed, removed):
    """The score always: it does not show in its page's own text."""
    return [doc for doc in getattr(env, "dln_scores", ()) if doc in env.found_docs]


def _raw(text: str) -> nodes.raw:
    return nodes.raw("", text, format="html")


def setup(app):
    app.add_node(ScoreNode)
    app.add_directive("playground", Playground)
    app.add_directive("claim-score", ClaimScore)
    app.connect("env-purge-doc", forget)
    app.connect("env-get-outdated", outdated)
    app.connect("doctree-resolved", fill_score)
    app.connect("html-page-context", add_scripts, priority=800)  # before dlnbook looks at scripts
    return {"parallel_read_safe": False, "parallel_write_safe": True}
