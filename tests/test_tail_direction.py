"""The limit for the loss with a polynomial tail: stationarity, rescaling, and a run at depth 1."""

import pytest
import torch

from dlnlib import data, flow, metrics, networks, theory
from dlnlib.errors import NotSeparable
from dlnlib.losses import polynomial


@pytest.mark.parametrize("name", ["six-points", "random:n=20,d=5", "random:n=5,d=20", "spanning:n=20,d=5"])
def test_stationary_and_free_of_scale(name):
    z = data.load(name).scaled().z
    u, p = theory.tail_direction(z)
    pull = (z / (z @ u)[:, None] ** 2).sum(0)
    assert metrics.direction_error(pull, u) < 1e-12
    v, q = theory.tail_direction(1e6 * z)
    assert metrics.direction_error(v, u) < 1e-12
    assert torch.allclose(1e6 * q, p, rtol=1e-8, atol=1e-12)


def test_not_the_maximum_margin():
    z = data.six_points().z
    assert metrics.direction_error(theory.tail_direction(z)[0], theory.max_margin(z).direction) > 0.05


def test_depth_one_keeps_the_offset():
    z = data.six_points().scaled().z
    u, p = theory.tail_direction(z)
    run = flow.follow(networks.gaussian([2, 1], 0), z, polynomial, until_norm=1e6)
    across = metrics.perpendicular(run.predictor[-1], u)
    assert (across - p).norm() < 1e-5
    assert (across + p).norm() > 0.1  # the sign matters


def test_not_separable():
    with pytest.raises(NotSeparable):
        theory.tail_direction(data.not_separable().z)
