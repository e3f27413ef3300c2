"""Closed-form gradients against autograd in float64, the balance identity of JT18, and planted
errors."""

from __future__ import annotations

import itertools

import pytest
import torch

import dlnlib as dl
from dlnlib import losses

LOSSES = [dl.exponential, dl.logistic, dl.polynomial, dl.squared]
SHAPES = [[4, 1], [3, 5, 1], [5, 2, 4, 1], [2, 3, 3, 3, 1], [6, 1, 4, 5, 2, 1]]
RUNS = [(), (3,), (2, 2)]
every_case = pytest.mark.parametrize(
    "dims, runs, loss",
    list(itertools.product(SHAPES, RUNS, LOSSES)),
    ids=lambda value: getattr(
        value, "name", "x".join(map(str, value)) if isinstance(value, list | tuple) else None
    ),
)


def draw(dims, runs=(), seed=0, n=7):
    """Weights and data of random sizes; rows of z in the unit ball."""
    z = torch.randn(
        n, dims[0], dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 100)
    )
    return dl.gaussian(dims, seed, scale=1.5, runs=runs), z / torch.linalg.vector_norm(
        z, dim=1
    ).max()


def autograd(weights, function):
    """Gradient of the sum of `function` over runs, which is the gradient of each run."""
    leaves = [W.clone().requires_grad_() for W in weights]
    return torch.autograd.grad(function(leaves).sum(), leaves)


def relative_error(measured, expected) -> float:
    """Largest difference over all layers, relative to the largest gradient."""
    size = max(g.abs().max().item() for g in expected)
    return max((a - b).abs().max().item() for a, b in zip(measured, expected, strict=True)) / size


def by_product(weights):
    """End-to-end product written out, independent of the library."""
    product = weights[0]
    for W in weights[1:]:
        product = W @ product
    return product


@every_case
def test_risk_gradient(dims, runs, loss):
    weights, z = draw(dims, runs)
    expected = autograd(
        weights, lambda W: torch.exp(loss.log_loss(by_product(W)[..., 0, :] @ z.T)).mean(-1)
    )
    assert relative_error(dl.risk_gradient(weights, z, loss), expected) < 1e-12


@every_case
def test_log_risk_gradient(dims, runs, loss):
    weights, z = draw(dims, runs, seed=1)
    expected = autograd(
        weights, lambda W: torch.exp(loss.log_loss(by_product(W)[..., 0, :] @ z.T)).mean(-1).log()
    )
    assert relative_error(dl.log_risk_gradient(weights, z, loss), expected) < 1e-12


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_gradients_against_differences(loss):
    """Losses, values and closed form are independent of autograd here: central differences of the
    plain risk."""
    weights, z = draw([3, 4, 2, 1])
    plain = {
        "exponential": lambda m: torch.exp(-m),
        "logistic": lambda m: torch.log(1 + torch.exp(-m)),
        "polynomial": lambda m: torch.where(m > 0, 1 / (1 + m.clamp(min=0)), 1 - m),
        "squared": lambda m: (1 - m) ** 2 / 2,
    }[loss.name]
    expected = [torch.zeros_like(W) for W in weights]
    for W, g in zip(weights, expected, strict=True):
        for i in range(W.numel()):
            entry = W.view(-1)
            old, sides = entry[i].item(), []
            for h in (1e-5, -1e-5):
                entry[i] = old + h
                sides.append(plain(by_product(weights)[0] @ z.T).mean().item())
            entry[i] = old
            g.view(-1)[i] = (sides[0] - sides[1]) / 2e-5
    assert relative_error(dl.risk_gradient(weights, z, loss), expected) < 1e-8


@pytest.mark.parametrize("runs", RUNS, ids=str)
@pytest.mark.parametrize("dims", [[4, 3], [3, 5, 2], [4, 6, 5, 3], [2, 2, 2, 2, 4]], ids=str)
@pytest.mark.parametrize("mean", [False, True])
def test_squared_gradient_of_several_outputs(dims, runs, mean):
    weights = dl.gaussian(dims, 0, runs=runs)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(dims[0], 6, dtype=torch.float64, generator=generator)
    y = torch.randn(dims[-1], 6, dtype=torch.float64, generator=generator)
    scale = 12 if mean else 2
    expected = autograd(weights, lambda W: (y - by_product(W) @ x).square().sum((-2, -1)) / scale)
    assert relative_error(losses.squared_gradient(weights, x, y, mean), expected) < 1e-12


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_end_to_end_gradient(loss):
    weights, z = draw([5, 4, 1], (3,))
    w = dl.predictor(weights)
    (expected,) = autograd([w], lambda leaf: loss.values(leaf[0] @ z.T).mean(-1))
    torch.testing.assert_close(
        losses.end_to_end_gradient(weights, z, loss), expected, rtol=1e-13, atol=1e-15
    )


@every_case
def test_balance_identity(dims, runs, loss):
    """W_{k+1}^T dR/dW_{k+1} = (dR/dW_k) W_k^T, the reason why balance is conserved (JT18, section
    2)."""
    weights, z = draw(dims, runs, seed=3)
    g = dl.risk_gradient(weights, z, loss)
    for k in range(len(weights) - 1):
        left, right = weights[k + 1].mT @ g[k + 1], g[k] @ weights[k].mT
        size = torch.linalg.matrix_norm(weights[k + 1]) * torch.linalg.matrix_norm(g[k + 1])
        assert ((left - right).abs().amax((-2, -1)) <= 1e-15 * size).all()


def test_relative_slopes_are_a_softmax_for_the_exponential_loss():
    m = torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 30
    expected = -torch.softmax(-m, -1)
    measured = losses.relative_slopes(m, dl.exponential)
    torch.testing.assert_close(measured, expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("loss", LOSSES[:3], ids=lambda loss: loss.name)
@pytest.mark.parametrize("size", [1e-3, 1e3, 1e9])
def test_log_risk_gradient_at_any_margin(loss, size):
    """Where exp(-m) is no number at all, the gradient of log R is still exact."""
    weights, z = draw([3, 4, 1])
    w = dl.predictor(weights)
    z = z * torch.sign(z @ w)[:, None]  # separable
    z = z * size / (z @ w).min()
    g = dl.log_risk_gradient(weights, z, loss)
    assert all(bool(layer.isfinite().all()) for layer in g)
    p = -losses.relative_slopes(dl.margins(weights, z), loss)
    (expected,) = autograd([dl.margins(weights, z)], lambda m: -loss.log_risk(m[0]))
    torch.testing.assert_close(p, expected, rtol=1e-12, atol=1e-300)
    assert max(layer.abs().max().item() for layer in g) > 1e-12


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("radius", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("loss", [dl.logistic, dl.polynomial], ids=lambda loss: loss.name)
def test_smoothness_bound_of_lemma_5(loss, radius, seed):
    """||Hessian of R|| <= 2 L^2 R^(2L-2) (beta + G) on B(R), with a start on its boundary (JT18,
    Lemma 5)."""
    dims = [3, 3, 2, 1]
    weights, z = draw(dims, seed=seed)
    weights = [radius * W / torch.linalg.matrix_norm(W) for W in weights]
    assert curvature(weights, z, loss) <= smoothness_bound(len(weights), radius, loss)


def test_smoothness_bound_needs_data_in_the_unit_ball():
    """One datum of norm c and one layer: the Hessian at 0 is c^2 / 4, above 2 (beta + G) once c^2 >
    10."""
    zero = [torch.zeros(1, 2, dtype=torch.float64)]
    bound = smoothness_bound(1, 1.0, dl.logistic)
    for c, holds in [(1.0, True), (3.0, True), (3.2, False)]:
        measured = curvature(zero, torch.tensor([[c, 0.0]], dtype=torch.float64), dl.logistic)
        assert measured == pytest.approx(c**2 / 4, rel=1e-12) and (measured <= bound) == holds


def curvature(weights, z, loss) -> float:
    """Spectral norm of the Hessian of the risk, by autograd."""
    shapes = [W.shape for W in weights]

    def risk(flat):
        parts = flat.split([shape.numel() for shape in shapes])
        W = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        return torch.exp(loss.log_loss(by_product(W)[0] @ z.T)).mean()

    hessian = torch.autograd.functional.hessian(risk, torch.cat([W.flatten() for W in weights]))
    return torch.linalg.matrix_norm(hessian, ord=2).item()


def smoothness_bound(depth, radius, loss) -> float:
    return 2 * depth**2 * radius ** (2 * depth - 2) * (loss.smoothness + loss.lipschitz)


PLANTED = {
    "factor": lambda g: [1.001 * layer for layer in g],
    "one layer's factor": lambda g: [*g[:-1], 1.001 * g[-1]],
    "transpose": lambda g: [g[0], g[1].mT.contiguous(), *g[2:]],
    "swapped layers": lambda g: [g[0], g[2], g[1], *g[3:]],
    "sign": lambda g: [-layer for layer in g],
}


@pytest.mark.parametrize("error", PLANTED.values(), ids=PLANTED.keys())
def test_the_comparison_sees_planted_errors(error):
    weights, z = draw([3, 3, 3, 3, 1])
    expected = dl.risk_gradient(weights, z, dl.logistic)
    assert relative_error(error(expected), expected) > 5e-5
