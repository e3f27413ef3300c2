"""Gradient descent: steps a second against peers and against the machine, recording, the theorem's
rule."""

from __future__ import annotations

import math

import numpy as np
import torch

import dlnlib as dl
from benchmarks import jax_peers, peers
from benchmarks.measure import clock, compare, copy_seconds, product_seconds, versus
from dlnlib import measure
from dlnlib.dynamics.margin_descent import stepper
from dlnlib.networks.product import flatten, unflatten

__all__ = ["against_peers", "several_outputs", "recording", "theorem_rule"]

AGREEMENT = 1e-12
SLICE = 0.05  # seconds a timing should last at least


def against_peers(batch, repeats):
    """Seconds a step, ours against every peer; stops with an error if any of them computes
    something else."""
    z, weights = batch.problem()

    def ours(steps):
        return _steps_alone(batch, z, weights, steps)

    ways = {
        name: way and (lambda steps, way=way: way(z, weights, batch.eta, steps))
        for name, way in (peers.PEERS | jax_peers.PEERS).items()
    }
    for name, way in ways.items():
        if way:
            _must_agree(name, way(5), ours(5))
    own = _per_step(ours)
    timed = {name: way and _per_step(way) for name, way in ways.items()}
    rows = compare(batch.name, vars(batch), own, timed, repeats)
    size, operations = batch.traffic()
    times = [own() for _ in range(repeats)]
    limits = {
        "limit: weights read and written once": copy_seconds(size),
        "limit: operations at the product rate": product_seconds(operations),
    }
    return rows + [
        versus(
            batch.name,
            {"bytes": size, "operations": operations} | vars(batch),
            times,
            name,
            seconds,
        )
        for name, seconds in limits.items()
    ]


def _steps_alone(batch, z, weights, steps):
    """What `descend` does, without records, but for the last weights."""
    theta, goals = flatten(weights).numpy().copy(), np.array([0, steps])
    points, clocks = np.empty((2, *theta.shape)), np.empty((2, batch.runs, 3))
    stepper(theta, batch.dims, z, dl.logistic, dl.Constant(batch.eta))(goals, points, clocks)
    return unflatten(torch.from_numpy(theta), batch.dims)


def _per_step(way):
    """A function that times `way` over enough steps, always the same number (JAX compiles for it),
    a step."""

    def seconds(steps):
        return clock(lambda: way(steps))

    steps = 5
    seconds(steps)  # compiles, or fills caches
    while (took := seconds(steps)) < SLICE:
        steps = math.ceil(steps * min(10, 1.5 * SLICE / took))
        seconds(steps)
    return lambda: seconds(steps) / steps


def _must_agree(name, theirs, ours):
    for a, b in zip(theirs, ours, strict=True):
        difference = (a - b).abs().max().item() / b.abs().max().item()
        if not difference <= AGREEMENT:
            raise SystemExit(
                f"{name} differs from ours by {difference:.1e}, needed at most {AGREEMENT:.0e}"
            )


def several_outputs(batch, repeats):
    """Seconds a step with as many outputs as inputs, cross-entropy, audit of every step
    included."""
    z, _ = batch.problem()
    weights = dl.gaussian([batch.width] * (batch.depth + 1), 0, runs=(batch.runs,))
    classes = torch.arange(batch.n) % batch.width
    y = torch.nn.functional.one_hot(classes, batch.width).to(z)

    def ours(steps):
        rule = dl.Constant(batch.eta)
        return dl.descend(
            weights, dl.ScoreRisk(z, y, dl.cross_entropy), rule, steps, records=1
        ).final

    def peer(steps):
        return peers.vmap_grad_outputs(z.mT, classes, weights, batch.eta, steps)

    _must_agree("torch.func.vmap(grad)", peer(5), ours(5))
    return compare(
        f"several outputs, {batch.name}",
        vars(batch),
        _per_step(ours),
        {"torch.func.vmap(grad)": _per_step(peer)},
        repeats,
    )


def recording(batch, steps, repeats):
    """`descend` with its default records against the same steps alone."""
    z, weights = batch.problem()
    rule = dl.Constant(batch.eta)

    def bare():
        _steps_alone(batch, z, weights, steps)

    def ours():
        dl.descend(weights, z, dl.logistic, rule, steps)

    bare(), ours()
    return compare(
        f"recording, {batch.name}",
        {"steps": steps} | vars(batch),
        lambda: clock(ours),
        {f"no record of {steps} steps": lambda: clock(bare)},
        repeats,
    )


def theorem_rule(steps, repeats):
    """Steps of JT18's rule, L = 3 on the six points, against the target of 5 s for 200,000."""
    z = dl.six_points().scaled().z
    weights = measure.meeting_assumption_2(lambda s: dl.gaussian([2, 3, 3, 1], s), z, dl.logistic)
    rule = dl.SmoothnessStep.for_loss(dl.logistic, z)

    def ours():
        dl.descend(weights, z, dl.logistic, rule, steps)

    ours()
    return [
        versus(
            f"theorem's rule, {steps} steps, L=3",
            {"steps": steps, "depth": 3, "width": 3, "n": 6},
            [clock(ours) for _ in range(repeats)],
            "target",
            5.0 * steps / 200_000,
        )
    ]
