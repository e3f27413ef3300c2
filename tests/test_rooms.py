"""The rooms of the library: data go one way, no circle, nothing private from elsewhere, nothing
loaded too early."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT

import dlnlib

# A room may import those of a smaller number, and itself.
LEVELS = {
    "errors": 0,
    "_checks": 1,
    "data": 2,
    "networks": 3,
    "losses": 4,
    "measure": 5,
    "_kernels": 5,  # behind `dynamics` alone
    "dynamics": 6,
    "theory": 6,
    "verdict": 6,
    "book": 7,
    "hypotheses": 8,
    "recorder": 8,  # measures with torch, and draws with the book: on top of both
    "sweeps": 8,
    "cli": 9,
}
KERNELS_FOR = {"_kernels", "dynamics"}
# data are looked at when there are some: the book and the command know no torch
LATE = {
    ("book.parameters", "data.sources"),
    ("cli", "data.options"),
    ("cli", "hypotheses.page"),
    ("cli", "hypotheses.report"),
}


@dataclass(frozen=True)
class Arrow:
    """One import of a module of the library by another, by their names below `dlnlib`."""

    here: str
    there: str
    name: str
    late: bool  # inside a function
    types_only: bool

    @property
    def rooms(self) -> tuple[str, str]:
        return self.here.split(".")[0], self.there.split(".")[0]

    def __str__(self) -> str:
        return f"{self.here} imports {self.name} from {self.there}"


def arrows(package: Path) -> list[Arrow]:
    """All imports inside the package."""
    found = []
    for path in sorted(package.rglob("*.py")):
        here = ".".join(path.relative_to(package).with_suffix("").parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.ImportFrom)
                and (node.module or "").partition(".")[0] == "dlnlib"
            ):
                found += _of(node, here, tree)
    return found


def _of(node: ast.ImportFrom, here: str, tree: ast.Module) -> list[Arrow]:
    module = node.module.partition(".")[2]
    guarded = [
        n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
    ]
    types_only = any(node in ast.walk(block) for block in guarded)
    late = node not in tree.body and not types_only
    return [Arrow(here, module or alias.name, alias.name, late, types_only) for alias in node.names]


def wrong(found: list[Arrow]) -> list[str]:
    """Arrows that break a rule of the house, each with the rule."""
    said = []
    for arrow in found:
        here, there = arrow.rooms
        if arrow.types_only or arrow.name == "__version__":
            continue
        if there not in LEVELS or here not in LEVELS:
            said.append(f"{arrow}: no room of that name")
        elif here != there and LEVELS[there] >= LEVELS[here]:
            said.append(f"{arrow}: against the direction of data")
        elif there == "_kernels" and here not in KERNELS_FOR:
            said.append(f"{arrow}: kernels are behind `dynamics`")
        elif arrow.name.startswith("_") and arrow.there.count(".") and arrow.there != arrow.here:
            said.append(f"{arrow}: private there")
        elif arrow.late and there != "_kernels" and (arrow.here, arrow.there) not in LATE:
            said.append(f"{arrow}: inside a function")
    return said


def circles(found: list[Arrow]) -> list[str]:
    """Modules that import each other in a ring."""
    below: dict[str, set[str]] = {}
    for arrow in found:
        if not (arrow.late or arrow.types_only or arrow.here.endswith("__init__")):
            below.setdefault(arrow.here, set()).add(arrow.there)
    done: set[str] = set()
    said: list[str] = []

    def walk(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            said.append(" <- ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for lower in sorted(below.get(module, ())):
                walk(lower, (*path, module))
            done.add(module)

    for module in sorted(below):
        walk(module, ())
    return said


PACKAGE = Path(dlnlib.__file__).parent


def test_data_go_one_way():
    assert wrong(arrows(PACKAGE)) == []


def test_no_module_imports_itself_through_others():
    assert circles(arrows(PACKAGE)) == []


@pytest.mark.parametrize(
    ("room", "line", "rule"),
    [
        ("data", "from dlnlib.networks.product import end_to_end", "direction"),
        ("theory", "from dlnlib.dynamics.gradient_flow import flow", "direction"),
        ("dynamics", "from dlnlib.theory.balance import gap_limit", "direction"),
        ("theory", "from dlnlib._kernels.jit import JIT", "behind"),
        ("theory", "from dlnlib.theory.balance import _apply", "private"),
        ("theory", "def f():\n    from dlnlib.theory.balance import gap_limit", "inside"),
        ("theory", "from dlnlib.metrics import norm", "no room"),
    ],
)
def test_the_rules_can_say_no(tmp_path, room, line, rule):
    (tmp_path / room).mkdir()
    (tmp_path / room / "planted.py").write_text(line)
    assert rule in wrong(arrows(tmp_path))[0]


def test_a_ring_is_seen(tmp_path):
    for here, there in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{here}.py").write_text(f"from dlnlib.{there} import x")
    assert circles(arrows(tmp_path)) == ["a <- b <- c <- a"]


@pytest.mark.parametrize(
    "module", ["dlnlib", "dlnlib.verdict", "dlnlib.book.run", "dlnlib.sweeps", "dlnlib.cli"]
)
def test_the_face_the_verdict_and_the_book_know_no_torch(module):
    look = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], cwd=ROOT).returncode == 0


def test_nothing_heavy_but_torch_is_loaded_with_the_face():
    heavy = ("scipy", "numba", "sklearn", "clarabel", "matplotlib", "papermill", "sphinx")
    look = "import sys, dlnlib as dl; [getattr(dl, name) for name in dl.__all__]; "
    look += f"sys.exit(' '.join(name for name in {heavy} if name in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_name_of_the_face_is_there_and_says_what_it_is():
    names = set(dlnlib.__all__)
    assert 50 <= len(names) <= 80
    for name in sorted(names - {"__version__"}):
        assert getattr(dlnlib, name).__doc__, name


def test_no_module_is_hidden_by_a_name_of_its_package():
    """`from dlnlib.theory import margin` must not depend on what was imported before."""
    rooms = "data networks losses measure dynamics theory hypotheses verdict recorder sweeps"
    for room in rooms.split():
        names = set(importlib.import_module(f"dlnlib.{room}").__all__)
        assert not names & {path.stem for path in (PACKAGE / room).glob("*.py")}, room
