"""The cache of compiled kernels on disk must see an edit of any file that they are made of."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from dlnlib._kernels import descent as compiled
from dlnlib._kernels import jit

FOLDER = Path(jit.__file__).parent
CACHED = sorted(path.stem for path in FOLDER.glob("*.py") if "cache=True" in path.read_text())


def compiled_from(name, folder=FOLDER):
    """Files that make the compiled functions of a file, with its own: `jit`, `rule_numbers`, and
    all with such functions."""
    seen, waiting = set(), [name]
    while waiting:
        here = waiting.pop()
        text = (folder / here).read_text()
        if here not in seen and ("njit" in text or here in ("jit.py", "rule_numbers.py")):
            seen.add(here)
            waiting += [
                f"{module}.py"
                for module in re.findall(r"^from dlnlib\._kernels\.(\w+) import", text, re.M)
            ]
            waiting += [
                f"{module}.py"
                for modules in re.findall(r"^from dlnlib\._kernels import (.*)", text, re.M)
                for module in modules.split(", ")
            ]
    return seen


def test_the_cached_kernels_are_those_of_flow_and_descent():
    assert {"descent", "descent_batched", "flow"} <= set(CACHED)


@pytest.mark.parametrize("name", CACHED)
def test_every_file_of_a_cached_kernel_is_in_its_fingerprint(name):
    module, text = (
        importlib.import_module(f"dlnlib._kernels.{name}"),
        (FOLDER / f"{name}.py").read_text(),
    )
    assert compiled_from(f"{name}.py") == set(module._FILES)
    assert "fingerprint(*_FILES)" in text
    bodies = text.split("@njit(cache=True")[1:]
    # closed over, or it would not be in the key
    assert all("\n        files  # noqa: B018" in body for body in bodies)


@pytest.mark.parametrize("name", CACHED)
def test_the_fingerprint_is_closed_over(name):
    module = importlib.import_module(f"dlnlib._kernels.{name}")
    cached = [
        f
        for f in vars(module).values()
        if getattr(f, "_cache", None).__class__.__name__ == "FunctionCache"
    ]
    # not those imported from another file
    entries = [f for f in cached if f.py_func.__module__ == module.__name__]
    keys = [cell.cell_contents for f in entries for cell in f.py_func.__closure__]
    assert keys and set(keys) == {jit.fingerprint(*module._FILES)}


def test_an_entry_misses_no_call_into_another_file(tmp_path):
    """The search above finds what it should: a file imported by a file that the entry imports."""
    (tmp_path / "a.py").write_text("from dlnlib._kernels.b import f\nnjit")
    (tmp_path / "b.py").write_text("from dlnlib._kernels.c import g\nnjit")
    (tmp_path / "c.py").write_text("njit")
    assert compiled_from("a.py", tmp_path) == {"a.py", "b.py", "c.py"}
    (tmp_path / "a.py").write_text("from dlnlib._kernels import c, b\nnjit")
    assert compiled_from("a.py", tmp_path) == {"a.py", "b.py", "c.py"}


def test_an_edit_changes_the_fingerprint(tmp_path, monkeypatch):
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    before = jit.fingerprint("a.py", "b.py")
    assert jit.fingerprint("a.py", "b.py") == before
    (tmp_path / "b.py").write_text("2")
    assert jit.fingerprint("a.py", "b.py") != before


def test_the_cache_on_disk_goes_by_the_fingerprint():
    """Numba's key of an entry changes with the hash that it closes over, its file unchanged."""

    def key(entry):
        return entry._cache._index_key(compiled.advance.signatures or ((),), _codegen())

    def _codegen():
        from numba.core.registry import cpu_target

        return cpu_target.target_context.codegen()

    one, same, other = (compiled._entry(text) for text in ("1", "1", "2"))
    assert key(one) == key(same) != key(other)
