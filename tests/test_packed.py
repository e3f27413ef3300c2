"""Compiled margins and steps of models against their NumPy side: every family and option, and a
planted difference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numba import njit

import dlnlib as dl
from dlnlib import dynamics, networks
from dlnlib._kernels import layers, packed, packed_step
from dlnlib._kernels.jit import JIT
from dlnlib._kernels.model_step import Mode, Packed, Stepper, stepper
from dlnlib.dynamics.model_descent import _looker
from dlnlib.networks.feed_forward import POWERS, SMOOTH

EXP = dl.exponential
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(7, 5, generator=GENERATOR, dtype=torch.float64)
Y = torch.tensor([1.0, -1, 1, 1, -1, -1, 1], dtype=torch.float64)
MODELS = {
    "linear": dl.linear(X),
    "deep linear": dl.deep_linear(X, [4, 3]),
    "no hidden layer": dl.deep_linear(X),
    "relu": dl.relu(X, Y, [6, 4, 3], linear_tail=1),
    "two layers": dl.two_layer(X, Y, 6),
    "powers": dl.feedforward(X, Y, [4, 3, 3], ["relu^2", "relu", "relu^3"]),
    "first bias": dl.feedforward(X, Y, [4, 3], "relu", bias="first"),
    "output bias": dl.feedforward(X, Y, [4], "relu", bias="output"),
    "all biases": dl.feedforward(X, Y, [4, 3], "softplus", bias="all"),
    "tanh": dl.feedforward(X, Y, [4], "tanh"),
    "kinks above and below": dl.feedforward(
        X, Y, [4, 3, 4], ["relu", "tanh", "relu"], bias="all", skip=True
    ),
    "skip": networks.skip(X, 4),
    "residual": networks.residual(X),
    "deep residual": dl.feedforward(X, Y, [5, 5, 5], "relu", residual=True),
    "all at once": dl.feedforward(X, Y, [5, 5], "relu", bias="all", residual=True, skip=True),
    "diagonal": dl.diagonal(X, 3),
    "one vector": dl.diagonal(X, 1),
    "circular": dl.circular_convolution(X, 3),
    "bottleneck": dl.circular_convolution(X, 2, kernel=3),
}


@njit(**JIT)
def algebra(net, theta, on, p, v, points):
    """Margins, pre-activations, J^T p, J v and J J^T."""
    seen = packed.look(net, theta, on)
    gram = packed.gram(net, seen, points)
    return seen.q, seen.pre, packed.pull(net, seen, p), packed.push(net, seen, v), gram


def apart(one, other):
    """Largest difference over the largest entry."""
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    assert one.shape == other.shape
    return np.abs(one - other).max(initial=0.0) / max(np.abs(other).max(initial=0.0), 1e-300)


def differences(model, change=None):
    """Of all that the packed model says of itself, by signs and by a pattern with slopes between 0
    and 1."""
    draws, theta = np.random.default_rng(1), model.flat([p + 0.05 for p in model.start(1)])
    p, v, points = draws.random(7), draws.normal(size=model.size), np.array([5, 0, 2])
    net = packed.packed(model)
    net = change(net) if change else net
    found = []
    for on in (None, draws.random(len(model.forward(theta).pre))):
        at = model.forward(theta, on)
        J = model.jacobian(at)
        ours = algebra(net, theta, on, p, v, points)
        known = at.q, at.pre, p @ J, J @ v, J[points] @ J[points].T
        found += [apart(one, other) for one, other in zip(ours, known, strict=True)]
        if len(at.pre):
            pattern = at.pre > 0 if on is None else on
            which = np.arange(len(at.pre))
            ours = packed_step.kinks(net, theta, pattern.astype(float), which)
            found += [apart(*pair) for pair in zip(ours, model.switches(at, which), strict=True)]
    return max(found)


@pytest.mark.parametrize("name", MODELS)
def test_margins_and_gradients_are_those_of_numpy(name):
    assert differences(MODELS[name]) < 1e-12


@pytest.mark.parametrize("field", ["xt", "y", "gram"])
def test_a_planted_difference_is_seen(field):
    def change(net):
        spoilt = getattr(net, field).copy()
        spoilt.flat[0] *= 1 + 1e-9
        return net._replace(**{field: spoilt})

    assert differences(MODELS["two layers"], change) > 1e-12


def test_a_planted_difference_of_a_product_is_seen():
    assert (
        differences(MODELS["circular"], lambda net: net._replace(factor=net.factor * (1 + 1e-9)))
        > 1e-12
    )


def steppers(model, by_norm=False):
    """The compiled and the NumPy stepper."""
    ours = stepper(model, 0, by_norm)
    assert isinstance(ours, Packed)
    return ours, Stepper(model, 0, by_norm)


@pytest.mark.parametrize("by_norm", [False, True])
@pytest.mark.parametrize("held", [(), (3, 17, 8)], ids=["free", "sliding"])
@pytest.mark.parametrize(
    "name", ["two layers", "relu", "all at once", "all biases", "circular", "diagonal", "linear"]
)
def test_points_and_steps_are_those_of_numpy(name, held, by_norm):
    model = MODELS[name]
    theta = model.flat([p + 0.05 for p in model.start(2)])
    on = model.forward(theta).pre > 0
    if held and not len(on):
        return
    on[list(held)] = False
    mode = Mode(on, held)
    points, steps = [], []
    for one in steppers(model, by_norm):
        here = one.observe(theta, mode)
        points.append(here)
        steps.append((one.explicit(here, 0.01, 1e-6), one.implicit(here, 0.05, 1e-6)))
    ours, known = points
    for field in ("slope", "log_p", "psi", "log_rate", "growth", "raw"):
        assert apart(getattr(ours, field), getattr(known, field)) < 1e-12
    for ours, known in zip(*steps, strict=True):
        assert apart(ours[0].theta, known[0].theta) < 1e-12
        assert apart(ours[0].slope, known[0].slope) < 1e-9  # as far as the stages are solved
        assert abs(ours[1] - known[1]) < 1e-5 * known[1] + 1e-9  # a difference of slopes


def test_gradients_that_depend_on_each_other_are_projected_out_as_in_numpy():
    """Units of a layer whose input is zero, and the same unit at more points than it has inputs."""
    model = MODELS["relu"]
    theta = model.flat(model.start(2))
    on = np.zeros(len(model.forward(theta).pre), dtype=bool)
    on[0:42:6] = True
    mode = Mode(on, (*range(1, 42, 6), 42, 43))
    ours, known = (one.observe(theta, mode) for one in steppers(model))
    assert apart(ours.slope, known.slope) < 1e-9


def numpy_alone(monkeypatch):
    monkeypatch.setattr(packed, "packed", lambda model: None)


def blobs(n=12, d=5, seed=3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4 * n, d, generator=generator, dtype=torch.float64)
    x = x[x[:, 0].abs() > 0.3][:n]
    return x, x[:, 0].sign()


@pytest.mark.parametrize(
    "make",
    [lambda x, y: dl.two_layer(x, y, 6), lambda x, y: dl.circular_convolution(x * y[:, None], 2)],
    ids=["relu", "circular"],
)
def test_whole_flows_agree_with_numpy_event_for_event(make, monkeypatch):
    model = make(*blobs())
    start = model.start(1, 0.7)
    ours = dl.flow(start, model, EXP, until=60)
    numpy_alone(monkeypatch)
    known = dl.flow(start, model, EXP, until=60)
    assert ours.status == known.status and ours.settings["steps"] == known.settings["steps"]
    assert ours.totals == known.totals
    for W, V in zip(ours.weights, known.weights, strict=True):
        assert apart(W, V) < 1e-6


@pytest.mark.parametrize(
    "rule",
    [
        dl.Constant(0.05),
        dl.LossScaled(0.5),
        dynamics.LogLoss(0.005),
        dl.Steepest("spectral", 0.01),
        dl.Adam(0.01),
    ],
    ids=repr,
)
def test_descent_agrees_with_numpy(rule, monkeypatch):
    model = dl.two_layer(*blobs(), 6)
    start = model.start(1)
    ours = dl.descend(start, model, EXP, rule, 200)
    numpy_alone(monkeypatch)
    known = dl.descend(start, model, EXP, rule, 200)
    for W, V in zip(ours.weights, known.weights, strict=True):
        assert apart(W, V) < 1e-9
    assert ours.totals == known.totals and ours.status == known.status


def test_functions_of_the_user_and_rules_that_look_at_the_pass_stay_with_numpy():
    model = MODELS["two layers"]
    assert packed.packed(dl.autograd(model, model.shapes)) is None
    assert type(stepper(dl.autograd(model, model.shapes), 0, False)) is Stepper
    theta = model.flat(model.start(0))
    assert _looker(model, EXP, dynamics.Sample(0.1))(theta).at.kept
    assert not _looker(model, EXP, dynamics.LogLoss(0.1))(theta).at.kept


def test_kinds_are_numbered_as_the_kernel_reads_them():
    assert set(layers._KINDS) == set(SMOOTH) | set(POWERS)
    assert all(layers._KINDS[power] == name for name, power in POWERS.items())
