"""Patterns of units against hand-made ones, and speeds of quantities that are conserved and that
are not."""

import pytest
import torch

import dlnlib as dl
from dlnlib import measure

F64 = torch.float64
X = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=F64)
Y = torch.tensor([1.0, -1.0], dtype=F64)


def test_signs_are_zero_at_a_kink_only():
    model = dl.two_layer(X, Y, 3)
    W = torch.tensor([[[1.0, -2.0], [0.0, 3.0], [1e-14, -1.0]]], dtype=F64)
    seen = measure.activation_signs(model, [W, torch.ones(1, 1, 3, dtype=F64)])
    assert torch.equal(seen[0].T, torch.tensor([[1.0, -1.0], [0.0, 1.0], [0.0, -1.0]], dtype=F64))


def test_together_forgets_pairs_that_once_differed():
    a, b, c = [1.0, -1.0], [-1.0, 1.0], [1.0, 0.0]
    records = [[a, a, c], [a, b, a], [a, a, a]]  # (T, m, n)
    kept = measure.on_together(torch.tensor(records, dtype=F64).mT)
    assert kept[0, 0, 1] and not kept[1, 0, 1] and not kept[2, 0, 1]
    assert not kept[0, 0, 2] and not kept[2, 0, 2]
    assert kept.diagonal(dim1=1, dim2=2).all()


def test_distinct_counts_patterns_once_kinks_each_and_dead_units_never():
    columns = [[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, 0.0], [1.0, 0.0]]
    assert measure.distinct_patterns(torch.tensor(columns, dtype=F64).T) == 4


def test_settled_pairs_do_not_change_and_others_may():
    x = torch.randn(8, 3, dtype=F64, generator=torch.Generator().manual_seed(4))
    model = dl.two_layer(x, torch.sign(x[:, 0]), 6)
    run = dl.flow(model.start(1), model, dl.exponential, until=100)
    seen, fixed = (
        measure.activation_signs(model, run.weights),
        measure.settled_signs(model, run.weights),
    )
    assert not ((seen != seen[-1]) & fixed).any()
    assert (seen != seen[-1]).any() and fixed[-1].sum() > fixed[0].sum()


@pytest.mark.parametrize("bias", ["none", "all"])
def test_speed_tells_conserved_from_moving(bias):
    x = torch.randn(9, 3, dtype=F64, generator=torch.Generator().manual_seed(2))
    model = dl.feedforward(x, torch.sign(x[:, 1]), [5, 4], ["relu", "relu^2"], bias=bias)
    params = model.start(3)
    assert (
        measure.relative_speed(lambda p: torch.cat(measure.unit_balance(model, p)), model, params)
        <= 1e-15 * 100
    )
    assert (
        measure.relative_speed(lambda p: model.matrices(p)[0].square().sum(), model, params) >= 1e-3
    )
