"""Minimisers against independent least squares, frames against planted ones, scores against draws
and perturbations."""

import math

import pytest
import torch

import dlnlib as dl
from dlnlib import measure, theory
from dlnlib.errors import BadParameter, ShapeMismatch

F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def rotation(size, seed):
    return torch.linalg.qr(normal(size, size, seed=seed))[0]


def aligned(dims=(5, 6, 4, 4), seed=0):
    """Layers with simple singular values in planted frames."""
    Q = [rotation(d, seed + k) for k, d in enumerate(dims)]
    layers = []
    for k in range(len(dims) - 1):
        S = torch.zeros(dims[k + 1], dims[k], dtype=F64)
        size = min(S.shape)
        S[range(size), range(size)] = 1 + torch.randperm(
            size, generator=torch.Generator().manual_seed(k)
        ).to(F64)
        layers.append(Q[k + 1] @ S @ Q[k].T)
    return layers


@pytest.mark.parametrize("d, n, deficient", [(4, 9, False), (9, 4, False), (5, 9, True)])
@pytest.mark.parametrize("rank", [2, 3, None])
def test_best_linear_map_attains_the_known_optimum(d, n, deficient, rank):
    x, y = normal(d, n, seed=1), normal(3, n, seed=2)
    if deficient:
        x[2:] = normal(d - 2, 2, seed=3) @ x[:2]
    W = theory.best_linear_map(x, y, rank)
    Q = torch.linalg.svd(x.mT)[0][:, : torch.linalg.matrix_rank(x)]  # of the row space
    rest = (y - y @ Q @ Q.mT).square().sum() + torch.linalg.svdvals(y @ Q)[rank:].square().sum() * (
        rank is not None
    )
    assert (y - W @ x).square().sum() == pytest.approx(rest.item(), abs=1e-12)
    assert torch.linalg.matrix_rank(W) <= (rank or 3)


def test_truncating_the_least_squares_map_is_worse_unless_whitened():
    x, y = (
        torch.diag(torch.tensor([5.0, 1, 0.2, 0.1], dtype=F64)) @ normal(4, 9, seed=1),
        normal(3, 9, seed=2),
    )
    for data, equal in ((x, False), (torch.linalg.qr(x.mT)[0].mT, True)):
        U, s, Vh = torch.linalg.svd(y @ torch.linalg.pinv(data), full_matrices=False)
        best = (y - theory.best_linear_map(data, y, 1) @ data).square().sum()
        gap = (y - s[0] * torch.outer(U[:, 0], Vh[0]) @ data).square().sum() - best
        assert (abs(gap) < 1e-12) if equal else (gap > 1e-3)


@pytest.mark.parametrize("dims", [(4, 6, 5, 3), (4, 2, 5, 3), (4, 3, 1), (4, 3)])
def test_aligned_minimiser(dims):
    x, y = normal(dims[0], 9, seed=1), normal(dims[-1], 9, seed=2)
    weights = theory.aligned_minimiser(x, y, dims, seed=3)
    assert [tuple(W.shape) for W in weights] == list(zip(dims[1:], dims[:-1], strict=True))
    torch.testing.assert_close(dl.end_to_end(weights), theory.best_linear_map(x, y, min(dims)))
    assert len(weights) == 1 or measure.path_commutator_score(weights) < 1e-14
    with pytest.raises(ShapeMismatch, match="needed 4 first"):
        theory.aligned_minimiser(x, y, [5, *dims[1:]])


def leftover(weights, frames):
    left = [
        torch.linalg.matrix_norm((S := B.T @ W @ A) - theory.nearest_pattern(S))
        for W, A, B in zip(weights, frames[:-1], frames[1:], strict=True)
    ]
    for Q in frames:
        torch.testing.assert_close(Q.T @ Q, torch.eye(len(Q), dtype=F64), rtol=0, atol=1e-12)
    return max(left)


def test_frames_of_aligned_networks_and_of_others():
    assert leftover(aligned(), theory.aligned_frames(aligned())) < 1e-12
    for dims in ([5, 4, 4, 3], [5, 2, 4, 5], [3, 6, 3]):
        start = dl.balanced(dims, 1)
        assert leftover(start, theory.aligned_frames(start)) < 1e-12
        other = dl.gaussian(dims, 1)
        assert leftover(other, theory.aligned_frames(other)) > 0.1
    repeated = [rotation(4, k) for k in range(4)]
    assert leftover(repeated, theory.aligned_frames(repeated)) < 1e-12


def test_path_commutator_sees_what_adjacent_layers_hide():
    a, b = (torch.diag(torch.tensor(v, dtype=F64)) for v in ([1.0, 2], [3.0, 4]))
    turn = torch.tensor([[1.0, 1], [-1, 1]], dtype=F64) / math.sqrt(2)
    hidden = [a, turn, b]
    assert measure.commutator_score(hidden) < 1e-15
    assert measure.path_commutator_score(hidden) > 0.05
    assert leftover(hidden, theory.aligned_frames(hidden)) > 0.05
    assert measure.path_commutator_score(aligned()) < 1e-14
    layers = dl.gaussian([3, 5, 2, 4, 3], 5)
    unit = [W / torch.linalg.matrix_norm(W @ W.T).sqrt() for W in layers]
    product = {
        (i, j): torch.linalg.multi_dot(
            [*reversed(unit[i:j]), torch.eye(unit[i].shape[1], dtype=F64)]
        )
        for i in range(4)
        for j in range(i + 1, 5)
    }
    all_of_them = [
        (Q.T @ Q, P @ P.T)
        for (i, k), P in product.items()
        for (m, _), Q in product.items()
        if m == k
    ]
    assert len(all_of_them) == 10  # L (L^2 - 1) / 6
    largest = max(torch.linalg.matrix_norm(H @ F - F @ H).item() for H, F in all_of_them)
    assert measure.path_commutator_score(layers).item() == pytest.approx(largest)
    two = dl.gaussian([3, 4, 2], 5, runs=(3,))
    torch.testing.assert_close(measure.path_commutator_score(two), measure.commutator_score(two))


@pytest.mark.parametrize("dims", [(2, 2, 2), (3, 8, 5, 2), (6, 4, 6)])
def test_chance_alignment(dims):
    scores = measure.align_score(dl.gaussian(dims, 0, runs=(4000,)))
    expected = theory.chance_alignment(dims)
    assert scores.mean().item() == pytest.approx(
        expected, abs=5 * scores.std().item() / math.sqrt(4000)
    )
    assert theory.chance_alignment([2, 2, 2]) == pytest.approx(4 / math.pi * math.sin(math.pi / 4))
    with pytest.raises(BadParameter, match="hidden layer"):
        theory.chance_alignment([3, 2])


@pytest.mark.parametrize("dims", [(4, 4, 4, 4), (5, 6, 4, 3), (3, 6, 3)])
def test_curvatures_of_the_scores(dims):
    W, E = aligned(dims), [normal(*W.shape, seed=20 + k) for k, W in enumerate(aligned(dims))]
    eps = 1e-4
    noisy, back = [[A + s * eps * B for A, B in zip(W, E, strict=True)] for s in (1, -1)]
    for predicted, score in (
        (theory.alignment_curvature, measure.align_score),
        (theory.invariance_curvature, lambda V: measure.inv_score(V, W)),
    ):
        c = predicted(W, E)
        assert (2 - score(noisy) - score(back)) / (2 * eps**2) == pytest.approx(c.item(), rel=1e-5)
        batch = predicted([torch.stack([A, 2 * A]) for A in W], [torch.stack([B, B]) for B in E])
        torch.testing.assert_close(batch, torch.stack([c, c / 4]))
    first, second = measure.commutator_score(noisy) / eps, measure.commutator_score(back) / eps
    assert ((first + second) / 2).item() == pytest.approx(
        theory.commutator_speed(W, E).item(), rel=1e-5
    )
    with pytest.raises(BadParameter, match="repeated"):
        theory.alignment_curvature(
            [rotation(3, 1), rotation(3, 2)], [rotation(3, 1), rotation(3, 2)]
        )
