"""The benchmarks run, at tiny sizes, and leave a whole file; nothing is said about speed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_tiny_benchmarks_write_every_row(tmp_path):
    out = tmp_path / "deep" / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--tiny", "-o", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    assert [p.name for p in out.parent.iterdir()] == ["bench.json"]  # no draft left
    peers = " ".join(row["peer"] for row in rows)
    for peer in (
        "target",
        "BDF",
        "Radau",
        "autograd",
        "vmap(grad)",
        "JAX scan(vmap(grad))",
        "NumPy",
        "the same in NumPy",
        "limit",
        "the loop alone",
    ):
        assert peer in peers and peer in done.stdout
    for row in rows:
        assert set(row) == {
            "name",
            "sizes",
            "ours_seconds",
            "peer",
            "peer_seconds",
            "ratio",
            "spread",
        }
        assert row["ours_seconds"] > 0
        if row["ratio"] is None:
            assert row["peer"].endswith(("not installed", "did not finish"))
        else:
            assert row["spread"][0] <= row["ratio"] <= row["spread"][1]
            # one repeat
            assert math.isclose(
                row["ratio"], row["peer_seconds"] / row["ours_seconds"], rel_tol=1e-6
            )


def test_a_peer_that_computes_something_else_stops_the_benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import cases, descent_table, peers

    def wrong(z, weights, eta, steps):
        return peers.numpy_closed_form(z, weights, 1.0001 * eta, steps)

    monkeypatch.setitem(peers.PEERS, "NumPy closed form", wrong)
    with pytest.raises(SystemExit, match="NumPy closed form differs"):
        descent_table.against_peers(cases.TINY_BATCHES[0], 1)
