"""The speed of misalignment against a run, its rank, and the families that stay."""

import math

import pytest
import torch

import dlnlib as dl
from dlnlib import measure, networks, theory
from dlnlib.errors import BadParameter
from dlnlib.theory.leaving_alignment import SHARE

F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def band(k, reach):
    middle = k - 1
    order = [middle] + [middle + s * j for j in range(1, reach + 1) for s in (1, -1)]
    return networks.orthonormal(networks.toeplitz(k, k)[order])


def test_departure_is_the_speed_of_the_commutators():
    basis, p, X, depth, eta = band(5, 1), normal(3), normal(5, 2, seed=1), 3, 1e-6
    H = theory.aligned_structured_start(p, basis)
    W = [H, H.T, H]
    run = dl.descend(
        W,
        dl.ScoreRisk(X.mT, X.mT, dl.mean_squared_error),
        dl.Constant(eta),
        1,
        structure=networks.Projected([basis] * depth),
    )
    score = measure.commutator_score(run.final)
    change = theory.departure(p, basis, X @ X.T / 2, depth, relative=False).unflatten(-1, (2, -1))
    sizes = [
        torch.linalg.matrix_norm(W[i + 1].T @ W[i + 1]) * torch.linalg.matrix_norm(W[i] @ W[i].T)
        for i in (0, 1)
    ]
    speed = max((c.norm() / s).item() for c, s in zip(change, sizes, strict=True))
    assert score.item() / eta == pytest.approx(speed, rel=1e-4)
    assert speed > 1e-3


def test_commuting_layers_have_no_departure():
    basis = networks.orthonormal(networks.circulant(5))
    M = (X := normal(5, 3)) @ X.T
    assert theory.departure(normal(5, seed=2), basis, M, 3, relative=False).abs().max() < 1e-13


def test_start_has_the_size_and_share_asked_for():
    basis = band(4, 2)
    H = theory.aligned_structured_start(
        torch.tensor([1.0, 1e-3, 0, 0, 0], dtype=F64), basis, scale=0.5
    )
    assert H.norm().item() == pytest.approx(0.5 * math.sqrt(4))
    assert (H.trace() / 2 / H.norm()).item() == pytest.approx(SHARE, rel=1e-5)
    with pytest.raises(BadParameter, match="identity"):
        theory.aligned_structured_start(normal(5), basis.flip(0))


def test_complex_step_against_a_known_derivative():
    f, J = theory.complex_step(lambda p: p.square() * p.roll(1, -1))(p := normal(2, 3))
    assert torch.allclose(f, p.square() * p.roll(1, -1))
    expected = torch.diag_embed(2 * p * p.roll(1, -1)) + torch.diag_embed(p.square()).roll(-1, -1)
    assert torch.allclose(J, expected)


def test_rank_counts_and_slowest_is_positive_where_it_exceeds_the_family():
    basis, X = band(4, 1), normal(2, 4, 2, seed=3)
    rank = theory.departure_rank(normal(3, seed=4), basis, X[0], 3)
    assert rank == 4 > len(basis) - 1
    value, p = theory.slowest_departure(basis, X, 3)
    assert (value > 1e-10).all()
    assert p.shape == (2, 3)
