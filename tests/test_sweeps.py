"""Sweeps: grids, results that survive anything, one table, a report; equal to the notebook's
path."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import kill_sweep
import numpy as np
import pytest
from conftest import ROOT, Tags, external, make_toy_book

from dlnlib import cli, errors, sweeps
from dlnlib.book.chapters import chapter
from dlnlib.book.execute import execute
from dlnlib.book.inprocess import script
from dlnlib.sweeps import cluster, conduct, grid, identity, store, worker
from dlnlib.sweeps.store import Store
from dlnlib.sweeps.table import COLUMNS, frame, write
from dlnlib.verdict.ledger import gather

KILLS = 3  # `python tests/kill_sweep.py 50` makes more of them


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """The toy book, with a relation between its parameters."""
    folder = make_toy_book(tmp_path_factory.mktemp("sweeps") / "toy")
    page = folder / "book" / "toys" / "halving.md"
    text = page.read_text().replace(
        "parameters:\n", "requires: [seed < 100 * steps]\nparameters:\n", 1
    )
    page.write_text(text)
    return folder


@pytest.fixture(scope="module")
def halving(book):
    return chapter("halving", book)


def command(*arguments: str | Path) -> subprocess.CompletedProcess:
    paths = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-m", "dlnlib.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert "Traceback" not in done.stderr + done.stdout
    return done


# --- grids ---------------------------------------------------------------------------------------


def test_every_combination_once_in_order(halving):
    runs = grid.combinations(halving, {"seed": "0:3", "steps": "8,9,8"})
    assert runs == [{"seed": s, "steps": k} for s in range(3) for k in (8, 9)]
    runs = grid.combinations(halving, {"steps": [8]}, [{"seed": "0:3", "factor": "0.1,0.2,0.3"}])
    assert [(r["seed"], r["factor"]) for r in runs] == [(0, 0.1), (1, 0.2), (2, 0.3)]
    assert grid.combinations(halving, {"seed": np.arange(0, 4, 2)}) == [{"seed": 0}, {"seed": 2}]


def test_names_of_data_keep_their_commas(halving):
    runs = grid.combinations(halving, {"data": "digits:0,1|six-points"})
    assert [run["data"] for run in runs] == ["digits:0,1", "six-points"]
    zipped = grid.zipped_from_text("seed=0,1,width=4:6,data=digits:0,1|iris")
    assert zipped == {"seed": "0,1", "width": "4:6", "data": "digits:0,1|iris"}


@pytest.mark.parametrize(
    ("given", "zips", "words"),
    [
        ({"sead": "0:3"}, [], "did you mean 'seed'"),
        ({"steps": "8,99"}, [], "steps = 99: 1 to 50"),
        ({"steps": "__import__('os').system('true')"}, [], "an integer is needed"),
        ({"seed": "3:3"}, [], "0 values"),
        ({"seed": "0:9999999999"}, [], "at most 1000000"),
        ({"seed": "0:10000", "steps": "1:50", "factor": "0.1,0.2,0.3"}, [], "smaller"),
        ({"seed": []}, [], "no values"),
        ({"seed": "0:3"}, [{"seed": "0,1", "steps": "8,9"}], "given twice"),
        ({}, [{"seed": "0,1,2", "steps": "8,9"}], "seed has 3, steps has 2"),
        ({"data": "nowhere"}, [], "data: "),
    ],
)
def test_what_cannot_be_a_grid_is_refused_in_one_line(halving, given, zips, words):
    with pytest.raises(errors.BadInput, match=re.escape(words)) as refused:
        grid.combinations(halving, given, zips)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["seed", "=3", "seed=", "seed=1,2", "seed=1,2,seed=3"])
def test_a_malformed_option_is_refused(text):
    with pytest.raises(errors.BadParameter):
        grid.zipped_from_text(text)


def test_the_name_of_a_run_is_its_code_its_library_its_values_and_its_data(
    halving, tmp_path, monkeypatch
):
    def name(**values):
        return identity.name_of(halving, "code", values)

    first = name(seed=1)
    assert first == name(seed=1, steps=8) != name(seed=2)  # 8 is the default
    assert identity.name_of(halving, "other code", {"seed": 1}) != first
    file = tmp_path / "mine.csv"
    file.write_text("1,1\n2,-1\n")
    of_file = name(data=str(file))
    file.write_text("1,1\n3,-1\n")
    identity._contents.cache_clear()
    assert name(data=str(file)) != of_file
    monkeypatch.setattr(identity, "library", lambda: "another")
    assert name(seed=1) != first


# --- what is kept --------------------------------------------------------------------------------


def made_up(halving, seeds, **more) -> list[dict]:
    """Results as a sweep keeps them."""
    check = {"kind": "rate", "name": "slope", "relation": "~", "expected": -1.0, "tolerance": 0.1}
    hashed = identity.code(script(halving))
    found = []
    for seed in seeds:
        noise = np.random.default_rng(seed).normal(0, 0.01)
        checks = [{**check, "measured": -1 + noise, "holds": True, "reason": "noise"}]
        verdict = {"id": "JT18-eq1", "status": "reproduced", "checks": checks, "reasons": []}
        values = {**identity.parameters(halving, {}), "seed": seed, **more}
        found.append(
            {
                "run": identity.name_of(halving, hashed, values),
                "chapter": "halving",
                "parameters": values,
                "code": hashed,
                "library": identity.library(),
                "status": "reproduced",
                "error": "",
                "seconds": 0.1,
                "verdicts": [verdict],
            }
        )
    return found


def fill(folder: Path, halving, results: list[dict], names: list[str]) -> Store:
    kept = Store(folder)
    with kept.held():
        for result in results:
            kept.add(result["run"], result)
        about = {"chapter": "halving", "title": "Halving <b>", "version": "0", "names": names}
        kept.describe(
            {**about, "code": identity.code(script(halving)), "library": identity.library()}
        )
    return kept


def test_a_finished_sweep_starts_no_process(halving, book, tmp_path, monkeypatch):
    fill(tmp_path, halving, made_up(halving, range(5)), ["seed"])
    monkeypatch.setattr(conduct, "connected", None)
    done = sweeps.sweep("halving", {"seed": range(5)}, tmp_path, book=book)
    assert (done.runs, done.new, done.exit_status) == (5, 0, 0)
    assert len(done.table) == 5 and list(done.table["seed"]) == list(range(5))
    assert list(done.table.columns) == ["seed", *COLUMNS]


def test_half_a_file_is_no_result_and_what_was_being_written_is_removed(halving, tmp_path):
    results = made_up(halving, range(2))
    kept = fill(tmp_path, halving, results, ["seed"])
    torn = kept.runs / f"{results[0]['run']}.json"
    torn.write_text(torn.read_text()[:-20])
    rest = kept.runs / f".x.json{store.UNFINISHED}"
    rest.write_text("{")
    with kept.held():
        assert kept.result(results[0]["run"]) is None and len(list(kept.results())) == 1
    assert not rest.exists()


def test_a_second_sweep_on_a_directory_is_refused(book, tmp_path, capsys):
    with Store(tmp_path).held():
        code = ["sweep", "halving", "--book", str(book), "--grid", "seed=1", "-o", str(tmp_path)]
        assert cli.main(code) == 2
    said = capsys.readouterr().err
    assert f"another sweep is at work there (process {os.getpid()})" in said
    assert said.count("\n") == 1


def test_a_directory_of_another_chapter_or_of_nobody_is_refused(halving, book, tmp_path):
    kept = fill(tmp_path, halving, [], [])
    kept.describe({**kept.about(), "chapter": "doubling"})
    with pytest.raises(errors.BadData, match="a sweep of doubling, not of halving"):
        sweeps.sweep("halving", {"seed": [1]}, tmp_path, book=book)
    (tmp_path / "sweep.json").write_text("[1]")
    with pytest.raises(errors.BadData, match="not written by a sweep"):
        sweeps.sweep("halving", {"seed": [1]}, tmp_path, book=book)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(halving, tmp_path, monkeypatch):
    result = made_up(halving, [1])[0]
    kept = fill(tmp_path, halving, [result], ["seed"])

    def full(path):
        path.write_text("{")
        raise OSError(28, "No space left on device")

    with pytest.raises(errors.BadOutput, match="No space left.*make room"):
        store.write_whole(kept.runs / f"{result['run']}.json", full)
    assert kept.result(result["run"]) == result
    assert {path.name for path in kept.runs.iterdir()} == {f"{result['run']}.json"}


@pytest.mark.parametrize("place", ["/proc/sweep", "/dev/null/sweep"])
def test_a_place_that_cannot_be_written_is_one_line(book, place, capsys):
    assert cli.main(["sweep", "halving", "--book", str(book), "--grid", "seed=1", "-o", place]) == 2
    said = capsys.readouterr().err
    assert "cannot be written" in said and said.count("\n") == 1


# --- the table and the report --------------------------------------------------------------------


def test_the_table_has_a_row_for_what_has_no_check(halving, tmp_path):
    import pandas as pd

    results = made_up(halving, range(3))
    results[1] |= {"status": "crash", "error": "RuntimeError: no", "verdicts": []}
    check = results[2]["verdicts"][0]["checks"][0]
    check |= {"measured": "inf", "name": 'a,"b"\n<c>', "holds": False}
    table = frame(results, ["seed"])
    write(table, tmp_path)
    back = pd.read_csv(tmp_path / "table.csv")
    assert list(back["status"]) == ["reproduced", "crash", "reproduced"]
    assert back["reason"][1] == "RuntimeError: no" and np.isnan(back["measured"][1])
    assert np.isinf(back["measured"][2]) and back["check"][2] == 'a,"b"\n<c>'
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), table)


def test_a_column_of_a_parameter_hides_none_of_the_table(halving):
    results = [{**r, "parameters": {"kind": 1}} for r in made_up(halving, [1])]
    table = frame(results, ["kind"])
    assert list(table["kind_"]) == [1] and list(table["kind"]) == ["rate"]


def test_means_have_intervals_that_hold_the_truth(halving, tmp_path):
    results = [r for k in (8, 9) for r in made_up(halving, range(40), steps=k)]
    fill(tmp_path, halving, results, ["seed", "steps"])
    found = sweeps.report(tmp_path)
    assert found.runs == 80 and list(found.statuses["runs"]) == [80]
    assert set(found.means["parameter"]) == {"steps"} or len(found.means) == 0
    for result in results:  # another mean at 9 steps
        shift = 0.1 * (result["parameters"]["steps"] == 9)
        result["verdicts"][0]["checks"][0]["measured"] += shift
    fill(tmp_path, halving, results, ["seed", "steps"])
    means = sweeps.report(tmp_path).means
    assert list(means["value"]) == [8, 9] and list(means["count"]) == [40, 40]
    for (_, row), truth in zip(means.iterrows(), (-1.0, -0.9), strict=True):
        assert row["low"] < truth < row["high"]
        assert 1.5 < (row["high"] - row["low"]) / (0.01 * 2 / 40**0.5) < 2.6


def test_the_page_fetches_nothing_and_no_text_of_it_is_code(halving, tmp_path, capsys):
    results = made_up(halving, range(6))
    bad = '<script>alert(1)</script><img src="http://evil/">'
    for result in results:
        result["verdicts"][0]["checks"][0]["name"] = bad
    results[0] |= {"error": bad, "status": "crash"}
    fill(tmp_path, halving, results, ["seed"])
    assert cli.main(["report", str(tmp_path), "--html", str(tmp_path / "page.html")]) == 0
    assert "halving" in capsys.readouterr().out
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    tags = Tags(text)
    assert "script" not in {name for name, _ in tags.all} and external(tags) == []
    images = [attributes for name, attributes in tags.all if name == "img"]
    assert images and all(image["src"].startswith("data:image/svg") for image in images)
    assert "Halving &lt;b&gt;" in text and bad not in text


@pytest.mark.parametrize("content", [None, "{}", "no JSON"])
def test_a_report_of_nothing_is_refused(tmp_path, content, capsys):
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    assert cli.main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# --- clusters ------------------------------------------------------------------------------------


def test_a_scheduler_that_does_not_answer_is_one_line(book, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "WAIT", 1)
    with pytest.raises(errors.BadCluster, match="does not answer") as refused:
        sweeps.sweep("halving", {"seed": [1]}, tmp_path, book=book, scheduler="tcp://127.0.0.1:9")
    assert refused.value.__notes__ == ["0 of 1 runs are kept; the same command goes on"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"version": "0.0.1", "library": "x"}, "has dlnlib 0.0.1"),
        ({**worker.about(), "library": "edited"}, "edited"),
        (ModuleNotFoundError("No module named 'dlnlib'"), "cannot be loaded there"),
    ],
)
def test_a_worker_with_another_library_or_none_is_named(said, words):
    workers = {"tcp://a:1": worker.about(), "tcp://b:2": said}
    client = SimpleNamespace(
        run=lambda function, on_error: workers, run_on_scheduler=lambda function: function()
    )
    with pytest.raises(errors.BadCluster, match=f"worker tcp://b:2.*{re.escape(words)}"):
        cluster._same_library(client)
    workers["tcp://b:2"] = worker.about()
    cluster._same_library(client)
    client.run_on_scheduler = lambda function: said
    with pytest.raises(errors.BadCluster, match=f"the scheduler.*{re.escape(words)}"):
        cluster._same_library(client)


# --- the whole thing -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(book, tmp_path_factory) -> SimpleNamespace:
    """A sweep through the command: what it said and left."""
    out = tmp_path_factory.mktemp("swept") / "out"
    words = ["sweep", "halving", "--book", book, "--grid", "seed=3,12,13,14,15,150", "-o", out]
    done = command(*words, "--grid", "steps=1,8", "--workers", "2")
    return SimpleNamespace(done=done, out=out, kept=Store(out))


def test_every_end_of_a_run_is_in_the_table_and_none_stops_another(swept):
    assert swept.done.returncode == 1 and swept.done.stderr == ""
    table = sweeps.Sweep(swept.out, 12, 12, 0, {}).table
    ends = table.groupby(["seed", "steps"], sort=False)["status"].first()
    assert ends[3, 1] == "refuted" and ends[3, 8] == "reproduced"
    assert ends[150, 1] == "refused" and ends[150, 8] == "reproduced"
    kinds = ("stopped", "hypotheses not met", "crash", "undecided")
    for seed, kind in zip((12, 13, 14, 15), kinds, strict=True):
        assert ends[seed, 1] == ends[seed, 8] == kind
    refusal = table[table["status"] == "refused"]["reason"].item()
    assert "seed < 100 * steps is needed" in refusal


@pytest.mark.parametrize(("seed", "steps"), [(3, 8), (3, 1)])
def test_a_sweep_says_what_the_notebook_says(swept, halving, seed, steps):
    values = {"seed": seed, "steps": steps}
    kernel = gather(execute(halving, values), "halving")
    name = identity.name_of(halving, identity.code(script(halving)), values)
    kept = swept.kept.result(name)["verdicts"]
    assert [{**v, "seconds": 0} for v in kept] == [{**v, "seconds": 0} for v in kernel]


def test_the_local_cluster_lets_nobody_in(book, tmp_path, monkeypatch):
    """Its ports are on the loopback interface, and want a key that only the sweep has."""
    code = (
        "import psutil; from dlnlib.sweeps import cluster\n"
        "if __name__ == '__main__':\n"
        " with cluster.connected(None, 1) as client:\n"
        "  here = psutil.Process(); every = [here, *here.children(recursive=True)]\n"
        "  open_ = [c.laddr for p in every for c in p.net_connections() if c.status == 'LISTEN']\n"
        "  assert len(open_) >= 3 and {a.ip for a in open_} == {'127.0.0.1'}, open_\n"
        "  from distributed import Client\n"
        "  address = client.scheduler.address; assert address.startswith('tls://')\n"
        "  for way in ('tcp', 'tls'):\n"
        "   try: Client(address.replace('tls', way), timeout=1); print('in')\n"
        "   except Exception as err: print('out')\n"
    )
    file = tmp_path / "look.py"
    file.write_text(code)
    done = subprocess.run(
        [sys.executable, file],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout.split()) == (0, ["out", "out"]), done.stderr


def test_a_sweep_that_is_killed_loses_nothing_and_repeats_nothing(tmp_path):
    toy = make_toy_book(tmp_path / "toy")
    told = kill_sweep.main(KILLS, seed=0, folder=tmp_path, book=toy, workers=1)
    assert len(told.kills) == KILLS and told.wrong == []


def test_what_the_kills_would_find(tmp_path):
    before = {"a": (1, 1), "b": (2, 2)}
    assert kill_sweep.compared(before, {"a": (3, 1)}) == ["lost b", "repeated a"]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "x.json").write_text('{"parameters": {"seed": 20}, "verdicts": [')
    write(frame([], ["seed"]), tmp_path)
    sweep = SimpleNamespace(
        process=SimpleNamespace(returncode=1), out=tmp_path, runs=2, results=lambda: ["x"]
    )
    wrong = " ".join(kill_sweep.judged(sweep, "said"))
    for word in ("exit 1", "1 results of 2", "corrupt x.json", "0 seeds", "0 rows"):
        assert word in wrong


def test_results_are_json_and_nothing_is_unpickled():
    found = [path.read_text(encoding="utf-8") for path in Path(sweeps.__file__).parent.glob("*.py")]
    assert found and not re.search(r"pickle|eval\(|exec\(|yaml\.load", "".join(found))
    assert json.loads("1") == 1
