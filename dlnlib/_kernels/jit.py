"""How the kernels are compiled: Numba's options, and a cache on disk that sees every file of a
kernel."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

__all__ = ["EPS", "INNER", "JIT", "fingerprint"]

EPS = float(np.finfo(np.float64).eps)

# Sums may be reordered and contracted, so that they vectorise; NaN and infinity keep their meaning,
# x / 0 is infinite.
JIT = {"fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy"}

# For functions that compiled code alone calls: nothing is compiled that would hand their arguments
# over from Python.
INNER = {**JIT, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def fingerprint(*files: str) -> str:
    """Hash of these files of the library. Numba's cache looks at the file of the cached function
    alone, so that an edit of a function it calls from another file would go unseen; closed over by
    it, the hash is part of its key."""
    folder = Path(__file__).parent
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in files)).hexdigest()
