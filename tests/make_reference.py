"""Reference notebooks: each chapter's code with the stable text of its verdicts, and nothing else,
as expected output.

`nbval` runs them; cells that show a verdict are compared strictly, all others only have to run. The
measured numbers lie beside each notebook in a JSON file, by cell, and are compared as numbers
(`numbers_within.py`). Written by `make reference`, which runs every chapter at its defaults;
`python tests/make_reference.py NAME ...` writes some only.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from numbers_within import record

from dlnlib.book.chapters import Chapter, chapters, convert
from dlnlib.book.execute import ChapterFailed, execute
from dlnlib.errors import DlnError
from dlnlib.verdict.ledger import gather
from dlnlib.verdict.verdict import MIME

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "reference"


def sources(notebook) -> list[str]:
    """The code of a notebook, cell by cell: what a reference must agree with."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def reference(executed):
    """The reference notebook of an executed chapter."""
    made = nbformat.v4.new_notebook(metadata={"kernelspec": executed.metadata["kernelspec"]})
    for number, cell in enumerate(c for c in executed.cells if c.cell_type == "code"):
        shown = [output for output in cell.outputs if MIME in output.get("data", {})]
        kept = [_text_only(output) for output in cell.outputs if "data" in output] if shown else []
        tag = "nbval-check-output" if shown else "nbval-ignore-output"
        new = nbformat.v4.new_code_cell(
            cell.source, outputs=kept, metadata={"tags": [tag]}, id=f"cell-{number}"
        )
        new.execution_count = number + 1  # nbval refuses outputs of a cell that was never run
        made.cells.append(new)
    return made


def _text_only(output):
    """A verdict as its text, without table and data; a picture as its name."""
    data = {"text/plain": output["data"]["text/plain"]}
    return nbformat.v4.new_output("display_data", data=data, metadata={})


def measured(executed) -> dict[str, list[dict]]:
    """The measured numbers of each cell that shows a verdict, by the cell's id in the reference."""
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    found = {
        f"cell-{number}": record(gather({"cells": [cell]})) for number, cell in enumerate(code)
    }
    return {name: entries for name, entries in found.items() if entries}


def write(chapter: Chapter, folder: Path) -> None:
    """Execute one chapter and write its reference."""
    executed = execute(chapter, {})
    nbformat.write(reference(executed), folder / f"{chapter.name}.ipynb")
    numbers = json.dumps(measured(executed), indent=1)
    (folder / f"{chapter.name}.json").write_text(numbers + "\n", encoding="utf-8")
    print(f"{chapter.name}: reference written", flush=True)


def outdated(found: list[Chapter], folder: Path) -> list[str]:
    """Chapters whose reference is missing or holds other code, and references without a chapter."""
    stale = []
    for chapter in found:
        file = folder / f"{chapter.name}.ipynb"
        if not file.is_file() or sources(nbformat.read(file, as_version=4)) != sources(
            convert(chapter.path)
        ):
            stale.append(chapter.name)
    names = {chapter.name for chapter in found}
    return stale + [file.stem for file in sorted(folder.glob("*.ipynb")) if file.stem not in names]


def attempted(chapter: Chapter) -> str:
    """Write one reference; says what went wrong instead of ending the others."""
    try:
        write(chapter, FOLDER)
    except (DlnError, ChapterFailed) as err:
        return f"{chapter.name}: no reference ({err})"
    return ""


def main(names: list[str]) -> int | str:
    found = chapters(ROOT)
    FOLDER.mkdir(exist_ok=True)
    for name in outdated(found, FOLDER):
        if name not in [chapter.name for chapter in found]:
            for ending in (".ipynb", ".json"):
                (FOLDER / name).with_suffix(ending).unlink(missing_ok=True)
    wanted = [chapter for chapter in found if not names or chapter.name in names]
    with ThreadPoolExecutor(2) as pool:
        failed = [line for line in pool.map(attempted, wanted) if line]
    return "\n".join(failed) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
