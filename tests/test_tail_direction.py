"""The limit for the loss with a polynomial tail: stationarity, rescaling, and a run at depth 1."""

import pytest
import torch

import dlnlib as dl
from dlnlib import data, measure, theory
from dlnlib.errors import NotSeparable
from dlnlib.losses.margin import polynomial


@pytest.mark.parametrize(
    "name", ["six-points", "random:n=20,d=5", "random:n=5,d=20", "spanning:n=20,d=5"]
)
def test_stationary_and_free_of_scale(name):
    z = dl.load(name).scaled().z
    u, p = theory.tail_direction(z)
    pull = (z / (z @ u)[:, None] ** 2).sum(0)
    assert dl.direction_error(pull, u) < 1e-12
    v, q = theory.tail_direction(1e6 * z)
    assert dl.direction_error(v, u) < 1e-12
    assert torch.allclose(1e6 * q, p, rtol=1e-8, atol=1e-12)


def test_not_the_maximum_margin():
    z = dl.six_points().z
    assert dl.direction_error(theory.tail_direction(z)[0], dl.max_margin(z).direction) > 0.05


def test_depth_one_keeps_the_offset():
    z = dl.six_points().scaled().z
    u, p = theory.tail_direction(z)
    run = dl.flow(dl.gaussian([2, 1], 0), z, polynomial, until_norm=1e6)
    across = measure.perpendicular(run.predictor[-1], u)
    assert (across - p).norm() < 1e-5
    assert (across + p).norm() > 0.1  # the sign matters


def test_not_separable():
    with pytest.raises(NotSeparable):
        theory.tail_direction(data.not_separable().z)
