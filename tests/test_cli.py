"""The command line through a process of its own: what it prints, its exit status, and what it
leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from dlnlib import cli, errors
from dlnlib.verdict import ledger


@pytest.fixture
def dlnlib(toy_book):
    """Run the command in the toy book; returns the finished process. It must never show a
    traceback."""

    def run(*arguments, cwd=toy_book, program=(sys.executable, "-m", "dlnlib.cli")):
        paths = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        done = subprocess.run(
            [*program, *arguments],
            cwd=cwd,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
        assert "Traceback" not in done.stderr + done.stdout
        return done

    return run


def files(folder: Path) -> list[str]:
    return sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*") if "__pycache__" not in p.parts
    )


def test_list(dlnlib, toy_book):
    chapter = toy_book / "book" / "toys" / "halving.md"
    chapter.write_text(
        chapter.read_text().replace(
            "parameters:\n", "requires: [seed < 1000 * steps]\nparameters:\n"
        )
    )
    done = dlnlib("list")
    assert done.returncode == 0 and done.stderr == ""
    assert "halving: Halving goes to zero" in done.stdout and "JT18-eq1" in done.stdout
    assert "-p steps=8" in done.stdout and "1 to 50: number of halvings" in done.stdout
    assert (
        "a data set: a name or a file" in done.stdout
        and "requires seed < 1000 * steps" in done.stdout
    )


def test_run_and_ledger(dlnlib, toy_book):
    done = dlnlib("run", "halving", "-p", "steps=9", "-p", "seed=3", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "JT18-eq1" in done.stdout and "reproduced" in done.stdout
    assert done.stderr == ""  # quiet in a pipe: no progress bar, no warnings
    assert sorted(p.name for p in (toy_book / "out").iterdir()) == [
        "halving.html",
        "halving.ipynb",
        "verdicts.json",
    ]
    for path in ("out", "out/verdicts.json"):
        done = dlnlib("ledger", path)
        assert done.returncode == 0 and "1 reproduced" in done.stdout


def test_refuted_is_1(dlnlib, toy_book):
    done = dlnlib("run", "halving", "-p", "steps=1")
    assert done.returncode == 1 and "refuted" in done.stdout
    assert (toy_book / "halving-run" / "verdicts.json").is_file()
    assert dlnlib("ledger", "halving-run").returncode == 1


@pytest.mark.parametrize(
    ("seed", "status", "words"),
    [
        (12, 2, "seed 12 is not a seed"),
        (14, 1, "chapter halving failed in code cell 3: RuntimeError: a defect"),
    ],
)
def test_what_a_chapter_raises_is_one_line_and_leaves_nothing(
    dlnlib, toy_book, seed, status, words
):
    before = files(toy_book)
    done = dlnlib("run", "halving", "-p", f"seed={seed}")
    assert done.returncode == status, done.stderr
    assert words in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""
    assert files(toy_book) == before


@pytest.mark.parametrize(
    ("seed", "status", "words", "reason"),
    [
        (13, 3, "hypotheses not met", "seed 13 has no separating direction"),
        (15, 1, "undecided", "seed 15 stalls; choose another seed"),
    ],
)
def test_a_chapter_that_stops_still_has_its_verdicts(dlnlib, toy_book, seed, status, words, reason):
    done = dlnlib("run", "halving", "-p", f"seed={seed}", "-o", "out")
    assert done.returncode == status and done.stderr == ""
    assert "JT18-eq1" in done.stdout and words in done.stdout
    (verdict,) = json.loads((toy_book / "out" / "verdicts.json").read_text())
    assert verdict["status"] == words and reason in json.dumps(verdict)
    page = (toy_book / "out" / "halving.html").read_text()
    assert "The chapter stopped here" in page and reason in page and "Traceback (most" not in page


def test_a_chapter_without_claims_has_no_verdicts(dlnlib, toy_book):
    chapter = toy_book / "book" / "toys" / "halving.md"
    head, _, rest = chapter.read_text().partition("verdict = dl.Verdict(")
    chapter.write_text(head + "pass\n```\n" + rest.partition("```\n")[2])
    done = dlnlib("run", "halving", "-o", "out")
    assert done.returncode == 0 and done.stdout.startswith(
        "no verdicts: this chapter makes no claim\n"
    )
    assert (toy_book / "out" / "verdicts.json").read_text() == "[]\n"
    done = dlnlib("ledger", "out")
    assert done.returncode == 1 and done.stdout == "no verdicts\n"


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run"], ["run", "halving", "--dta", "x"]])
def test_bad_usage_is_2(dlnlib, arguments):
    done = dlnlib(*arguments)
    assert done.returncode == 2 and "usage: dlnlib" in done.stderr


def test_help_says_what_the_exit_status_means(dlnlib):
    done = dlnlib("--help")
    assert done.returncode == 0 and "exit status: 0 all reproduced" in done.stdout
    assert "CHAPTER.html" in dlnlib("run", "--help").stdout


def test_outside_a_checkout_the_package_finds_its_book(dlnlib, tmp_path):
    assert "max-margin" in dlnlib("list", cwd=tmp_path).stdout


def test_the_book_can_be_named(dlnlib, toy_book, tmp_path):
    assert "halving" in dlnlib("list", "--book", str(toy_book), cwd=tmp_path).stdout
    assert dlnlib("run", "halving", "--book", "toy", "-o", "out", cwd=tmp_path).returncode == 0
    assert (tmp_path / "out" / "halving.html").is_file()


def test_installed_command(dlnlib):
    program = Path(sys.executable).with_name("dlnlib")
    if not program.is_file():
        pytest.skip("dlnlib is not installed beside this Python; make test installs it")
    assert "halving" in dlnlib("list", program=(str(program),)).stdout


def entry(status):
    return {"status": status}


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (["reproduced"], 0),
        (["reproduced", "not in this edition"], 0),
        ([], 1),
        (["reproduced", "undecided"], 1),
        (["not in this edition"], 1),
        (["hypotheses not met", "not in this edition"], 3),
        (["refuted", "hypotheses not met"], 1),
        (["hypotheses not met", "reproduced"], 3),
        (["not yet run"], 1),
    ],
)
def test_exit_status(statuses, status):
    assert ledger.exit_status([entry(s) for s in statuses]) == status


def test_ledger_refuses_a_file_that_contradicts_itself(dlnlib, toy_book):
    bad = [
        {
            "id": "JT18-eq1",
            "title": "t",
            "source": "s",
            "provenance": "read",
            "chapter": "c",
            "status": "reproduced",
            "checks": [],
            "parameters": {},
            "seconds": 1.0,
        }
    ]
    (toy_book / "claims.json").write_text(json.dumps(bad))
    done = dlnlib("ledger", "claims.json")
    assert done.returncode == 2 and "its checks say 'undecided'" in done.stderr


def test_an_integrator_that_stops_decides_nothing(monkeypatch, capsys):
    def stalled(*_):
        raise errors.IntegratorStalled("run 0 stopped at log(1/risk) = 3")

    monkeypatch.setattr(cli, "chapter", stalled)
    assert cli.main(["run", "any"]) == 1
    assert capsys.readouterr().err == "dlnlib: undecided: run 0 stopped at log(1/risk) = 3\n"
