"""Bases of structured layers, and R20: descent on kernels is projected descent just when the basis
is orthonormal."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv2d, pad

import dlnlib as dl
from dlnlib import measure, networks, theory
from dlnlib.errors import BadParameter, ShapeMismatch
from dlnlib.losses.gradients import squared_gradient

BASES = {
    "convolution": dl.convolution(3),
    "circular convolution": dl.convolution(4, circular=True),
    "toeplitz": networks.toeplitz(4, 3),
    "circulant": networks.circulant(5),
    "skew": torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
}
every_basis = pytest.mark.parametrize("basis", BASES.values(), ids=BASES.keys())


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("side, kernel", [(3, 3), (5, 3), (5, 5), (6, 1)])
def test_convolution_is_that_of_torch(side, kernel, circular):
    c, image, reach = normal(kernel**2), normal(1, 1, side, side, seed=1), kernel // 2
    padded = pad(image, (reach,) * 4, mode="circular" if circular else "constant")
    expected = conv2d(padded, c.reshape(1, 1, kernel, kernel)).flatten()
    measured = networks.assemble(c, dl.convolution(side, kernel, circular)) @ image.flatten()
    torch.testing.assert_close(measured, expected, rtol=1e-13, atol=1e-14)


def test_squared_norms_of_zero_and_circular_padding():
    def squares(basis):
        return basis.square().sum((-2, -1)).tolist()

    assert squares(dl.convolution(3)) == [4, 6, 4, 6, 9, 6, 4, 6, 4]
    assert squares(dl.convolution(4, circular=True)) == [16] * 9


def test_toeplitz_and_circulant_matrices():
    T = networks.assemble(torch.arange(6, dtype=torch.float64), networks.toeplitz(4, 3))
    assert torch.equal(T[1:, 1:], T[:-1, :-1]) and T[3, 0] == 0 and T[0, 2] == 5
    A, B = networks.assemble(normal(2, 5), networks.circulant(5))
    assert torch.equal(A.roll((1, 1), (0, 1)), A)
    torch.testing.assert_close(A @ B, B @ A, rtol=0, atol=1e-14)
    C, D = networks.assemble(normal(2, 9), dl.convolution(3))
    assert (C @ D - D @ C).abs().max() > 0.1  # zero padding: layers do not commute


@every_basis
def test_orthonormal_basis_of_the_same_space(basis):
    unit = networks.orthonormal(basis)
    assert networks.is_orthonormal(unit) and not networks.is_orthonormal(basis)
    both = torch.cat([unit, basis]).flatten(1)
    assert torch.linalg.matrix_rank(both) == len(basis)


@every_basis
def test_projection(basis):
    G = normal(2, *basis.shape[1:])
    P = networks.project(G, basis)
    torch.testing.assert_close(networks.project(P, basis), P)
    # the residual is orthogonal to the space
    assert networks.coordinates(G - P, basis).abs().max() < 1e-12
    solution = torch.linalg.lstsq(basis.flatten(1).T, G.flatten(1).T).solution
    torch.testing.assert_close(P, networks.assemble(solution.T, basis))


def test_errors():
    with pytest.raises(BadParameter, match="linearly dependent"):
        networks.orthonormal(torch.ones(2, 3, 3, dtype=torch.float64))
    for side, kernel, circular in [(3, 2, False), (3, 5, True), (2, 5, False)]:
        with pytest.raises(BadParameter, match="odd number up to"):
            dl.convolution(side, kernel, circular)
    x = normal(9, 2)
    with pytest.raises(ShapeMismatch, match="one row a sample"):
        dl.descend(
            [normal(9)],
            dl.ScoreRisk(x.mT, x[:4].mT, dl.squared_error),
            dl.Constant(0.1),
            3,
            structure=networks.Kernels([BASES["convolution"]]),
        )


def both_ways(basis, eta=1e-3, projected_eta=None):
    """Trajectories of descent on kernels and of projected descent, two runs of three layers
    each."""
    k = basis.shape[1]
    kernels = [0.5 * normal(2, len(basis), seed=s) for s in range(3)]
    x, y = normal(k, 4, seed=8), normal(k, 4, seed=9)
    a = dl.descend(
        kernels,
        dl.ScoreRisk(x.mT, y.mT, dl.mean_squared_error),
        dl.Constant(eta),
        300,
        structure=networks.Kernels([basis] * 3),
    )
    b = dl.descend(
        a.at(0),
        dl.ScoreRisk(x.mT, y.mT, dl.mean_squared_error),
        dl.Constant(projected_eta or eta),
        300,
        structure=networks.Projected([basis] * 3),
    )
    return a, b, max((p - q).abs().max().item() for p, q in zip(a.weights, b.weights, strict=True))


def test_descent_on_kernels_is_projected_descent_for_an_orthonormal_basis():
    a, b, gap = both_ways(networks.orthonormal(BASES["convolution"]))
    assert gap < 1e-13
    assert (a.weights[0][-1] - a.weights[0][0]).abs().max() > 0.01  # something moved
    assert (
        a.status == b.status == ["finished"] * 2
        and (a.clocks["log_inverse_risk"].diff(dim=0) > 0).all()
    )


def test_equal_norms_need_a_rescaled_step_only():
    assert both_ways(BASES["circular convolution"], projected_eta=16e-3)[2] < 1e-13
    assert both_ways(BASES["circular convolution"])[2] > 1e-3


def test_raw_zero_padding_is_another_dynamics():
    assert all(
        both_ways(BASES["convolution"], projected_eta=a * 1e-3)[2] > 1e-3 for a in (1, 4, 6, 9)
    )


def test_projected_descent_stays_in_the_space_and_free_layers_leave_it():
    unit = networks.orthonormal(BASES["convolution"])
    weights = [networks.assemble(normal(9, seed=s), unit) for s in range(2)]
    x, y = normal(9, 5, seed=3), normal(9, 5, seed=4)
    t = dl.descend(
        weights,
        dl.ScoreRisk(x.mT, y.mT, dl.squared_error),
        dl.Constant(0.01),
        50,
        structure=networks.Projected([unit, None]),
    )
    assert (networks.project(t.final[0], unit) - t.final[0]).abs().max() < 1e-13
    assert (networks.project(t.final[1], unit) - t.final[1]).abs().max() > 1e-2


def test_kernel_descent_against_autograd():
    basis = BASES["convolution"]
    kernels = [0.5 * normal(9, seed=s) for s in range(2)]
    x, y = normal(9, 5, seed=3), normal(9, 5, seed=4)
    measured = dl.descend(
        kernels,
        dl.ScoreRisk(x.mT, y.mT, dl.squared_error),
        dl.Constant(1e-3),
        20,
        structure=networks.Kernels([basis] * 2),
    )
    leaves = [c.clone().requires_grad_() for c in kernels]
    for _ in range(20):
        A, B = (networks.assemble(c, basis) for c in leaves)
        gradients = torch.autograd.grad((y - B @ A @ x).square().sum() / 2, leaves)
        with torch.no_grad():
            for c, g in zip(leaves, gradients, strict=True):
                c -= 1e-3 * g
    for W, c in zip(measured.final, leaves, strict=True):
        torch.testing.assert_close(W, networks.assemble(c.detach(), basis), rtol=1e-12, atol=1e-13)


def test_a_diverging_run_says_when_and_holds_no_nan():
    c, x = [normal(9, seed=s) for s in range(3)], normal(9, 5)
    t = dl.descend(
        c,
        dl.ScoreRisk(x.mT, x.mT, dl.squared_error),
        dl.Constant(10.0),
        100,
        structure=networks.Kernels([BASES["convolution"]] * 3),
    )
    assert t.status.startswith("diverged at step ")
    assert all(bool(W.isfinite().all()) for W in t.weights)
    broke = int(t.status.split()[-1])
    before = dl.descend(
        c,
        dl.ScoreRisk(x.mT, x.mT, dl.squared_error),
        dl.Constant(10.0),
        broke - 1,
        structure=networks.Kernels([BASES["convolution"]] * 3),
    )
    assert before.status == "finished" and t.clocks["step"][-1] < broke
    after = dl.descend(
        c,
        dl.ScoreRisk(x.mT, x.mT, dl.squared_error),
        dl.Constant(10.0),
        broke,
        structure=networks.Kernels([BASES["convolution"]] * 3),
    )
    assert after.status == t.status


@pytest.mark.parametrize("size, samples", [(5, 1), (5, 3), (5, 4), (5, 5), (5, 9)])
def test_dimension_of_eigenframes_is_that_of_the_orbit(size, samples):
    X = normal(size, samples)
    M = X @ X.mT
    i, j = torch.triu_indices(size, size, 1)
    E = torch.zeros(len(i), size, size, dtype=M.dtype)
    E[torch.arange(len(i)), i, j], E[torch.arange(len(i)), j, i] = 1, -1
    tangent = (E @ M - M @ E).flatten(1)
    assert theory.eigenframe_dimension(size, samples) == torch.linalg.matrix_rank(
        tangent, rtol=1e-10
    )


def test_forces_are_the_gradient_of_the_kernels():
    basis = BASES["convolution"]
    weights = [networks.assemble(normal(9, seed=s), basis) for s in range(3)]
    x = normal(9, 4, seed=5)
    expected = [networks.coordinates(G, basis) for G in squared_gradient(weights, x, x)]
    measured = (theory.kernel_forces(weights, basis) * (x @ x.mT)).sum((-2, -1))
    torch.testing.assert_close(measured, torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_speed_of_the_commutator_at_an_aligned_start():
    K = normal(5, 5)
    # aligned: U, V alternate
    weights, moves = [K, K.mT, 2 * K], [normal(5, 5, seed=s) for s in (1, 2, 3)]
    assert measure.commutator_score(weights) < 1e-15
    speed = torch.linalg.matrix_norm(theory.commutator_velocity(weights, moves)).max()
    h = 1e-6
    there = measure.commutator_score([W + h * V for W, V in zip(weights, moves, strict=True)])
    torch.testing.assert_close(there / h, speed, rtol=1e-4, atol=0)
    still = theory.commutator_velocity(weights, [0.3 * W for W in weights])
    assert still.abs().max() < 1e-15  # moving along the frames keeps it 0
