"""Sphinx extension of the book: the ledger and claims.json, the execution cache's key, MathJax from
disk.

Verdicts are read from each chapter's executed notebook when Sphinx reads the chapter, and kept in
Sphinx's environment; so the ledger is complete in whatever order chapters ran, and whether or not
they came from the cache.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import ledgerpage
import mended
import yaml
from docutils import nodes
from jupyter_cache import get_cache
from myst_nb.core.read import read_myst_markdown_notebook
from myst_parser.config.main import MdParserConfig
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import dlnlib
from dlnlib.book.page import mathjax_file
from dlnlib.errors import DlnError
from dlnlib.verdict import ledger
from dlnlib.verdict.claims import registry
from dlnlib.verdict.instrument import LINKS

logger = logging.getLogger("dlnbook")
MATHJAX = "mathjax/tex-svg-full.js"


def cache_key(root: Path) -> str:
    """A hash of all that a chapter's numbers depend on besides its own text: library, data, tables,
    requirements."""
    package = Path(dlnlib.__file__).parent
    files = [p for p in package.rglob("*") if p.suffix in {".py", ".yml"}]
    files += [p for p in (root / "book" / "data").rglob("*") if p.is_file()]
    files += [p for p in (root / "requirements.txt", root / "tests" / "steady.csv") if p.is_file()]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def cache_path(root: Path, build: Path) -> Path:
    """Where the executed chapters of the present key are cached; caches of other keys are
    deleted."""
    path = build / ".jupyter_cache" / cache_key(root)
    for old in path.parent.glob("*"):
        if old != path:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    return path


def read(path: Path, root: Path):
    """The notebook exactly as Sphinx reads it: the execution cache finds outputs by the code it
    holds."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    markdown = MdParserConfig(enable_extensions=set(config["parse"]["myst_enable_extensions"]))
    return read_myst_markdown_notebook(path.read_text(encoding="utf-8"), config=markdown)


class LedgerNode(nodes.General, nodes.Element):
    """Stands where the ledger's table goes until every chapter has been read."""


class ClaimLedger(SphinxDirective):
    """`{claim-ledger}`: the table of all claims and verdicts."""

    def run(self):
        return [LedgerNode()]


def set_paths(app, config) -> None:
    build = Path(app.outdir).parent
    config.nb_execution_cache_path = str(cache_path(Path(app.srcdir), build))
    config.mathjax_path = MATHJAX


def outdated(app, env, added, changed, removed):
    """Every page again when the library changed, and the ledger always: neither shows in a page's
    own text."""
    key = Path(app.config.nb_execution_cache_path).name
    stale, env.dln_key = getattr(env, "dln_key", key) != key, key
    return (
        sorted(env.found_docs)
        if stale
        else [doc for doc in env.found_docs if doc.endswith("ledger")]
    )


def executed(app, docname):
    """The page's notebook with its outputs, or None where it has no code; raises KeyError where the
    cache has none.

    From the cache: the copy that MyST-NB leaves in jupyter_execute has no outputs when they came
    from there.
    """
    source = Path(app.env.doc2path(docname))
    if "```{code-cell}" not in source.read_text(encoding="utf-8"):
        return None
    cache = get_cache(app.config.nb_execution_cache_path)
    return cache.merge_match_into_notebook(read(source, Path(app.srcdir)))[1]


def read_verdicts(app, doctree) -> None:
    env = app.env
    store = env.dln_verdicts = getattr(env, "dln_verdicts", {})
    store.pop(env.docname, None)
    try:
        notebook = executed(app, env.docname)
        if notebook is None:
            return
        store[env.docname] = ledger.gather(notebook, Path(env.docname).name)
        ledger.complete(store[env.docname])
    except KeyError:
        logger.warning("no outputs in the execution cache", location=env.docname, type="dlnbook")
    except DlnError as err:
        logger.warning("%s", err, location=env.docname, type="dlnbook")


def forget(app, env, docname) -> None:
    getattr(env, "dln_verdicts", {}).pop(docname, None)


def check_homes(app, env):
    """Warn of a claim whose home chapter is in the book and says nothing about it."""
    pages = {Path(doc).name: doc for doc in env.found_docs}
    said = {
        entry["id"] for entries in getattr(env, "dln_verdicts", {}).values() for entry in entries
    }
    for claim in registry().values():
        if claim.chapter in pages and claim.id not in said:
            logger.warning(
                "no verdict on %s", claim.id, location=pages[claim.chapter], type="dlnbook"
            )


def all_entries(env) -> list[dict]:
    """Every verdict, in the order of the registry, and every registered claim without one."""
    return ledger.complete(
        e for entries in getattr(env, "dln_verdicts", {}).values() for e in entries
    )


def fill_ledger(app, doctree, docname) -> None:
    for node in list(doctree.findall(LedgerNode)):
        text = ledgerpage.table(all_entries(app.env), homes(app, docname))
        node.replace_self(nodes.raw("", text, format="html"))


def homes(app, docname) -> dict[str, ledgerpage.Home]:
    """Every page that may hold verdicts, by its chapter's name: title and address from this
    page."""
    found = {}
    for doc in in_order(app.env, app.config.root_doc):
        title = app.env.titles[doc]
        number = app.env.toc_secnumbers.get(doc, {}).get("", ())
        words = f"{'.'.join(map(str, number))}. {title.astext()}" if number else title.astext()
        found[Path(doc).name] = ledgerpage.Home(words, app.builder.get_relative_uri(docname, doc))
    return found


def in_order(env, doc: str) -> list[str]:
    """A page and those below it, as the table of contents has them."""
    below = [name for child in env.toctree_includes.get(doc, ()) for name in in_order(env, child)]
    return [doc, *below]


def link_verdicts(app, doctree, docname) -> None:
    """Every verdict leads to its row of the ledger, to itself, and to the data."""
    book = next((doc for doc in app.env.found_docs if Path(doc).name == "ledger"), None)
    if book is None or app.builder.format != "html":
        return
    page = app.builder.get_relative_uri(docname, book)
    data = app.builder.get_relative_uri(docname, "claims").replace("claims.html", "claims.json")
    for node in doctree.findall(nodes.raw):
        text = node.astext()
        if LINKS in text:
            anchors = re.findall(r'<section class="dln-verdict [^"]*" id="([^"]+)"', text)
            for name in anchors:
                links = ledgerpage.links(name, page, data)
                text = text.replace(LINKS, links, 1)
            node.children = [nodes.Text(text)]


def add_filters(app, pagename, templatename, context, doctree) -> None:
    if Path(pagename).name == "ledger":
        app.add_js_file("ledger.js", loading_method="defer")


def drop_thebe(app, pagename, templatename, context, doctree) -> None:
    """Live code is not offered, and its script would come from the network."""
    scripts = context.get("script_files", [])
    context["script_files"] = [
        s for s in scripts if "thebe" not in f"{s} {getattr(s, 'attributes', '')}".lower()
    ]


def finish(app, exception) -> None:
    if exception or app.builder.format != "html":
        return
    script = Path(app.outdir) / "_static" / MATHJAX
    script.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(mathjax_file(), script)
    text = json.dumps(all_entries(app.env), indent=1, allow_nan=False) + "\n"
    (Path(app.outdir) / "claims.json").write_text(text, encoding="utf-8")
    mended.mend(Path(app.outdir))


def setup(app):
    # verdict tables bring mathematics to pages that have none of their own
    app.set_html_assets_policy("always")
    app.add_node(LedgerNode)
    app.add_directive("claim-ledger", ClaimLedger)
    app.connect("config-inited", set_paths, priority=100)
    app.connect("env-get-outdated", outdated)
    app.connect("env-purge-doc", forget)
    app.connect("doctree-read", read_verdicts)
    app.connect("env-check-consistency", check_homes)
    app.connect("doctree-resolved", fill_ledger)
    app.connect("doctree-resolved", link_verdicts)
    app.connect("html-page-context", add_filters, priority=800)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("build-finished", finish)
    return {"version": dlnlib.__version__, "parallel_read_safe": False, "parallel_write_safe": True}
