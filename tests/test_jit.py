"""The cache of compiled kernels on disk must see an edit of any file that they are made of."""

from __future__ import annotations

import re
from pathlib import Path

from dlnlib.kernels import jit, march

FOLDER = Path(jit.__file__).parent


def test_every_compiled_file_that_the_flow_calls_is_in_its_fingerprint():
    seen, waiting = set(), ["march.py"]
    while waiting:
        name = waiting.pop()
        text = (FOLDER / name).read_text()
        if name not in seen and ("njit" in text or name == "jit.py"):
            seen.add(name)
            waiting += [f"{module}.py" for module in re.findall(r"^from dlnlib\.kernels\.(\w+) import", text, re.M)]
    assert seen == set(march._FILES)


def test_an_edit_changes_the_fingerprint(tmp_path, monkeypatch):
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    before = jit.fingerprint("a.py", "b.py")
    assert jit.fingerprint("a.py", "b.py") == before
    (tmp_path / "b.py").write_text("2")
    assert jit.fingerprint("a.py", "b.py") != before
