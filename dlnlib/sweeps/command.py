"""The commands `dlnlib sweep` and `dlnlib report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from dlnlib.errors import BadOutput, BadParameter, shortened
from dlnlib.sweeps.conduct import sweep
from dlnlib.sweeps.grid import from_text, zipped_from_text
from dlnlib.sweeps.statistics import report

__all__ = ["add_commands"]


def add_commands(commands, book: argparse.ArgumentParser, epilog: str) -> None:
    """Add both commands to those of the command line."""
    sweeping = commands.add_parser(
        "sweep",
        help="run one chapter for every combination of parameters, and keep one table",
        epilog=epilog,
        parents=[book],
        description=(
            "Run a chapter over a grid. DIR gets table.csv and table.parquet, a row a check, and "
            "one file a run; after an interruption of any kind the same command goes on."
        ),
    )
    sweeping.add_argument("chapter", metavar="CHAPTER", help="a name that `dlnlib list` prints")
    sweeping.add_argument(
        "--grid",
        metavar="NAME=VALUES",
        action="append",
        default=[],
        help="values of a parameter: 2,3,4 or 0:100 or 0:100:10 (100 left out), data by names with "
        "| between them; several grids make every combination (repeatable)",
    )
    sweeping.add_argument(
        "--zip",
        dest="zips",
        metavar="NAME=VALUES,NAME=VALUES",
        action="append",
        default=[],
        help="parameters that change side by side: seed=0:3,width=4:7 (repeatable)",
    )
    sweeping.add_argument(
        "-o", dest="out", metavar="DIR", help="where to write (default: CHAPTER-sweep)"
    )
    where = sweeping.add_mutually_exclusive_group()
    where.add_argument(
        "--workers", type=int, metavar="N", help="processes on this machine (default: one a core)"
    )
    where.add_argument(
        "--scheduler", metavar="ADDRESS", help="a running Dask cluster: tcp://host:8786, tls://..."
    )
    sweeping.set_defaults(action=_sweep)

    reporting = commands.add_parser(
        "report",
        help="what a sweep shows: statuses, distributions, numbers against parameters",
        description="Say what the finished runs of a sweep show; they may still be going on.",
    )
    reporting.add_argument("folder", metavar="DIR", help="the directory of a sweep")
    reporting.add_argument("--html", metavar="PAGE", help="also write it as one HTML file")
    reporting.set_defaults(action=_report)


def _sweep(options) -> tuple[str, int]:
    grid: dict[str, str] = {}
    for name, values in map(from_text, options.grid):
        if name in grid:
            raise BadParameter(f"--grid {shortened(name)} is given twice; once is needed")
        grid[name] = values
    if not (grid or options.zips):
        raise BadParameter("nothing to vary: give --grid NAME=VALUES, such as --grid seed=0:100")
    out = f"{options.chapter}-sweep" if options.out is None else options.out
    done = sweep(
        options.chapter,
        grid,
        out,
        zips=[zipped_from_text(text) for text in options.zips],
        scheduler=options.scheduler,
        workers=options.workers,
        book=options.book,
    )
    return f"{done}\n\nwritten to {out}; `dlnlib report {out}` says what it shows", done.exit_status


def _report(options) -> tuple[str, int]:
    found = report(options.folder)
    if options.html is not None:
        if not Path(options.html).name:
            raise BadOutput(f"--html {options.html!r}: the name of a file is needed")
        found.write_page(options.html)
    return str(found), 0
