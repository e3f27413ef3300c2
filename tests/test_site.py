"""The built site: complete, offline, rendered, and never built where it should not be."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import mended
import pytest
from browser import not_typeset
from bs4 import BeautifulSoup
from conftest import ROOT, Tags, external, fetched_by_css, make_toy_book
from dlnbook import cache_key, cache_path

from dlnlib.verdict.claims import registry
from dlnlib.verdict.ledger import load

REAL_SITE = ROOT / "_build" / "html"
CHAPTER = Path("book", "toys", "halving.md")


def build(book: Path):
    """`make book` in that folder, without the installation."""
    command = [sys.executable, str(book / "book" / "_ext" / "build_book.py"), str(book)]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.run(command, cwd=book, capture_output=True, text=True, env=env)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """The toy book, built once."""
    book = make_toy_book(tmp_path_factory.mktemp("site") / "toy")
    done = build(book)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "halving: executed" in done.stdout
    return book


@pytest.fixture
def copy(toy, tmp_path) -> Path:
    """A copy of the built toy book, to be broken."""
    return Path(shutil.copytree(toy, tmp_path / "toy"))


@pytest.fixture(params=["toy", "book"])
def site(request, toy) -> Path:
    """The toy site, and the real one where `make book` has been run before the tests."""
    if request.param == "book" and not (REAL_SITE / "claims.json").is_file():
        pytest.skip("the book has not been built here; make book first")
    return REAL_SITE if request.param == "book" else toy / "_build" / "html"


def pages(site: Path) -> list[Path]:
    return sorted(page for page in site.rglob("*.html") if "_static" not in page.parts)


@cache
def tags(page: Path) -> Tags:
    """Each page is read once for all tests."""
    return Tags(page.read_text(encoding="utf-8"))


@cache
def ids(page: Path) -> list[str]:
    return [attributes["id"] for _, attributes in tags(page).all if "id" in attributes]


def without_alt(page: Path) -> list[str]:
    """The images within a page's main part whose alt text is missing or only a word or two."""
    found, inside = [], False
    for tag, attributes in tags(page).all:
        inside = tag == "main" or (inside and tag != "/main")
        if inside and tag == "img" and len(attributes.get("alt", "").split()) < 4:
            found.append(str(attributes)[:200])
    return found


def test_claims_json_shows_every_registered_claim(site):
    entries = load(site / "claims.json")
    assert list(dict.fromkeys(entry["id"] for entry in entries)) == list(registry())
    for entry in entries:
        keys = {
            "id",
            "title",
            "source",
            "provenance",
            "chapter",
            "status",
            "checks",
            "parameters",
            "seconds",
        }
        assert keys <= set(entry)
        assert not entry["checks"] or entry["status"] in {
            "reproduced",
            "refuted",
            "undecided",
            "hypotheses not met",
        }


def test_toy_verdict_reached_the_ledger(toy):
    entry = next(e for e in load(toy / "_build" / "html") if e["id"] == "JT18-eq1")
    assert (
        entry["status"] == "reproduced"
        and entry["chapter"] == "halving"
        and len(entry["checks"]) == 3
    )


def test_ledger_page_links_to_verdicts_that_exist(site):
    ledger = BeautifulSoup(
        (site / "book" / "ledger.html").read_text(encoding="utf-8"), "html.parser"
    )
    table = ledger.select_one("table.dln-ledger")
    entries = json.loads((site / "claims.json").read_text())
    assert len(table.select("tr[data-status]")) == len(entries)
    links = [a["href"] for a in table.select("tr[data-status] a")]
    assert len(links) == sum(bool(e["checks"]) for e in entries)
    for link in links:
        page, _, anchor = link.partition("#")
        assert ids(site / "book" / page).count(anchor) == 1, link


def test_verdicts_lead_to_their_rows_and_to_the_data(site):
    """And back: chapters, ledger and data are linked in every direction."""
    rows = ids(site / "book" / "ledger.html")
    for page in pages(site):
        sections = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select(
            "section.dln-verdict"
        )
        for section in sections:
            row, own, data = (a["href"] for a in section.select(".dln-from a"))
            assert rows.count(row.partition("#")[2]) == 1
            assert own == f"#{section['id']}"
            assert (page.parent / data).resolve() == site / "claims.json"
    assert len(rows) == len(set(rows))


def test_a_chapter_can_be_taken_away_as_text_and_as_an_executed_notebook(toy):
    sources = toy / "_build" / "html" / "_sources" / "book" / "toys"
    notebook = json.loads((sources / "halving.ipynb").read_text())
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", [])]
    assert any("JT18-eq1" in str(output) for output in outputs)
    assert (sources / "halving.md").read_text() == (toy / CHAPTER).read_text()
    page = (toy / "_build" / "html" / CHAPTER.with_suffix(".html")).read_text()
    assert "halving.ipynb" in page and "halving.md" in page


def test_folds_have_names_of_their_own_and_no_id_comes_twice(site):
    for page in pages(site):
        if page.name == "search.html":  # the theme's, with two boxes of one id
            continue
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        names = [fold.get("aria-label") or fold.get_text() for fold in soup.select("main summary")]
        assert len(names) == len(set(names)), page
        assert len(ids(page)) == len(set(ids(page))), page


def test_what_is_mended_is_left_alone(copy):
    site = copy / "_build" / "html"
    page = site / CHAPTER.with_suffix(".html")
    written = page.read_text()
    assert "fold 1 of this page" in written and 'id="proof-content-1"' in written
    mended.mend(site)
    assert page.read_text() == written


def test_mathjax_is_loaded_where_there_is_a_formula_and_nowhere_else(site):
    loaded = {page: "tex-svg-full.js" in page.read_text(encoding="utf-8") for page in pages(site)}
    formulas = {page: 'class="math' in page.read_text(encoding="utf-8") for page in pages(site)}
    assert loaded == formulas and True in loaded.values() and False in loaded.values()


def test_every_page_says_what_it_is_and_the_icons_come_once(site):
    for page in pages(site):
        text = page.read_text(encoding="utf-8")
        if page.parent.name == "book" or page.parent.parent.name == "book":
            assert re.search('<meta name="description" content="[^"]{20}', text), page
            assert 'property="og:title"' in text and 'rel="icon"' in text, page
        assert '<html lang="en"' in text or page.name == "index.html"
        assert "fontawesome" not in "".join(re.findall(r"<script[^>]*>", text)), page
    assert not list(site.glob("_static/vendor/fontawesome/*/webfonts/*"))


def test_no_page_fetches_from_the_network(site):
    assert len(pages(site)) >= 4
    for page in pages(site):
        assert external(tags(page)) == [], page
        scripts = [a["src"] for tag, a in tags(page).all if tag == "script" and "src" in a]
        assert all((page.parent / name.partition("?")[0]).is_file() for name in scripts), page
    for sheet in site.rglob("*.css"):
        assert [
            u
            for u in fetched_by_css(sheet.read_text(encoding="utf-8"))
            if re.match(r"(https?:)?//", u)
        ] == [], sheet


def test_the_network_check_can_say_no():
    for page in (
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/a.css">',
        "<style>@import 'https://fonts.example/a.css';</style>",
        "<img src=http://a.example/x.png>",
        '<p style="background: url(https://a.example/x.png)">',
    ):
        assert external(Tags(page)), page
    assert (
        external(Tags('<a href="https://doi.example/x">a link is not a fetch</a><img src="x.png">'))
        == []
    )


def test_every_picture_has_alt_text(site):
    for page in pages(site):
        assert without_alt(page) == [], page


def test_the_alt_text_check_can_say_no(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        '<img><main><p><img alt="of four words here"><img alt="a picture"></p><img></main><img>'
    )
    assert without_alt(page) == ["{'alt': 'a picture'}", "{}"]


DOLLAR = re.compile(r'\$\s*<span class="math|class="math[^>]*>[^<]*</span>\s*\$')


def test_no_dollar_is_left_beside_mathematics(site):
    """Displayed mathematics without an empty line before it is read as inline, between two dollars
    that stay."""
    assert DOLLAR.search(
        'at all times, $<span class="math notranslate">x</span>$'
    ) and not DOLLAR.search("<p>5 $</p>")
    assert not [
        page.name
        for page in site.glob("book/**/*.html")
        if DOLLAR.search(page.read_text(encoding="utf-8"))
    ]


def test_theorems_are_numbered_by_chapter(toy):
    page = (toy / "_build" / "html" / "book" / "toys" / "halving.html").read_text()
    assert "Theorem 1.1" in BeautifulSoup(page, "html.parser").get_text()
    assert "Theorem 1.1" in (toy / "_build" / "html" / "book" / "intro.html").read_text()


def test_what_a_second_build_runs_again(copy):
    before = json.loads((copy / "_build" / "html" / "claims.json").read_text())
    done = build(copy)
    assert done.returncode == 0 and "executed" not in done.stdout
    assert json.loads((copy / "_build" / "html" / "claims.json").read_text()) == before
    edit(copy / CHAPTER, '"<=", 0.01)', '"<=", 1e-9)')  # the chapter
    done = build(copy)
    assert done.returncode == 0 and "halving: executed" in done.stdout
    entry = next(e for e in load(copy / "_build" / "html") if e["id"] == "JT18-eq1")
    assert entry["status"] == "refuted"
    assert "refuted" in (copy / "_build" / "html" / "book" / "ledger.html").read_text()
    old = cache_path(copy, copy / "_build")
    (copy / "requirements.txt").write_text("numpy==0\n")  # what chapters stand on
    done = build(copy)
    assert "halving: executed" in done.stdout
    assert not old.exists() and cache_path(copy, copy / "_build").exists()


def test_an_unfinished_build_is_read_again_from_the_cache(copy):
    before = json.loads((copy / "_build" / "html" / "claims.json").read_text())
    (copy / "_build" / ".unfinished").touch()
    for folder in ("html", "jupyter_execute"):
        shutil.rmtree(copy / "_build" / folder)
    done = build(copy)
    assert done.returncode == 0 and "executed" not in done.stdout
    assert json.loads((copy / "_build" / "html" / "claims.json").read_text()) == before
    assert not (copy / "_build" / ".unfinished").exists()


def test_cache_key_sees_requirements_and_data(toy_book):
    keys = {cache_key(toy_book)}
    (toy_book / "requirements.txt").write_text("numpy==0\n")
    keys.add(cache_key(toy_book))
    (toy_book / "book" / "data").mkdir()
    (toy_book / "book" / "data" / "a.csv").write_text("1,1\n")
    keys.add(cache_key(toy_book))
    assert len(keys) == 3


def test_failing_chapter_is_named_and_others_are_kept(copy):
    other = copy / "book" / "toys" / "other.md"
    shutil.copy(copy / CHAPTER, other)
    edit(other, "thm-halving", "thm-other")
    edit(other, "verdict = dl.Verdict(", "raise RuntimeError('planted')\nverdict = dl.Verdict(")
    edit(copy / CHAPTER, "steps = 8", "steps = 9")
    (copy / "_toc.yml").write_text(
        (copy / "_toc.yml").read_text() + "      - file: book/toys/other\n"
    )
    for attempt in range(2):
        done = build(copy)
        assert done.returncode == 1
        assert (
            "chapter other FAILED" in done.stderr
            and "failed in code cell 3: RuntimeError: planted" in done.stderr
        )
        assert ("halving: executed" in done.stdout) == (attempt == 0)


def test_warnings_fail_the_build_every_time(copy):
    """A verdict on a claim that is not registered, a home chapter that says nothing, a reference to
    nowhere."""
    unregistered = 'Verdict(dl.verdict.Claim("X-1", "t", "s", "read"),'
    edit(copy / CHAPTER, 'Verdict("JT18-eq1",', unregistered)
    (copy / CHAPTER).rename(copy / "book" / "toys" / "convolution.md")
    edit(copy / "_toc.yml", "toys/halving", "toys/convolution")
    for _ in range(2):
        done = build(copy)
        assert done.returncode != 0
        assert "X-1" in done.stderr and "no verdict on R20-structured" in done.stderr
    edit(copy / "_toc.yml", "toys/convolution", "toys/halving")
    (copy / "book" / "toys" / "convolution.md").rename(copy / CHAPTER)
    edit(copy / CHAPTER, unregistered, 'Verdict("JT18-eq1",')
    assert build(copy).returncode == 0
    edit(copy / CHAPTER, "The verdict", "See {prf:ref}`thm-nowhere`. The verdict")
    done = build(copy)
    assert done.returncode != 0 and "thm-nowhere" in done.stderr


def test_browser_shows_the_mathematics_and_can_say_no(copy, tmp_path):
    """Of four pages the first is sound; then a formula that is none, one without its marks, a
    script that is gone."""
    page = copy / "_build" / "html" / "book" / "toys" / "halving.html"
    text, formula = page.read_text(), r"\(x_k \to 0\)"
    faults = {
        "wrong.html": (formula, r"\(x_k \to {0\)"),
        "plain.html": (formula, r"x_k \to 0"),
        "alone.html": ("tex-svg-full.js", "gone.js"),
    }
    for name, (old, new) in faults.items():
        assert old in text
        page.with_name(name).write_text(text.replace(old, new))
    assert not_typeset([page, *map(page.with_name, faults)], tmp_path) == list(faults)
