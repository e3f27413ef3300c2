from __future__ import annotations

import pytest
import torch

import dlnlib as dl
from dlnlib import measure
from dlnlib.errors import NotCertified
from dlnlib.losses.margin import logistic
from dlnlib.theory.offset_forecast import forecast


def runs(z, depth, until, seed=0):
    dims = [z.shape[1]] + [4] * (depth - 1) + [1]
    start = measure.meeting_assumption_2(lambda s: dl.gaussian(dims, s), z, logistic, seed=seed)
    return [
        dl.flow(start, z, logistic, until=until, accuracy=a, per_decade=3) for a in (1e-8, 1e-6)
    ]


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_offset_is_where_it_is_predicted_within_what_is_allowed(depth):
    z = dl.load("spanning:n=20,d=5").scaled().z
    found = dl.max_margin(z)
    told = forecast(*runs(z, depth, 1e7), z, found)
    late = told.psi > 1e3
    assert (told.miss[late] <= told.room[late]).all() and told.room[told.best] <= 1e-5 * told.length
    assert torch.allclose(
        told.measured[-1], measure.perpendicular(told.measured[-1], found.direction)
    )
    if depth > 1:  # far less is allowed than what is predicted
        assert (told.room / (told.predicted - found.offset).norm(dim=1))[late].min() <= 0.1
    if depth == 5:  # the data alone do not know the memory of the start
        assert ((told.measured - told.even).norm(dim=1)[late] > told.room[late]).all()


def test_a_run_that_ends_before_the_support_vectors_have_their_weights():
    z = dl.load("digits:0,1").scaled().z
    with pytest.raises(NotCertified, match="larger until"):
        forecast(*runs(z, 2, 20.0), z, dl.max_margin(z))
