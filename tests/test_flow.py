"""The flow against closed forms, against scipy, by its order, and in the cases where it must
refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numba import njit
from numpy.testing import assert_allclose
from scipy.integrate import solve_ivp

import dlnlib as dl
from dlnlib import dynamics
from dlnlib._kernels import jacobian, paths, proximal, tails
from dlnlib._kernels import runge_kutta as onestep
from dlnlib.dynamics.descent import descend
from dlnlib.dynamics.rules import Constant
from dlnlib.errors import (
    BadParameter,
    IntegratorStalled,
    NonFinite,
    ShapeMismatch,
    VanishingGradient,
)
from dlnlib.networks.product import flatten, unflatten

F64 = torch.float64
SIX = dl.six_points()
OFFSET = math.log(5 / 3) / 0.8  # p* of the six points: equal pushes 0.5 e^{-0.5 p} = 0.3 e^{0.3 p}


def start(dims, z, seed=0, loss=dl.logistic, scale=1.0):
    for attempt in range(seed, seed + 100):
        weights = dl.gaussian(dims, seed=attempt, scale=scale)
        if loss.log_risk(dl.margins(weights, z)) < loss.log_at_zero:
            return weights
    raise AssertionError("no start of risk below l(0)")


def drift(trajectory):
    return max((G - G[0]).abs().max().item() for G in dl.balance(trajectory.weights))


def unit(n, seed):
    v = torch.randn(n, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return v / v.norm()


@njit
def products_with_jacobian(theta, net, q, v):
    b = jacobian.rows_above(theta, net)
    down = jacobian.transpose_times(theta, net, b, q, 2.0)
    return down, jacobian.times(theta, net, b, v), jacobian.gram(theta, net, b)


@pytest.mark.parametrize("dims", [[3, 4, 2, 1], [3, 3, 3, 3, 1], [3, 1]], ids=str)
def test_jacobian_agrees_with_automatic_differentiation(dims):
    theta = flatten(dl.gaussian(dims, seed=1))[0]
    J = torch.autograd.functional.jacobian(
        lambda row: dl.predictor(unflatten(row, dims)), theta
    ).numpy()
    q, v = unit(3, 1).numpy(), unit(len(theta), 2).numpy()
    found = products_with_jacobian(theta.numpy(), jacobian.net(dims), q, v)
    for ours, exact in zip(found, (2 * J.T @ q, J @ v, J @ J.T), strict=True):
        assert_allclose(ours, exact, rtol=1e-13, atol=1e-13)


@njit
def of_margins(loss, margins):
    return [(*tails.log_slope_and_decay(loss, m), tails.log_loss(loss, m)) for m in margins]


@pytest.mark.parametrize(
    "loss", [dl.exponential, dl.logistic, dl.polynomial], ids=lambda loss: loss.name
)
def test_compiled_losses_are_the_losses(loss):
    m = torch.cat(
        [
            torch.linspace(-50, 50, 1001, dtype=F64),
            torch.tensor([-1e9, -800.0, 800.0, 1e9], dtype=F64),
        ]
    )
    ours = np.array(of_margins(proximal.number_of(loss), m.numpy()))
    exact = torch.stack([loss.log_slopes(m), loss.decay(m), loss.log_loss(m)], dim=1)
    assert_allclose(ours, exact, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("loss", [dl.exponential, dl.logistic], ids=lambda loss: loss.name)
def test_six_points_reach_their_offset_at_one_billion(depth, loss):
    dims = [2] + [4] * (depth - 1) + [1]
    run = dl.flow(start(dims, SIX.z, loss=loss), SIX.z, loss, until=1e9)
    w = run.predictor[-1]
    assert run.clocks["log_inverse_risk"][-1].item() == pytest.approx(1e9, rel=2e-3)
    # Rounding of the margins at 1e9 is about depth * 1e9 * 2e-16; the gap between the two support
    # vectors is 0.8 p.
    assert w[1].item() == pytest.approx(OFFSET, abs=depth * 1e-6)


@njit
def slope(problem, theta):
    return onestep.observe(problem, theta).slope


def test_agrees_with_scipy_at_equal_norm():
    dims, z = [5, 4, 3, 1], dl.random_separable(n=12, d=5, seed=3).z
    weights = start(dims, z)
    run = dl.flow(weights, z, dl.logistic, until=300.0, accuracy=1e-8)

    def velocity(_, theta):
        return slope(problem, theta) * np.linalg.norm(theta)

    problem = proximal.problem(z, dims, dl.logistic, by_norm=False)
    goal = run.clocks["log_norm"][-1].item()

    def reached(_, theta):
        return math.log(np.linalg.norm(theta)) - goal

    reached.terminal = True
    peer = solve_ivp(
        velocity,
        (0, 50),
        flatten(weights)[0].numpy(),
        "LSODA",
        events=reached,
        rtol=1e-11,
        atol=1e-12,
    )
    ours = flatten(run.final)[0].numpy()
    assert np.abs(peer.y_events[0][0] - ours).max() < 1e-6 * np.linalg.norm(ours)


def test_physical_time_of_a_single_weight():
    """w' = e^{-w} from w(0) = 0.1: e^w - e^0.1 = t."""
    z = torch.ones(1, 1, dtype=F64)
    run = dl.flow([torch.tensor([[0.1]], dtype=F64)], z, dl.exponential, until=1e6)
    w, log_time = run.predictor[1:, 0], run.clocks["log_time"][1:]
    exact = w + torch.log(-torch.expm1(0.1 - w))
    torch.testing.assert_close(log_time, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("implicit, order", [(False, 5), (True, 4)])
def test_observed_order(implicit, order):
    problem = proximal.problem(SIX.z, [2, 3, 3, 1], dl.logistic, by_norm=False)
    theta = flatten(start([2, 3, 3, 1], SIX.z))[0].numpy()
    coarse, middle, fine = (
        paths.end(problem, theta, 2.0, steps, implicit, 1e-9) for steps in (20, 40, 320)
    )
    order_found = math.log2(np.linalg.norm(coarse - fine) / np.linalg.norm(middle - fine))
    assert order_found > order - 0.3  # a wrong coefficient costs at least one order


def test_balance_drifts_by_no_more_than_the_accuracy_allows():
    dims, z = [10, 10, 10, 1], dl.random_separable(n=40, d=10, seed=2).z
    weights = start(dims, z)
    drifts = [drift(dl.flow(weights, z, dl.logistic, until=1e4, accuracy=a)) for a in (1e-4, 1e-6)]
    assert drifts[1] < 1e-5 and drifts[1] < drifts[0] / 10


def test_drift_allowed_bounds_the_flow_and_not_a_wrong_gradient():
    run = dl.flow(dl.gaussian([2, 4, 1], seed=3, runs=(2,)), SIX.z, dl.exponential, until=1e4)
    allowed = dynamics.drift_allowed(run)
    assert allowed.shape == (2,) and (dl.balance_drift(run.final, run.at(0)) <= allowed).all()
    wrong = [run.final[0] * 1.001, run.final[1]]
    assert (dl.balance_drift(wrong, run.at(0)) > allowed).all()


def test_runs_of_a_batch_are_the_single_runs():
    dims, z = [3, 4, 1], dl.random_separable(n=9, d=3, seed=1).z
    singles = [start(dims, z, seed) for seed in (0, 50)]
    batch = [torch.stack(layers) for layers in zip(*singles, strict=True)]
    together = dl.flow(batch, z, dl.logistic, until=1e5)
    for r, weights in enumerate(singles):
        alone = dl.flow(weights, z, dl.logistic, until=1e5)
        for both, one in zip(together.weights, alone.weights, strict=True):
            torch.testing.assert_close(both[:, r], one, rtol=1e-6, atol=1e-6)


def test_polynomial_tail_is_followed_by_its_norm():
    weights = start([2, 4, 4, 1], SIX.z, loss=dl.polynomial)
    run = dl.flow(weights, SIX.z, dl.polynomial, until_norm=1e3)
    assert run.clocks["log_norm"][-1].item() == pytest.approx(math.log(1e3), abs=2e-3)
    assert drift(run) < 1e-3


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_scale_of_the_data_does_not_matter(scale):
    """Scaling x by s and W_1 by 1/s leaves a one-layer run's margins alone; deeper runs still reach
    their end."""
    z = SIX.z * scale
    run = dl.flow([W * scale**-0.5 for W in start([2, 3, 1], SIX.z)], z, dl.logistic, until=1e6)
    w = run.predictor[-1] * scale
    assert w[1].item() == pytest.approx(OFFSET, abs=1e-5)


def test_saddle_of_a_scalar_chain():
    """L = 2, exponential loss, start (1, -1): the flow stays on b = -a and stops at the saddle with
    risk 1."""
    z = torch.ones(1, 1, dtype=F64)
    a, b = torch.tensor([[1.0]], dtype=F64), torch.tensor([[-1.0]], dtype=F64)

    def gradient(weights):
        slope = -torch.exp(-weights[1] @ weights[0])
        return [weights[1].T @ slope, slope @ weights[0].T]

    run = dl.flow_in_time([a, b], gradient, times=torch.linspace(0, 8, 9))
    assert abs(run.predictor[-1].item()) < 1e-6
    with pytest.raises(IntegratorStalled, match="log\\(1/risk\\)"):
        dl.flow([a, b], z, dl.exponential, until=100)


def test_refusals():
    z, weights = SIX.z, start([2, 3, 1], SIX.z)
    with pytest.raises(IntegratorStalled, match="separable"):
        dl.flow(weights, torch.cat([z, -z]), dl.logistic, until=1e3)
    with pytest.raises(VanishingGradient, match="zero"):
        dl.flow([torch.zeros_like(W) for W in weights], z, dl.logistic)
    with pytest.raises(ShapeMismatch, match="features"):
        dl.flow(weights, z[:, :1], dl.logistic)
    with pytest.raises(NonFinite, match="finite"):
        dl.flow([weights[0] * math.nan, weights[1]], z, dl.logistic)
    with pytest.raises(BadParameter, match="later end"):
        dl.flow(weights, z, dl.logistic, until=0.1)
    with pytest.raises(BadParameter, match="squared"):
        dl.flow(weights, z, dl.squared)
    # a name proves nothing
    other = type("Other", (type(dl.logistic),), {})("logistic", 1.0, None, None)
    with pytest.raises(
        BadParameter, match="Other.* compiled are exponential, logistic, polynomial, squared"
    ):
        dl.flow(weights, z, other)
    # descent takes any loss: those that are not compiled go by the chain in torch
    one, two = (descend(weights, z, loss, Constant(0.1), 3) for loss in (other, dl.logistic))
    torch.testing.assert_close(one.weights[0], two.weights[0], rtol=1e-13, atol=1e-14)


def test_one_layer_reaches_one_billion_although_the_accuracy_is_below_rounding():
    z = dl.load("iris+1").scaled().z
    run = dl.flow(start([5, 1], z), z, dl.logistic, until=1e9)
    assert dl.margin(run.predictor[-1], z) == pytest.approx(dl.max_margin(z).margin, rel=1e-8)
    assert run.settings["steps"] < 1000


def test_records_land_on_close_levels_from_a_small_start():
    """An early step can pass several levels at once, as progress there is no power of the norm: it
    is made again."""
    z = dl.load("random:n=20,d=5", seed=1).scaled().z
    for seed in range(6):
        start = dl.gaussian([5, 1], seed, scale=0.2)
        psi = dl.flow(start, z, dl.logistic, until=1e3, per_decade=20).clocks["log_inverse_risk"]
        end, count = 1e3 - psi[0], len(psi) - 2
        levels = psi[0] + 0.1 * (end / 0.1) ** (
            torch.arange(count + 1, dtype=torch.float64) / count
        )
        assert ((psi[1:] - levels).abs() <= 1.001e-3 * (levels - psi[0])).all()


def test_one_layer_starts_from_zero():
    z = dl.load("random:n=20,d=5", seed=1).scaled().z
    zero = [torch.zeros(1, 5, dtype=torch.float64)]
    near = [1e-12 * z[:1]]
    runs = [dl.flow(start, z, dl.logistic, until=5.0) for start in (zero, near)]
    a, b = (run.predictor[-1] for run in runs)
    assert (a - b).norm() <= 1e-4 * b.norm()
    assert (runs[0].clocks["log_time"][1:].isfinite()).all()
