"""A trajectory selects points and runs, and computes predictor and margins of all points."""

from __future__ import annotations

import pytest
import torch

import dlnlib as dl
from dlnlib.dynamics.trajectory import Trajectory
from dlnlib.errors import BadParameter


def sample(runs=(2, 3)) -> Trajectory:
    weights = dl.gaussian([3, 4, 1], 0, runs=(5, *runs))
    step = torch.arange(5, dtype=torch.float64).reshape(5, *[1] * len(runs)).expand(5, *runs)
    status = [f"run {r}" for r in range(6)] if runs else "finished"
    return Trajectory(
        weights,
        {"step": step},
        {"rule": "none"},
        status,
        {"violations": torch.arange(6.0).reshape(runs or 6)},
    )


def test_points_and_sizes():
    t = sample()
    assert (len(t), t.depth, t.runs) == (5, 2, (2, 3))
    assert torch.equal(t.final[0], t.weights[0][4])
    assert torch.equal(t.at(1)[1], t.weights[1][1])


def test_predictor_and_margins_of_every_point():
    t = sample()
    z = torch.randn(7, 3, dtype=torch.float64)
    assert t.predictor.shape == (5, 2, 3, 3)
    assert t.margins(z).shape == (5, 2, 3, 7)
    torch.testing.assert_close(t.predictor[2], dl.predictor(t.at(2)))
    torch.testing.assert_close(t.margins(z)[3, 1, 2], dl.margins(t.at(3), z)[1, 2])


def test_one_run_in_flat_order():
    t = sample()
    one = t.run(4)
    assert one.runs == () and one.status == "run 4" and one.totals["violations"] == 4
    assert torch.equal(one.weights[0], t.weights[0][:, 1, 1])
    assert torch.equal(one.clocks["step"], t.clocks["step"][:, 1, 1])
    assert one.settings == t.settings


def test_a_value_off_the_end_by_rounding_is_the_end():
    t = sample(runs=())
    ends = torch.tensor([-1e-15, 4 + 1e-15], dtype=torch.float64)
    for W, kept in zip(t.between("step", ends), t.weights, strict=True):
        torch.testing.assert_close(W, kept[[0, 4]], rtol=1e-14, atol=1e-14)
    with pytest.raises(BadParameter, match="stay between"):
        t.between("step", ends + 1e-12)
