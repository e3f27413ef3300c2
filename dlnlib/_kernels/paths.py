"""Paths of equal steps for one run, compiled: how the order of the two methods of `runge_kutta` is
seen."""

from __future__ import annotations

from numba import njit

from dlnlib._kernels.jit import JIT, fingerprint
from dlnlib._kernels.runge_kutta import explicit_step, implicit_step, observe

__all__ = ["end"]

_FILES = (
    "jit.py",
    "slopes.py",
    "tails.py",
    "jacobian.py",
    "proximal.py",
    "runge_kutta.py",
    "paths.py",
)


def _entry(files):
    @njit(cache=True, **JIT)
    def end(problem, theta, length, steps, implicit, allowed):
        """Weights (P,) after `steps` equal steps of one method along a path of that length; no
        error is looked at.

        The stages of the implicit method are solved as for a step whose error is `allowed`.
        """
        files  # noqa: B018  part of the key of the cache on disk
        here, h = observe(problem, theta), length / steps
        for _ in range(steps):
            if implicit:
                here = implicit_step(problem, here, h, allowed)[0]
            else:
                here = explicit_step(problem, here, h, allowed)[0]
        return here.theta

    return end


end = _entry(fingerprint(*_FILES))
