"""The tools behind `make steady` and `make nudge`: runs in a fork, resumable tables, and nudges
that can say no."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import make_reference
import nudge
import pytest
import steady
from conftest import ROOT
from results_table import Table, code

from dlnlib.book import inprocess
from dlnlib.book.chapters import chapter
from dlnlib.book.execute import execute

# the two chapters and two nudges of `make test`; `make nudge` runs all
NUDGED = ("risk", "non-whitened")


@pytest.fixture
def halving(toy_book):
    return chapter("halving", toy_book)


def test_a_fork_gives_the_verdicts_of_a_kernel(halving):
    from dlnlib.verdict.ledger import gather

    outcome = inprocess.forked(halving, {"seed": 3})
    kernel = gather(execute(halving, {"seed": 3}), "halving")
    assert outcome.status == "reproduced" and outcome.error == ""
    assert [v["checks"] for v in outcome.verdicts] == [v["checks"] for v in kernel]


@pytest.mark.parametrize(
    ("values", "status", "words"),
    [
        ({"steps": 1}, "refuted", ""),
        ({"seed": 13}, "hypotheses not met", ""),
        ({"seed": 15}, "undecided", ""),
        ({"seed": 14}, "crash", "RuntimeError: a defect"),
        ({"seed": 12}, "stopped", "BadParameter"),
    ],
)
def test_every_end_of_a_run_is_an_outcome(halving, values, status, words):
    outcome = inprocess.forked(halving, values)
    assert outcome.status == status and words in outcome.error


def test_a_run_that_hangs_or_dies_is_an_outcome(halving, monkeypatch):
    monkeypatch.setattr(inprocess, "LIMIT", 1)
    assert "TooSlow" in inprocess.forked(halving, {}, lambda: all(iter(int, 1))).error
    assert "Died" in inprocess.forked(halving, {}, lambda: os.kill(os.getpid(), 9)).error


def test_steady_visits_seeds_ends_and_data(halving):
    assert [v["seed"] for v in steady.seeds(halving)] == list(range(20))
    ends = list(steady.ends(halving))
    assert {"steps": 1} in ends and {"steps": 50} in ends and {"factor": 0.5} in ends
    assert {"data": "iris+1"} in list(steady.data(halving))
    assert len([v for v in steady.data(halving) if v["data"].endswith(".csv")]) == 5


def test_a_refuted_run_is_no_good_row(halving):
    outcome = inprocess.forked(halving, {"steps": 1})
    row = steady.row(halving, {"steps": 1}, outcome)
    assert (
        row["status"] not in steady.GOOD
        and "JT18-eq1" in row["reason"]
        and row["parameters"] == "steps=1"
    )


def test_a_table_resumes_and_forgets_rows_of_other_code(halving, tmp_path):
    table = Table(tmp_path / "table.csv", steady.COLUMNS, ("chapter", "parameters"))
    assert table.load() == []
    row = steady.row(halving, {"steps": 8}, inprocess.Outcome())
    table.add(row)
    table.add({**row, "seconds": "2"})
    assert [r["seconds"] for r in table.current({"halving": code(halving)})] == ["2"]
    assert table.current({"halving": "another"}) == []


def test_code_is_the_same_for_other_layout_and_imports_and_another_for_another_number(halving):
    before, text = code(halving), halving.path.read_text()
    halving.path.write_text(text.replace("steps = 8", "import math\n\nsteps  =  8  # a comment"))
    assert code(halving) == before
    halving.path.write_text(text.replace("steps = 8", "steps = 9"))
    assert code(halving) != before


def test_the_steady_table_has_no_refuted_run_and_no_crash():
    assert [r for r in steady.TABLE.load() if r["status"] not in steady.GOOD] == []


def test_a_nudge_that_changes_a_text_or_a_number_is_seen(halving, tmp_path, monkeypatch):
    monkeypatch.setattr(nudge, "FOLDER", tmp_path)
    make_reference.write(halving, tmp_path)
    outcome = inprocess.forked(halving, {})
    assert nudge.difference(halving, outcome) == ""
    text = [outcome.texts[0].replace("reproduced", "refuted"), *outcome.texts[1:]]
    assert "refuted" in nudge.difference(halving, inprocess.Outcome(outcome.verdicts, text))
    assert "lines instead of" in nudge.difference(
        halving, inprocess.Outcome(outcome.verdicts, outcome.texts[1:])
    )
    assert nudge.difference(halving, inprocess.Outcome(error="Died: 9")) == "Died: 9"
    check = next(c for c in outcome.verdicts[0]["checks"] if c["name"].startswith("last value"))
    check["measured"] = 0.009  # it still holds
    assert "last value" in nudge.difference(halving, outcome)


def test_starts_are_moved_by_units_in_the_last_place():
    code = (
        "import nudge, torch; from dlnlib import networks; before = networks.gaussian([3, 2, 1], "
        "0);nudge.scaled_starts(2)(); after = networks.gaussian([3, 2, 1], 0);print(max(((a - "
        "b).abs() / b.abs()).max().item() for a, b in zip(after, before)))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert 0 < float(done.stdout) <= 4 * 2.0**-52 and math.isfinite(float(done.stdout))


@pytest.mark.parametrize("name", ["start + 2 ulp", "ATen default"])
def test_two_chapters_under_two_nudges(name, tmp_path):
    code = (
        "import sys, nudge; from pathlib import Path; from results_table import Table;"
        "nudge.TABLE = Table(Path(sys.argv[1]), nudge.COLUMNS, ('chapter', 'nudge'));"
        "nudge.worker(sys.argv[3:], nudge.NUDGES[sys.argv[2]])"
    )
    paths = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    environment = {**os.environ, **nudge.NUDGES[name].environment, "PYTHONPATH": paths}
    table = Table(tmp_path / "nudges.csv", nudge.COLUMNS, ("chapter", "nudge"))
    subprocess.run(
        [sys.executable, "-c", code, str(table.path), name, *NUDGED], env=environment, check=True
    )
    rows = table.load()
    assert [row["difference"] for row in rows] == [""] * len(NUDGED)
