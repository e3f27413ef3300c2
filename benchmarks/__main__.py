"""Every figure of speed that the book quotes: `make bench`, or `python -m benchmarks [--tiny] [-o
FILE]`.

Ratios are peer over ours, so that above 1 ours is faster. JAX is optional: requirements-bench.txt.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from benchmarks import (
    cases,
    compression_table,
    descent_table,
    flow_table,
    model_table,
    recorder_table,
)
from benchmarks.measure import print_table, write_rows

CAP = 30.0  # seconds that a peer of the flow may take


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--tiny", action="store_true", help="sizes at which nothing but the program is tested"
    )
    parser.add_argument("--only", choices=list(TABLES), help="one of the tables")
    parser.add_argument("-o", "--output", type=Path, default=Path("_build/bench.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if hasattr(os, "getloadavg"):
        print("load of the machine: " + ", ".join(f"{load:.1f}" for load in os.getloadavg()))
    chosen = [options.only] if options.only else TABLES
    rows = [row for name in chosen for row in TABLES[name](options.tiny)]
    write_rows(rows, options.output)
    print(f"\n{len(rows)} rows in {options.output}")


def flow_tables(tiny):
    runs, repeats = (cases.TINY_FLOWS, 1) if tiny else (cases.FLOWS, 5)
    rows = _table(
        "Flow from unbalanced starts", [flow_table.against_targets(case, repeats) for case in runs]
    )
    if not tiny:
        print(flow_table.memory(max(runs, key=lambda case: case.target)))
    small, repeats = (runs, 1) if tiny else (runs[:2], 2)
    return rows + _table(
        "Flow against scipy", [flow_table.against_scipy(case, repeats, CAP) for case in small]
    )


def model_tables(tiny):
    runs, repeats = (model_table.TINY_CASES, 1) if tiny else (model_table.CASES, 2)
    return _table("Flow of models", [model_table.against_numpy(case, repeats) for case in runs])


def descent_tables(tiny):
    batches, steps, repeats = (cases.TINY_BATCHES, 100, 1) if tiny else (cases.BATCHES, 10_000, 5)
    rows = _table(
        "One step of gradient descent",
        [descent_table.against_peers(batch, repeats) for batch in batches],
    )
    rows += _table(
        "Several outputs", [descent_table.several_outputs(batch, repeats) for batch in batches]
    )
    return rows + _table(
        "Recording and the theorem's rule",
        [
            *(descent_table.recording(batch, steps, repeats) for batch in batches),
            descent_table.theorem_rule(20 * steps, repeats),
        ],
    )


def compression_tables(tiny):
    sizes, repeats = (compression_table.TINY_CASES, 1) if tiny else (compression_table.CASES, 4)
    return _table("Compression", [compression_table.against_full(case, repeats) for case in sizes])


def recorder_tables(tiny):
    loops, repeats = (recorder_table.TINY_CASES, 1) if tiny else (recorder_table.CASES, 3)
    return _table("Recorder", [recorder_table.against_bare(case, repeats) for case in loops])


def _table(title, groups):
    rows = [row for group in groups for row in group]
    print_table(title, rows)
    return rows


TABLES = {
    "flow": flow_tables,
    "models": model_tables,
    "descent": descent_tables,
    "compression": compression_tables,
    "recorder": recorder_tables,
}

if __name__ == "__main__":
    main()
