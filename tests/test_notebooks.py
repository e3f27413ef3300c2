"""Chapters as notebooks: reading them, checking parameters, running them, and the reference
notebooks."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import make_reference
import nbformat
import numpy as np
import pytest
from conftest import ROOT, Tags, external

from dlnlib.book import chapters
from dlnlib.book.execute import ChapterFailed
from dlnlib.book.run import run
from dlnlib.errors import BadData, BadParameter, UnknownChapter
from dlnlib.verdict.verdict import MIME


@pytest.fixture
def halving(toy_book):
    return chapters.chapter("halving", toy_book)


def test_chapter_is_read_without_running_it(halving):
    assert halving.title == "Halving goes to zero" and halving.claims == ("JT18-eq1",)
    assert [p.name for p in halving.parameters] == ["seed", "steps", "factor", "data", "exact"]
    steps = halving.parameters[1]
    assert steps.default == 8 and steps.comment == "1 to 50: number of halvings"
    assert halving.parameters[3].default == "six-points"


def test_the_book_is_the_one_here_or_named_or_of_the_package(toy_book, tmp_path, monkeypatch):
    monkeypatch.chdir(toy_book)
    assert chapters.find_book() == toy_book
    monkeypatch.chdir(toy_book / "book")
    assert chapters.find_book() == ROOT  # never one of a folder above: a checkout has its own
    assert chapters.find_book("..") == toy_book == chapters.find_book(toy_book)
    monkeypatch.setattr(
        chapters, "__file__", str(tmp_path / "site" / "dlnlib" / "book" / "chapters.py")
    )
    with pytest.raises(UnknownChapter, match="no book .* --book DIR"):
        chapters.find_book()
    for folder in (toy_book / "book", "nowhere", "n" * 5000, "a\0b"):
        with pytest.raises(UnknownChapter, match="no book in"):
            chapters.find_book(folder)


def test_unknown_chapter_names_the_closest(toy_book):
    with pytest.raises(UnknownChapter, match="did you mean 'halving'"):
        chapters.chapter("halvin", toy_book)


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"steps": "9"}, {"steps": 9}),
        ({"factor": "1e-3"}, {"factor": 1e-3}),
        ({"factor": "1"}, {"factor": 1.0}),
        ({"factor": 1}, {"factor": 1.0}),
        ({"exact": "false"}, {"exact": False}),
        ({"exact": "True"}, {"exact": True}),
        ({}, {}),
        ({"steps": 3, "seed": "7"}, {"steps": 3, "seed": 7}),
    ],
)
def test_parameters_take_the_type_of_their_default(halving, given, values):
    found = chapters.checked(halving, given)
    assert found == values and [type(v) for v in found.values()] == [
        type(v) for v in values.values()
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stesp": "9"}, "did you mean 'steps'"),
        ({"zzz": "9"}, "known: seed, steps"),
        ({"steps": "9.5"}, "an integer is needed"),
        ({"steps": "many"}, "an integer is needed"),
        ({"steps": "True"}, "an integer is needed"),
        ({"steps": ""}, "an integer is needed"),
        ({"factor": "half"}, "a number is needed"),
        ({"exact": "2"}, "true or false"),
        ({"steps": 2.0}, "an integer"),
    ],
)
def test_wrong_parameters_are_named(halving, given, words):
    with pytest.raises(BadParameter, match=words):
        chapters.checked(halving, given)


def test_data_is_loaded_before_any_kernel_starts(halving, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "mine.npz", x=np.array([[1.0, 2.0], [-1.0, -2.0]]), y=np.array([1.0, -1.0]))
    assert chapters.checked(halving, {"data": "mine.npz"}) == {"data": str(tmp_path / "mine.npz")}
    assert chapters.checked(halving, {"data": "digits:3,8"}) == {"data": "digits:3,8"}
    np.savez(tmp_path / "bad.npz", x=np.array([[1.0, 2.0], [-1.0, -2.0]]), y=np.array([1.0, 1.0]))
    for spec in ("bad.npz", "absent.csv", "digitz:3,8"):
        with pytest.raises(BadData):
            chapters.checked(halving, {"data": spec})


def test_a_chapter_needs_a_parameters_cell_of_literals(toy_book):
    path = toy_book / "book" / "toys" / "halving.md"
    text = path.read_text()
    untagged = text.replace(":tags: [parameters]\n", "")
    path.write_text(untagged)
    with pytest.raises(
        BadParameter, match="halving.md: `seed: .*` in the front matter, needed a parameter's name"
    ):
        chapters.parse(path)
    path.write_text(untagged.replace("parameters:\n", "ignored:\n"))
    with pytest.raises(BadParameter, match="no parameters cell"):
        chapters.checked(chapters.parse(path), {})
    path.write_text(text.replace("steps = 8", "steps = 2 * 4"))
    with pytest.raises(BadParameter, match="NAME = LITERAL"):
        chapters.parse(path)


def test_run_leaves_notebook_page_and_verdicts(halving, tmp_path):
    out = tmp_path / "deep" / "out"
    verdicts = run(halving, {"steps": "9"}, out)
    assert sorted(p.name for p in out.iterdir()) == [
        "halving.html",
        "halving.ipynb",
        "verdicts.json",
    ]
    assert json.loads((out / "verdicts.json").read_text()) == verdicts
    assert verdicts[0]["status"] == "reproduced" and verdicts[0]["parameters"]["steps"] == 9
    assert "papermill" not in nbformat.read(out / "halving.ipynb", as_version=4).metadata
    page = (out / "halving.html").read_text()
    for part in ("Theorem", "dln-verdict", 'alt="A straight line', "MathJax", "Ji and Telgarsky"):
        assert part in page
    assert "where scripts do not run" not in page
    assert external(Tags(page)) == []
    (out / "notes.txt").write_text("mine")
    run(halving, {}, out)
    assert (out / "notes.txt").read_text() == "mine" and len(list(out.iterdir())) == 4
    assert json.loads((out / "verdicts.json").read_text())[0]["parameters"]["steps"] == 8
    assert [p.name for p in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"steps": 99}, BadParameter),
        ({"seed": 12}, BadParameter),
        ({"seed": 14}, ChapterFailed),
        ({"x": 1}, BadParameter),
    ],
)
def test_a_failing_run_leaves_nothing(halving, tmp_path, given, error):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error):
        run(halving, given, tmp_path / "out" / "deeper")
    assert sorted(tmp_path.rglob("*")) == before


def test_references_match_the_chapters():
    stale = make_reference.outdated(chapters.chapters(ROOT), make_reference.FOLDER)
    assert not stale, f"run `make reference` and read the diff: {', '.join(stale)}"


def test_reference_holds_text_only_and_goes_stale(halving, tmp_path):
    make_reference.write(halving, tmp_path)
    made = nbformat.read(tmp_path / "halving.ipynb", as_version=4)
    outputs = [o for cell in made.cells for o in cell.outputs]
    assert (
        len(outputs) == 1 and list(outputs[0]["data"]) == ["text/plain"] and MIME not in str(made)
    )
    assert [c.metadata["tags"][0] for c in made.cells].count("nbval-check-output") == 1
    assert make_reference.outdated([halving], tmp_path) == []
    halving.path.write_text(halving.path.read_text().replace("0.01)", "0.02)"))
    assert make_reference.outdated([halving], tmp_path) == ["halving"]
    assert make_reference.outdated([], tmp_path) == ["halving"]
    (tmp_path / "halving.ipynb").unlink()
    assert make_reference.outdated([halving], tmp_path) == ["halving"]


@pytest.fixture
def nbval(halving, tmp_path):
    """What `make test` says of the toy chapter's reference after an edit of its notebook or of its
    numbers."""
    folder = tmp_path / "reference"
    folder.mkdir()
    make_reference.write(halving, folder)
    texts = {ending: (folder / f"halving{ending}").read_text() for ending in (".ipynb", ".json")}

    def edited(ending: str, old: str, new: str) -> subprocess.CompletedProcess:
        for name, text in texts.items():
            assert name != ending or old in text
            (folder / f"halving{name}").write_text(
                text.replace(old, new) if name == ending else text
            )
        options = [
            "-q",
            "-n0",
            "-p",
            "conftest",
            "--nbval",
            "-c",
            str(ROOT / "pyproject.toml"),
            f"--rootdir={folder}",
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)]),
        }
        command = [sys.executable, "-m", "pytest", *options, str(folder / "halving.ipynb")]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    return edited


def test_nbval_compares_what_a_verdict_says_and_nothing_else(nbval):
    assert nbval(".ipynb", '"exact = True', '"exact = False').returncode == 0
    assert nbval(".ipynb", "last value $x_k$: <= 0.01", "last value $x_k$: <= 0.02").returncode == 1
    assert nbval(".ipynb", "factor = 0.5 ", "factor = 0.6 ").returncode == 1


def test_a_measured_number_that_moved_is_reported_by_its_name(nbval):
    done = nbval(".json", '"measured": "0.00390625"', '"measured": "0.5"')
    assert done.returncode == 1 and "measured numbers moved" in done.stdout
    assert "JT18-eq1: last value $x_k$: 0.5 recorded, 0.00390625 now" in done.stdout
    # within its allowance
    assert nbval(".json", '"measured": "0.00390625"', '"measured": "0.0040"').returncode == 0


def test_other_checks_than_recorded_are_reported(nbval):
    done = nbval(".json", "value times 2^k", "value times 3^k")
    assert done.returncode == 1 and "JT18-eq1: other checks than recorded" in done.stdout
