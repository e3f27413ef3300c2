"""Gaps of a linear tail between their two bounds, whatever feeds it; blocks of units against the
whole layer."""

import torch

import dlnlib as dl
from dlnlib import theory

F64 = torch.float64
X = torch.eye(2, dtype=F64)
Y = torch.tensor([1.0, -1.0], dtype=F64)


def run_of(until=1e4):
    model = dl.relu(X, Y, [6, 5, 4], linear_tail=2)
    start = model.start(0)
    return start, dl.flow(start, model, dl.exponential, until=until, accuracy=1e-8)


def test_gaps_lie_in_the_range_and_the_range_closes():
    start, run = run_of()
    gaps = torch.stack([dl.rank_one_gap(W) for W in run.weights[1:]], -1)
    least, most = theory.gap_range(start[1:], run.weights[1:])
    assert (gaps <= most + 1e-7).all() and (gaps >= least - 1e-7).all()
    assert (most - least)[-1].max() <= 1e-3 * gaps[-1, :2].min()


def test_the_range_misses_a_layer_of_rectifiers():
    start, run = run_of()
    gap = dl.rank_one_gap(run.weights[0])
    assert gap[-1] > theory.gap_range(start, run.weights)[1][-1, 0] + 1


def test_block_gap_is_exact_for_a_linear_layer():
    model = dl.relu(X, Y, [4, 3], linear_tail=2)
    start = model.start(1)
    run = dl.flow(start, model, dl.exponential, until=1e4, accuracy=1e-8)
    units = torch.tensor([0, 2])
    first, now = (
        theory.unit_block(start[:2], units),
        theory.unit_block([W[-1:] for W in run.weights[:2]], units),
    )
    gap = dl.rank_one_gap(now[0])
    least, most = theory.block_gap(first, now)
    assert (
        (least - 1e-7 <= gap).all() and (gap <= most + 1e-7).all() and (most - least).max() <= 1e-3
    )
    assert gap.item() <= theory.block_gap_bound(first, start[1:]).item()
    assert torch.equal(first[1], start[1][:, units])
    assert theory.gap_bounds(start[1:])[0] >= dl.rank_one_gap(run.weights[1]).max()
