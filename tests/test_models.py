"""Margin functions: closed-form Jacobians against automatic differentiation, Euler's identity,
kinks, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import dlnlib as dl
from dlnlib import networks
from dlnlib.errors import BadParameter, NonFinite, ShapeMismatch

F64 = torch.float64


def data(n=7, d=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=F64)
    return x, torch.where(torch.rand(n, generator=generator) > 0.5, 1.0, -1.0).to(F64)


X, Y = data()
HOMOGENEOUS = {
    "linear": (dl.deep_linear(X, [4, 3]), 3),
    "one layer": (dl.deep_linear(X), 1),
    "relu": (dl.relu(X, Y, [6, 4, 3], linear_tail=2), 4),
    "two layers": (dl.two_layer(X, Y, 6), 2),
    "squared relu": (dl.two_layer(X, Y, 6, power=2), 3),
    "relu^2, relu": (dl.feedforward(X, Y, [4, 3], ["relu^2", "relu"]), 4),
    "first bias": (dl.feedforward(X, Y, [4, 3], "relu", bias="first"), 3),
    "diagonal": (dl.diagonal(X, 3), 3),
    "circular": (dl.circular_convolution(X, 3), 3),
    "bottleneck": (dl.circular_convolution(X, 2, kernel=3), 2),
}
OTHER = {
    "skip": networks.skip(X, 4),
    "residual": networks.residual(X),
    "deep residual": dl.feedforward(X, Y, [5, 5], "relu", residual=True),
    "softplus": dl.feedforward(X, Y, [4, 3], "softplus", bias="all"),
    "tanh": dl.feedforward(X, Y, [4], "tanh"),
    "output bias": dl.feedforward(X, Y, [4], "relu", bias="output"),
    "relu and skip": dl.feedforward(X, Y, [4, 3], "relu", skip=True),
}
ALL = {**{name: model for name, (model, _) in HOMOGENEOUS.items()}, **OTHER}


@pytest.mark.parametrize("name", ALL)
def test_jacobian_agrees_with_automatic_differentiation(name):
    model = ALL[name]
    params = model.start(1)
    theta = model.flat(params)
    at = model.forward(theta)
    assert_allclose(at.q, model(params).numpy(), rtol=0, atol=1e-13 * np.abs(at.q).max())
    exact = torch.func.jacrev(lambda row: model(model.parts(row)))(torch.from_numpy(theta)).numpy()
    assert_allclose(model.jacobian(at), exact, rtol=0, atol=1e-12 * np.abs(exact).max())
    rows = np.array([2, 5])
    assert_allclose(model.jacobian(at, rows), exact[rows], rtol=0, atol=1e-12 * np.abs(exact).max())


@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_eulers_identity(name):
    model, degree = HOMOGENEOUS[name]
    assert model.degree == degree
    theta = model.flat(model.start(2))
    at = model.forward(theta)
    assert_allclose(
        model.jacobian(at) @ theta, degree * at.q, rtol=0, atol=1e-12 * np.abs(at.q).max()
    )
    assert_allclose(
        model.forward(1.7 * theta).q,
        1.7**degree * at.q,
        rtol=0,
        atol=1e-12 * 8 * np.abs(at.q).max(),
    )


@pytest.mark.parametrize("name", OTHER)
def test_other_models_are_not_homogeneous(name):
    model = OTHER[name]
    theta = model.flat([p + 0.1 for p in model.start(2)])
    at = model.forward(theta)
    assert model.degree is None
    euler = model.jacobian(at) @ theta
    assert min(np.abs(euler - L * at.q).max() for L in (1, 2, 3)) > 1e-3 * np.abs(at.q).max()


@pytest.mark.parametrize(
    "name", ["relu", "relu^2, relu", "two layers", "deep residual", "first bias", "relu and skip"]
)
def test_gradients_of_preactivations(name):
    model = ALL[name]
    params = [p + 0.01 for p in model.start(3)]
    theta = model.flat(params)
    at = model.forward(theta)
    layers = [k for k, kind in enumerate(model.activations) if kind.startswith("relu")]

    def preactivations(row):
        seen = model.hidden(model.parts(row), torch.from_numpy(model.x))
        return torch.cat([seen[k].reshape(-1) for k in layers])

    assert_allclose(at.pre, preactivations(torch.from_numpy(theta)).numpy(), atol=1e-13)
    exact = torch.func.jacrev(preactivations)(torch.from_numpy(theta)).numpy()
    which = np.arange(len(at.pre))
    found, points, forces = model.switches(at, which)
    assert_allclose(found, exact, atol=1e-12)
    k, i, u = model.units(which)
    assert (points == i).all()
    widths = [[s for s in model.shapes if len(s) == 2][j][0] for j in layers]
    assert [tuple(v) for v in zip(k, i, u, strict=True)] == [
        (layer, p, v)
        for layer, width in zip(layers, widths, strict=True)
        for p in range(len(X))
        for v in range(width)
    ]


def test_jump_of_the_jacobian_across_a_kink_is_force_times_gradient():
    model = OTHER["deep residual"]
    theta, which = model.flat(model.start(3)), np.array([3])
    for _ in range(30):  # to the kink
        at = model.forward(theta)
        A, points, forces = model.switches(at, which)
        theta = theta - A[0] * at.pre[3] / (A[0] @ A[0])
    assert abs(at.pre[3]) < 1e-13
    on, off = at.pre > 0, at.pre > 0
    on[3], off[3] = True, False
    jump = model.jacobian(model.forward(theta, on)) - model.jacobian(model.forward(theta, off))
    assert_allclose(jump[points[0]], forces[0] * A[0], atol=1e-12)
    assert np.abs(np.delete(jump, points[0], axis=0)).max() == 0 and np.abs(jump).max() > 1e-3


def test_frozen_pattern_is_smooth_and_right_where_signs_agree():
    model = dl.two_layer(X, Y, 6)
    theta = model.flat(model.start(0))
    at = model.forward(theta)
    assert_allclose(model.forward(theta, at.pre > 0).q, at.q)
    assert np.abs(model.forward(-theta, at.pre > 0).q - model.forward(-theta).q).max() > 0.1


def test_starts_agree_with_gaussian_networks_and_times_stack():
    model = dl.relu(X, Y, [4, 3])
    start = model.start(5, 0.7)
    for W, V in zip(start, dl.gaussian([5, 4, 3, 1], seed=5, scale=0.7), strict=True):
        assert torch.equal(W, V)
    for model in ALL.values():
        params = model.start(0)
        many = model([torch.stack([p, 2 * p]) for p in params])
        assert_allclose(many[0], model(params), atol=1e-12)
        assert_allclose(many[1], model([2 * p for p in params]), atol=1e-12)


def test_circular_convolution_is_a_convolution():
    model = dl.circular_convolution(X, 2)
    a, b = model.start(0)
    D = X.shape[1]
    beta = torch.stack([sum(a[j] * b[(k - j) % D] for j in range(D)) for k in range(D)]) / D**0.5
    assert_allclose(model.predictor([a, b]), beta, atol=1e-13)


def test_any_function_by_automatic_differentiation():
    reference = dl.two_layer(X, Y, 3, power=2)
    model = dl.autograd(reference, reference.shapes, degree=3)
    params = reference.start(0)
    theta = reference.flat(params)
    assert_allclose(
        model.jacobian(model.forward(theta), np.array([1, 3])),
        reference.jacobian(reference.forward(theta), np.array([1, 3])),
        atol=1e-12,
    )
    assert_allclose(model([torch.stack([p, p]) for p in params])[1], reference(params), atol=1e-13)


def test_refusals():
    model = dl.two_layer(X, Y, 3)
    good = model.start(0)
    with pytest.raises(ShapeMismatch, match="one run at a time"):
        model.flat(good[::-1])
    with pytest.raises(NonFinite):
        model.flat([good[0] * torch.nan, good[1]])
    with pytest.raises(BadParameter, match="activations"):
        dl.feedforward(X, Y, [3], "sine")
    with pytest.raises(BadParameter, match="bias"):
        dl.feedforward(X, Y, [3], "relu", bias="some")
    with pytest.raises(BadParameter, match="residual layers"):
        dl.feedforward(X, Y, [3], "relu", residual=True)
    with pytest.raises(BadParameter, match="linear_tail"):
        dl.relu(X, Y, [3], linear_tail=2)
    with pytest.raises(BadParameter, match="kernel"):
        dl.circular_convolution(X, 2, kernel=6)
    with pytest.raises(BadParameter, match="no kinks"):
        dl.diagonal(X, 2).switches(None, [0])
