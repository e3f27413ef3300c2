"""The package's docstring is the map of its modules: every one is on it, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import dlnlib


def test_the_map_names_every_module():
    rooms = dlnlib.__doc__.split("The rooms:")[1]
    folder = Path(dlnlib.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    named = set(re.findall(r"[a-z]+", re.sub(r"\(.*?\)|^\w[\w ]*?  +|\w[\w ]+:", "", rooms, flags=re.M | re.S)))
    assert modules <= named
    assert named <= modules | {"kernels"}
