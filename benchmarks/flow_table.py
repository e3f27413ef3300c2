"""The flow to log(1/risk) = 1e9: seconds against targets, and against scipy's stiff solvers at
small sizes."""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import time
from functools import partial

import numpy as np
import torch

import dlnlib as dl
from benchmarks.measure import clock, compare, versus
from dlnlib.losses.gradients import layer_gradients
from dlnlib.networks.product import flatten, products_above, unflatten

__all__ = ["against_targets", "against_scipy", "memory"]


def against_targets(case, repeats):
    """Seconds of whole runs, records included, beside the time that was asked for."""
    z, weights = case.problem()

    def ours():
        dl.flow(weights, z, dl.logistic, until=case.until)

    ours()
    return [
        versus(
            case.name, _sizes(case, z), [clock(ours) for _ in range(repeats)], "target", case.target
        )
    ]


def against_scipy(case, repeats, cap):
    """BDF and Radau on the unit sphere, clock log ||theta||, with and without Jacobian; stopped
    after `cap` seconds."""
    z, weights = case.problem()

    def ours():
        dl.flow(weights, z, dl.logistic, until=case.until)

    ours()
    peers = {}
    for method in ("BDF", "Radau"):
        for exact in (False, True):
            name = f"scipy {method}{', own Jacobian' if exact else ''} (cap {cap:g} s)"
            peers[name] = partial(_scipy_seconds, z, weights, method, exact, case.until, cap)
    return compare(case.name, _sizes(case, z), lambda: clock(ours), peers, repeats)


def memory(case):
    """A line: peak memory of a process that does nothing but this run."""
    work = (
        "import dlnlib as dl; from benchmarks.cases import FlowCase;"
        f"z, weights = {case!r}.problem(); dl.flow(weights, z, dl.logistic, until={case.until})"
    )
    subprocess.run([sys.executable, "-c", work], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return f"peak memory of {case.name}, with Python, torch and Numba: {peak:.0f} MB"


def _sizes(case, z):
    return {"n": z.shape[0], "d": z.shape[1]} | vars(case)


def _scipy_seconds(z, weights, method, exact, until, cap):
    """Seconds that scipy takes, infinity beyond the cap. Margins are r^L m(phi), so that float64
    suffices."""
    from scipy.integrate import solve_ivp

    dims = [W.shape[-1] for W in weights] + [1]
    depth, ends = len(weights), time.process_time() + cap
    start = flatten(weights)[0]

    def velocity(s, phi):
        layers = unflatten(phi, dims)
        rows = products_above(layers)
        p = torch.softmax(dl.logistic.log_slopes(torch.exp(depth * s) * (z @ rows[0][0])), dim=0)
        g = torch.cat([G.flatten() for G in layer_gradients(layers, (p @ z)[None], rows)])
        return g / (g @ phi) - phi

    def plain(s, phi):
        if time.process_time() > ends:
            raise TimeoutError
        return velocity(torch.tensor(s), torch.from_numpy(phi)).numpy()

    def jacobian(s, phi):
        return torch.func.jacrev(velocity, argnums=1)(
            torch.tensor(s), torch.from_numpy(phi)
        ).numpy()

    def reached(s, phi):
        m = math.exp(depth * s) * dl.margins(unflatten(torch.from_numpy(phi), dims), z)
        return math.log(max(-dl.logistic.log_risk(m).item(), 1e-3) / until)

    reached.terminal = True
    norm = start.norm().item()
    span = (math.log(norm), math.log(norm) + 60.0)
    options = {"jac": jacobian} if exact else {}
    began = time.process_time()
    try:
        found = solve_ivp(
            plain,
            span,
            (start / norm).numpy(),
            method,
            events=reached,
            rtol=1e-6,
            atol=1e-9,
            **options,
        )
    except (TimeoutError, np.linalg.LinAlgError, ValueError):
        return math.inf
    return time.process_time() - began if found.status == 1 else math.inf
