import math

import pytest
import torch

import dlnlib as dl
from dlnlib import networks, theory
from dlnlib.data.sources import load
from dlnlib.errors import BadParameter

DATA = load("random:n=12,d=4", seed=1).scaled()


CONSTANTS = [("skip", 1.0), ("residual", 1.0), ("softplus", math.sqrt(1 + 3 * math.log(2) ** 2))]


def network(kind):
    if kind == "skip":
        return networks.skip(DATA.z, 3)
    if kind == "residual":
        return networks.residual(DATA.z)
    return dl.feedforward(DATA.x, DATA.y, [3], "softplus", bias="all")


@pytest.mark.parametrize("order", range(1, 7))
def test_companion_solves_its_equation(order):
    p = torch.rand(order + 1, generator=torch.Generator().manual_seed(order), dtype=torch.float64)
    p_a, r = theory.companion_polynomial(p, order), torch.linspace(0.1, 3, 7, dtype=torch.float64)
    left = order * theory.polynomial_value(p_a, r) - r * theory.polynomial_value(
        theory.polynomial_derivative(p_a), r
    )
    assert torch.allclose(
        left, theory.polynomial_value(theory.polynomial_derivative(p), r), rtol=1e-13
    )
    assert len(p_a) == order


def test_companion_of_a_homogeneous_network_is_zero():
    assert not theory.companion_polynomial(torch.tensor([3.0], dtype=torch.float64), 2).any()


def test_too_high_a_degree_is_refused():
    with pytest.raises(BadParameter, match="degree"):
        theory.companion_polynomial(torch.ones(4, dtype=torch.float64), 2)


@pytest.mark.parametrize("kind, K", CONSTANTS)
def test_bound_holds_and_is_attained(kind, K):
    model = network(kind)
    p = theory.homogeneity_bound(model)
    assert 2 * p[2] == pytest.approx(K, rel=1e-12)
    drawn = [model.start(s, 10.0 ** (s % 5 - 2)) for s in range(40)]
    points = [torch.stack(column) for column in zip(*drawn, strict=True)]
    rho = torch.stack([q.flatten(1).square().sum(1) for q in points]).sum(0).sqrt()
    assert (
        theory.homogeneity_deviation(points, model, 2).abs() <= K * rho[:, None] * (1 + 1e-12)
    ).all()
    zero = torch.zeros(model.size, dtype=torch.float64).numpy()
    rows = torch.from_numpy(model.jacobian(model.forward(zero)))
    worst = rows[rows.norm(dim=1).argmax()]
    off = theory.homogeneity_deviation([q[None] for q in model.parts(worst)], model, 2)
    assert off.abs().max() == pytest.approx(K * worst.norm().item(), rel=1e-12)


def test_networks_without_a_known_bound_are_refused():
    with pytest.raises(BadParameter, match="no bound"):
        theory.homogeneity_bound(dl.deep_linear(DATA.z, [3, 3]))
    with pytest.raises(BadParameter, match="no bound"):
        theory.homogeneity_bound(dl.feedforward(DATA.x, DATA.y, [3], "tanh"))


@pytest.mark.parametrize("kind", ["skip", "residual", "softplus"])
def test_homogenisation_is_the_limit_of_large_weights(kind):
    model = network(kind)
    start = model.start(0)
    limit, kept = theory.homogenisation(model)
    scaled = model([1e8 * w for w in start]) / 1e16
    assert torch.allclose(scaled, limit([start[k] for k in kept]), atol=1e-7)


@pytest.mark.parametrize("kind", ["skip", "residual", "softplus"])
def test_the_three_parts_make_up_the_excess(kind):
    model = network(kind)
    p = theory.homogeneity_bound(model)
    run = dl.flow(model.start(0, 0.5), model, dl.exponential, until=300, per_decade=10)
    m = theory.modified_margin(run.weights, model, p)
    assert torch.allclose(m.excess, m.turning + m.spare + m.disorder, rtol=1e-11, atol=1e-11)
    assert (m.spare >= 0).all() and (m.disorder >= 0).all()
    growing = (m.growing[1:] > 0) & (m.growing[:-1] > 0)
    assert (m.margin.diff()[growing] >= 0).all() and m.margin[-1] > 0
    # as if it were homogeneous: spare is not what it should be
    wrong = theory.modified_margin(run.weights, model, 0.0 * p)
    assert (wrong.spare < 0).any()


def test_exponential_growth_has_no_order():
    z = DATA.z
    model = dl.autograd(lambda w: z @ torch.sinh(w[0]), [(4,)])
    radii = torch.tensor([10.0, 20.0, 40.0, 80.0], dtype=torch.float64)
    direction = torch.ones(4, dtype=torch.float64) / 2
    off = theory.homogeneity_deviation([radii[:, None] * direction], model, 4).abs().amax(1)
    assert (off[1:] / off[:-1] > 2.0**5).all()
