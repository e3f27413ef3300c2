"""The real book in a headless browser; in a file of its own, so that it runs beside the other tests
of the site."""

from __future__ import annotations

import json

import pytest
from browser import not_typeset
from conftest import ROOT
from devtools import Browser, browsing, chromium

SITE = ROOT / "_build" / "html"
PAGES = (
    "book/intro",
    "book/guide",
    "book/playgrounds",
    "book/ledger",
    "book/glossary",
    "book/alignment/rank-one",
    "book/alignment/max-margin",
)
# What sticks out of the window, or of a box that hides it: the readers' own parts of a page.
CUT = """[...document.querySelectorAll(
  "section.dln-verdict, section.dln-verdict *, table.dln-ledger, table.dln-ledger *,"
  + ".dln-filters *, .dln-playground *, dl.dln-score *, .dln-doors .sd-card")]
  .filter(e => !e.closest("svg, mjx-container, .math, select") || e.matches("svg.pg-plot"))
  .filter(e => { const r = e.getBoundingClientRect(); return r.width && r.right > innerWidth + 1; })
  .map(e => e.outerHTML.slice(0, 80))"""
CONTRAST = """(() => {
  const parts = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(x => x / 255)
    .map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const colour = parts(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll(
      "section.dln-verdict p, .dln-verdict span, .dln-verdict small, .dln-verdict caption,"
      + "table.dln-ledger caption, table.dln-ledger td, table.dln-ledger small, .dln-status,"
      + ".pg-says, .pg-facts *, .pg-control *, .pg-button, dl.dln-score *")]
    .filter(e => e.textContent.trim() && !e.closest("svg, option, mjx-container"))
    .filter(e => {
      const [a, b] = [light(parts(getComputedStyle(e).color)), light(ground(e))];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5;
    }).map(e => e.outerHTML.slice(0, 80));
})()"""


def built() -> None:
    if not (SITE / "claims.json").is_file():
        pytest.skip("the book has not been built here; make book first")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if chromium() is None:
        pytest.skip("no chromium on this machine: pages are not looked at (apt install chromium)")
    with browsing(tmp_path_factory.mktemp("profile")) as found:
        yield found


def faults(browser: Browser, address: str, width: int, theme: str) -> list[str]:
    """What is wrong with a page at this width, in this theme."""
    browser.size(width)
    browser.prefer(color_scheme=theme, reduced_motion="reduce")
    browser.open(address)
    browser.run(f"document.documentElement.dataset.theme = '{theme}'")
    browser.settle()
    found = list(browser.errors)
    found += [f"asks for {r}" for r in browser.requests if not r.startswith(("file:", "data:"))]
    if browser.run("document.documentElement.scrollWidth") > width:
        found.append(f"wider than {width}")
    found += [f"cut: {part}" for part in browser.run(CUT)]
    return found + [f"faint: {part}" for part in browser.run(CONTRAST)]


def test_browser_shows_the_mathematics_of_the_book(tmp_path):
    """Of every chapter with a verdict."""
    built()
    entries = json.loads((SITE / "claims.json").read_text())
    names = sorted({entry["chapter"] for entry in entries if entry["checks"]})
    assert not_typeset([next(SITE.glob(f"book/*/{name}.html")) for name in names], tmp_path) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_cut_faint_wrong_or_from_outside(browser, page, width, theme):
    built()
    assert faults(browser, (SITE / f"{page}.html").as_uri(), width, theme) == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("<script>throw new Error('planted')</script>", "planted"),
        ("<script>console.error('planted')</script>", "planted"),
        ("<img src='http://planted.example/x.png'>", "asks for http://planted"),
        ("<div style='width: 2000px'>x</div>", "wider"),
        ("<section class='dln-verdict'><p style='width: 2000px'>x</p></section>", "cut: <p"),
        ("<section class='dln-verdict'><p style='color: #999'>x</p></section>", "faint: <p"),
    ],
)
def test_the_look_at_a_page_can_say_no(browser, tmp_path, fault, said):
    page = tmp_path / "page.html"
    page.write_text(f"<!DOCTYPE html><title>planted</title><body>{fault}</body>")
    assert any(said in line for line in faults(browser, page.as_uri(), 390, "light"))


def test_the_ledger_filters_sorts_and_is_whole_without_scripts(browser):
    built()
    address = (SITE / "book" / "ledger.html").as_uri()
    shown = (
        "[...document.querySelectorAll('tr[data-status]')].filter(r => r.offsetHeight)"
        ".map(r => [r.id, r.dataset.paper, r.dataset.status])"
    )
    browser.size(1400)
    browser.scripts(False)
    browser.open(address)
    whole = browser.run(shown)
    browser.scripts(True)
    assert len(whole) == len(json.loads((SITE / "claims.json").read_text()))
    browser.open(address)
    assert browser.run(shown) == whole
    paper = whole[-1][1]
    choose = (
        "((name, value) => { const s = document.querySelector(`.dln-filters [name=${name}]`);"
        "s.value = value; s.dispatchEvent(new Event('change')); })"
    )
    browser.run(f"{choose}('paper', {json.dumps(paper)})")
    assert browser.run(shown) == [row for row in whole if row[1] == paper]
    browser.run("document.querySelector('.dln-filters button').click()")
    browser.run(f"{choose}('order', 'paper')")
    papers = [row[1] for row in browser.run(shown)]
    assert len(papers) == len(whole) and papers.index(paper) + papers.count(paper) <= len(papers)
    assert len(set(papers)) == sum(a != b for a, b in zip(papers, [None, *papers], strict=False))
    browser.run(f"{choose}('order', 'book')")
    assert browser.run(shown) == whole


@pytest.mark.parametrize(
    ("phrase", "chapter"),
    [
        ("neural collapse", "collapse"),
        ("SVM", "max-margin"),
        ("implicit bias", "max-margin"),
        ("low rank", "rank-one"),
        ("maximum margin", "max-margin"),
    ],
)
def test_search_finds_what_readers_call_it(browser, phrase, chapter):
    built()
    browser.open((SITE / "search.html").as_uri() + f"?q={phrase.replace(' ', '+')}")
    browser.run(
        "new Promise(done => { const look = n => document.querySelector('#search-results li a') "
        "|| n > 100 ? setTimeout(done, 500) : setTimeout(look, 100, n + 1); look(0); })"
    )
    links = browser.run(
        "[...document.querySelectorAll('#search-results li a')].slice(0, 5).map(a => a.href)"
    )
    assert any(f"/{chapter}.html" in link for link in links), links
