"""The flow of models: against the compiled engine, closed forms with kinks, its order, and
refusals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import dlnlib as dl
from dlnlib import dynamics, measure, networks
from dlnlib.dynamics.kinks import _Run
from dlnlib.errors import BadParameter, IntegratorStalled, NonFinite, VanishingGradient

F64 = torch.float64
EXP = dl.exponential
SIX = dl.six_points()


def start(dims, z, loss):
    return measure.meeting_assumption_2(lambda seed: dl.gaussian(dims, seed), z, loss)


@pytest.mark.parametrize(
    ("until", "loss", "accuracy"), [(1e3, dl.logistic, 1e-9), (1e6, EXP, 1e-7)]
)
def test_agrees_with_the_compiled_engine(until, loss, accuracy):
    w = start([2, 4, 4, 1], SIX.z, loss)
    ours = dl.flow(w, dl.deep_linear(SIX.z, [4, 4]), loss, until=until)
    theirs = dl.flow(w, SIX.z, loss, until=until)
    size = theirs.clocks["log_norm"].exp()
    for W, V in zip(ours.weights, theirs.weights, strict=True):
        assert ((W - V).flatten(1).norm(dim=1) / size).max() < accuracy
    for clock in ("log_norm", "log_inverse_risk"):
        assert_allclose(ours.clocks[clock], theirs.clocks[clock], rtol=1e-9)
    assert_allclose(ours.clocks["log_time"][1:], theirs.clocks["log_time"][1:], rtol=0, atol=1e-3)
    assert_allclose(ours.margins()[-1], theirs.margins(SIX.z)[-1], rtol=1e-6)


# --- closed forms with one kink -------------------------------------------------------------------


@dataclass(frozen=True)
class Kinked(networks.Model):
    """q(a, b) = a^2/2 + b^2 + jump max(b - 1, 0), one point: p = 1 and the flow is that of q
    itself.

    db/da = (2 b + jump 1[b > 1])/a, so b = c a^2 below b = 1 and 2 b + jump = c' a^2 above.
    """

    jump: float = 3.0

    def __call__(self, params):
        a, b = params[0].unbind(-1)
        return (a**2 / 2 + b**2 + self.jump * (b - 1).clamp(min=0))[..., None]

    def forward(self, theta, on=None):
        a, b = theta
        pre = np.array([b - 1])
        on = pre > 0 if on is None else on
        return networks.Pass(
            theta, np.array([a * a / 2 + b * b + self.jump * on[0] * pre[0]]), pre, (on[0],)
        )

    def jacobian(self, at, rows=slice(None)):
        a, b = at.theta
        return np.array([[a, 2 * b + self.jump * at.kept[0]]])[rows]

    def switches(self, at, which):
        return np.array([[0.0, 1.0]]), np.array([0]), np.array([self.jump])

    def units(self, which):
        return np.array([0]), np.array([0]), np.array([0])


def kinked(jump, a0, b0, q):
    """The point with this value of q on the path from (a0, b0), b0 < 1, by the closed form."""
    from scipy.optimize import brentq

    c = b0 / a0**2
    if a0**2 / 2 * (1 / b0) + 1 >= q:  # before the kink
        a = brentq(lambda a: a * a / 2 + (c * a * a) ** 2 - q, a0, 100, xtol=1e-15)
        return np.array([a, c * a * a])
    at_kink = c**-0.5
    if 2 + jump <= 0:  # held at b = 1
        return np.array([math.sqrt(2 * (q - 1)), 1.0])
    c = (2 + jump) / at_kink**2

    def b(a):
        return (c * a * a - jump) / 2

    a = brentq(lambda a: a * a / 2 + b(a) ** 2 + jump * (b(a) - 1) - q, at_kink, 100, xtol=1e-15)
    return np.array([a, b(a)])


def kinked_run(jump, accuracy, until=9.0):
    model = Kinked("kinked", ((2,),), None, jump)
    return dl.flow(
        [torch.tensor([1.0, 0.3], dtype=F64)],
        model,
        EXP,
        until=until,
        accuracy=accuracy,
        per_decade=1,
    )


@pytest.mark.parametrize("jump", [3.0, -1.5, -5.0], ids=["refracted", "bent back", "sliding"])
def test_kink_in_closed_form_and_order_five_across_it(jump):
    errors, steps = [], []
    for accuracy in (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9):
        run = kinked_run(jump, accuracy)
        q = run.clocks["log_inverse_risk"][-1].item()
        errors.append(np.abs(run.final[0].numpy() - kinked(jump, 1.0, 0.3, q)).max())
        steps.append(run.settings["steps"])
        assert errors[-1] < 10 * accuracy
        assert run.totals["slides"] == (jump < -2)
        assert ("sliding" in run.status) == (jump < -2)
    if jump != -5.0:  # there the end is a straight line, met exactly
        order = -np.polyfit(np.log(steps[1:]), np.log(errors[1:]), 1)[0]
        assert order > 3.8
        assert errors[-1] < 1e-9
    log_time = run.clocks["log_time"][-1].item()
    assert log_time > 0


def test_without_landing_the_kink_costs_the_order(monkeypatch):

    monkeypatch.setattr(
        _Run,
        "until_kink",
        lambda self, h, new: (
            h,
            self.stepper.observe(new.theta, type(new.mode)(new.at.pre > 0)),
            None,
        ),
    )
    run = kinked_run(3.0, 1e-8)
    q = run.clocks["log_inverse_risk"][-1].item()
    assert np.abs(run.final[0].numpy() - kinked(3.0, 1.0, 0.3, q)).max() > 1e-6


def blobs(n=20, d=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4 * n, d, generator=generator, dtype=F64)
    x = x[x[:, 0].abs() > 0.3][:n]
    return x, x[:, 0].sign()


def test_relu_network_reaches_the_end_with_units_sliding():
    x, y = blobs()
    model = dl.two_layer(x, y, 10)
    run = dl.flow(model.start(0, 0.7), model, EXP, until=300)
    held = int(run.totals["sliding"])
    assert held > 0 and f"{held} units sliding" in run.status
    assert measure.conserved_drift(model, run.weights).max() < dynamics.drift_allowed(run)
    pre = model.forward(model.flat(run.final)).pre
    assert (np.abs(pre) < 1e-12 * np.abs(pre).max()).sum() == held
    k = dl.kkt(run.weights, model)
    late = k.psi > 0
    assert (k.smoothed[late].diff() > 0).all()
    assert_allclose(k.psi, run.clocks["log_inverse_risk"] - math.log(20), rtol=1e-10, atol=1e-10)


def test_sliding_is_the_limit_of_small_euler_steps():
    x, y = blobs(12, seed=3)
    model = dl.two_layer(x, y, 5)
    run = dl.flow(model.start(1, 0.7), model, EXP, until=12, accuracy=1e-8)
    assert run.totals["slides"] > 0
    target, end, errors = run.clocks["log_inverse_risk"][-1].item(), model.flat(run.final), []
    for h in (4e-3, 1e-3):
        theta, psi = model.flat(model.start(1, 0.7)), -math.inf
        while psi < target:
            at = model.forward(theta)
            before, psi = psi, -math.log(np.exp(-at.q).mean())
            last = theta
            g = np.exp(-at.q) @ model.jacobian(at)
            theta = theta + h * g / np.linalg.norm(g)
        del last, before
        errors.append(np.linalg.norm(at.theta - end) / np.linalg.norm(end))
    assert errors[1] < errors[0] / 2 and errors[1] < 5e-4


def test_physical_time_in_closed_form():
    # one point, one weight: w' = z e^{-wz}, so e^{wz} = e^{w0 z} + z^2 t
    model = dl.deep_linear(torch.tensor([[2.0]], dtype=F64))
    run = dl.flow([torch.tensor([[0.5]], dtype=F64)], model, EXP, until=200)
    q = run.margins()[1:, 0]
    exact = q + torch.log1p(-torch.exp(1.0 - q)) - math.log(4)
    assert_allclose(run.clocks["log_time"][1:], exact, atol=1e-6)


def test_refusals():
    x = torch.tensor([[1.0], [-1.0]], dtype=F64)
    linear = dl.deep_linear(x)
    with pytest.raises(IntegratorStalled, match="positive infimum"):
        dl.flow([torch.tensor([[0.3]], dtype=F64)], linear, EXP, until=10)
    dead = dl.two_layer(x[:1], torch.ones(1, dtype=F64), 1)
    with pytest.raises(VanishingGradient):
        dl.flow([torch.tensor([[-1.0]], dtype=F64), torch.tensor([[1.0]], dtype=F64)], dead, EXP)
    with pytest.raises(NonFinite):
        dl.flow([torch.tensor([[math.nan]], dtype=F64)], linear, EXP)
    with pytest.raises(BadParameter, match="squared"):
        dl.flow([torch.tensor([[0.3]], dtype=F64)], linear, dl.squared)
    x, y = blobs()
    with pytest.raises(IntegratorStalled, match="steps were not enough"):
        model = dl.two_layer(x, y, 4)
        dl.flow(model.start(0), model, EXP, until=300, max_steps=20)


def test_levels_closer_than_a_step_overshoots_do_not_stop_the_run():
    z = dl.load("random:n=20,d=5,gap=0.3", seed=0).scaled().z
    model = networks.skip(z, 4)
    run = dl.flow(model.start(0, 0.1), model, dl.exponential, until=4, per_decade=40)
    assert (run.clocks["log_inverse_risk"].diff() > 0).all()
