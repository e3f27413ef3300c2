"""Nudges: chapters run with their rounding disturbed on purpose; no text and no status may change.

    python tests/nudge.py [CHAPTER ...] [--nudge NAME ...] [--jobs N]        (make nudge: all of it)

Each run is compared with the chapter's reference: the texts of its verdicts must be equal, and each
measured number must stay within its own allowance. The table `tests/nudges.csv` (chapter x nudge)
is resumable like the steady one. Nudges that are made by an environment variable run in processes
of their own; those that this processor cannot do are named and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import nbformat  # noqa: E402
from make_reference import FOLDER  # noqa: E402
from numbers_within import moved, record  # noqa: E402
from results_table import Table, code, codes  # noqa: E402

from dlnlib.book.chapters import Chapter, chapters  # noqa: E402
from dlnlib.book.inprocess import Outcome, forked, swap, warm  # noqa: E402

COLUMNS = ("chapter", "code", "nudge", "result", "seconds", "difference")
TABLE = Table(ROOT / "tests" / "nudges.csv", COLUMNS, key=("chapter", "nudge"))
ULP = 2e-16  # as the sum 1 + 2e-16 k is rounded: k units in the last place


@dataclass(frozen=True)
class Nudge:
    """One disturbance: what to change in the process before the chapter, and in its environment
    before it starts."""

    name: str
    prepare: Callable[[], None] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    needs: str = ""  # a flag of the processor


def scaled_starts(k: int) -> Callable[[], None]:
    """Every random start, and every other normal draw of torch, times 1 + 2e-16 k."""

    def prepare() -> None:
        import torch

        from dlnlib import networks

        def disturbed(draw):
            def drawn(*args, **kwargs):
                made = draw(*args, **kwargs)
                return (
                    [W * (1 + ULP * k) for W in made]
                    if isinstance(made, list)
                    else made * (1 + ULP * k)
                )

            return drawn

        torch.randn = disturbed(torch.randn)
        for name in ("orthogonal", "balanced", "aligned"):  # gaussian starts are draws as they are
            swap(getattr(networks, name), disturbed(getattr(networks, name)))

    return prepare


def permuted_samples(seed: int) -> Callable[[], None]:
    """The samples of every data set in another order, which is the order of all sums over
    samples."""

    def prepare() -> None:
        import torch

        from dlnlib.data import Dataset

        def shuffled(self):
            order = torch.randperm(self.n, generator=torch.Generator().manual_seed(seed))
            return (self.y[:, None] * self.x)[order]

        Dataset.z = property(shuffled)

    return prepare


def two_threads() -> None:
    """Sums split over two threads, whatever the chapter asks for."""
    import torch

    set_threads = torch.set_num_threads
    set_threads(2)
    torch.set_num_threads = lambda count: set_threads(2)


NUDGES = {
    nudge.name: nudge
    for nudge in (
        Nudge("start + 1 ulp", scaled_starts(1)),
        Nudge("start + 2 ulp", scaled_starts(2)),
        Nudge("start - 3 ulp", scaled_starts(-3)),
        Nudge("samples permuted", permuted_samples(1)),
        Nudge("samples permuted again", permuted_samples(2)),
        Nudge("two threads", two_threads, {"OMP_NUM_THREADS": "2"}),
        Nudge("ATen default", None, {"ATEN_CPU_CAPABILITY": "default"}),
        Nudge("ATen AVX2", None, {"ATEN_CPU_CAPABILITY": "avx2"}, "avx2"),
        Nudge("ATen AVX-512", None, {"ATEN_CPU_CAPABILITY": "avx512"}, "avx512f"),
        Nudge("MKL compatible", None, {"MKL_CBWR": "COMPATIBLE"}),
        Nudge("OpenBLAS Nehalem", None, {"OPENBLAS_CORETYPE": "Nehalem"}),
        Nudge("OpenBLAS Haswell", None, {"OPENBLAS_CORETYPE": "Haswell"}, "avx2"),
        Nudge("OpenBLAS Skylake-X", None, {"OPENBLAS_CORETYPE": "SkylakeX"}, "avx512f"),
        Nudge("Numba generic", None, {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}),
        Nudge(
            "all generic",
            scaled_starts(-1),
            {
                "ATEN_CPU_CAPABILITY": "default",
                "MKL_CBWR": "COMPATIBLE",
                "OPENBLAS_CORETYPE": "Nehalem",
                "NUMBA_CPU_NAME": "generic",
                "NUMBA_CPU_FEATURES": "",
            },
        ),
    )
}


def possible(nudge: Nudge) -> bool:
    """Whether this processor has what the nudge needs."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return not nudge.needs
    return not nudge.needs or nudge.needs in flags


def difference(chapter: Chapter, outcome: Outcome) -> str:
    """What differs from the reference, in one line; empty when nothing does."""
    if outcome.error:
        return outcome.error
    reference = nbformat.read(FOLDER / f"{chapter.name}.ipynb", as_version=4)
    expected = [
        line for cell in reference.cells for o in cell.get("outputs", []) for line in _lines(o)
    ]
    found = [line for text in outcome.texts for line in text.splitlines()]
    if len(expected) != len(found):
        return f"{len(found)} lines instead of {len(expected)}"
    other = [
        f"{b.strip()} [instead of: {a.strip()}]"
        for a, b in zip(expected, found, strict=True)
        if a != b
    ]
    recorded = json.loads((FOLDER / f"{chapter.name}.json").read_text(encoding="utf-8"))
    before = [verdict for cell in reference.cells for verdict in recorded.get(cell.id, [])]
    return "; ".join(other + moved(before, record(outcome.verdicts)))


def _lines(output) -> list[str]:
    text = output["data"]["text/plain"]
    return [] if text.startswith("[figure:") else text.splitlines()  # a picture in words


def one(chapter: Chapter, nudge: Nudge) -> dict[str, str]:
    """Run a chapter under a nudge whose environment is set already; returns its row."""
    outcome = forked(chapter, {}, nudge.prepare)
    found = difference(chapter, outcome)
    result = "differs" if found else "same"
    values = (
        chapter.name,
        code(chapter),
        nudge.name,
        result,
        str(round(outcome.seconds, 1)),
        found[:1000],
    )
    return dict(zip(COLUMNS, values, strict=True))


def worker(names: list[str], nudge: Nudge) -> None:
    """Run these chapters one after another in this process, adding a row for each as it ends."""
    warm()
    for chapter in chapters(ROOT):
        if chapter.name in names:
            row = one(chapter, nudge)
            TABLE.add(row)
            if row["difference"]:
                print(f"{chapter.name} under {nudge.name}: {row['difference'][:400]}", flush=True)


def todo(names: list[str], nudges: list[Nudge]) -> list[tuple[Nudge, list[str]]]:
    """For each nudge the chapters whose row is missing or out of date."""
    present = {(row["nudge"], row["chapter"]) for row in TABLE.current(codes(chapters(ROOT)))}
    missing = [
        (nudge, [name for name in names if (nudge.name, name) not in present]) for nudge in nudges
    ]
    return [(nudge, left) for nudge, left in missing if left]


def start(nudge: Nudge, names: list[str]) -> int:
    """A process with the nudge's environment for these chapters."""
    command = [sys.executable, __file__, "--worker", nudge.name, *names]
    return subprocess.run(command, env={**os.environ, **nudge.environment}, cwd=ROOT).returncode


def table(names: list[str], nudges: list[Nudge]) -> str:
    """Chapter x nudge: `.` the same, `X` differs, blank not run."""
    results = {
        (row["chapter"], row["nudge"]): row["result"]
        for row in TABLE.current(codes(chapters(ROOT)))
    }
    signs = {"same": ".", "differs": "X", None: " "}
    width = max(map(len, names))
    lines = [f"{' ' * width}  {i}: {nudge.name}" for i, nudge in enumerate(nudges, 1)]
    lines.append(f"{' ' * width}  " + " ".join(f"{i:>2}" for i in range(1, len(nudges) + 1)))
    for name in names:
        cells = " ".join(f"{signs[results.get((name, nudge.name))]:>2}" for nudge in nudges)
        lines.append(f"{name:<{width}}  {cells}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER")
    parser.add_argument(
        "--nudge", action="append", choices=NUDGES, metavar="NAME", help=", ".join(NUDGES)
    )
    parser.add_argument("--worker", choices=NUDGES, help=argparse.SUPPRESS)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    if options.worker:
        worker(options.chapters, NUDGES[options.worker])
        return 0
    asked = [NUDGES[name] for name in options.nudge or NUDGES]
    nudges = [nudge for nudge in asked if possible(nudge)]
    for nudge in asked:
        if nudge not in nudges:
            print(f"left out: {nudge.name} (this processor has no {nudge.needs})")
    names = [
        c.name
        for c in chapters(ROOT)
        if c.claims and (not options.chapters or c.name in options.chapters)
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda job: start(*job), todo(names, nudges)))
    print(table(names, nudges))
    rows = [row for row in TABLE.current(codes(chapters(ROOT))) if row["chapter"] in names]
    rows = [row for row in rows if row["nudge"] in [nudge.name for nudge in nudges]]
    differing = [row for row in rows if row["result"] == "differs"]
    for row in differing:
        print(f"  {row['chapter']} under {row['nudge']}: {row['difference'][:300]}")
    return 1 if differing or len(rows) < len(names) * len(nudges) else 0


if __name__ == "__main__":
    raise SystemExit(main())
