"""Best frames: derivatives against differences, and the count of parameters on both sides of its
boundary."""

import pytest
import torch

from dlnlib import networks, theory
from dlnlib.errors import BadParameter
from dlnlib.theory._linalg import least_squares

F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("of", [theory.frame_misfit, theory.frame_commutator])
def test_derivatives(of):
    basis, c, d = normal(6, 5, 5), normal(3, 6, seed=1), 1e-6 * normal(3, 6, seed=2)
    X = normal(5, 2, seed=3)
    M = (X @ X.T).expand(3, 5, 5)
    # signs of eigenvectors may differ between calls: compare absolute values
    f, J = of(c, basis, M)
    difference = of(c + d, basis, M)[0].abs() - of(c - d, basis, M)[0].abs()
    assert torch.allclose(f.sign() * (J @ d[..., None])[..., 0], difference / 2, atol=1e-13)


def test_misfit_is_zero_exactly_on_the_frame():
    V = torch.linalg.qr(normal(4, 4)).Q
    basis = torch.stack([V @ torch.diag(row) @ V.T for row in torch.eye(4, dtype=F64)])
    c = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=F64)
    own = (V @ torch.diag(torch.tensor([3.0, 1.0, 0.0, 0.0], dtype=F64)) @ V.T)[None]
    assert theory.frame_misfit(c, basis, own)[0].norm() < 1e-14
    X = normal(4, 1, seed=5)
    assert theory.frame_misfit(c, basis, (X @ X.T)[None])[0].norm() > 0.1


def test_the_count_of_frames_decides():
    """4 pixels in a row, one image: D = 3, so four diagonals suffice and three do not."""
    toeplitz = networks.orthonormal(networks.toeplitz(4, 4))
    X = normal(2, 4, 1, seed=6)
    three, _ = theory.best_frames(toeplitz[[2, 3, 4]], X)
    four, c = theory.best_frames(toeplitz[[2, 3, 4, 5]], X)
    assert three.min() > 1e-3
    assert four.max() < 1e-12
    V = torch.linalg.svd(networks.assemble(c[0], toeplitz[[2, 3, 4, 5]])).Vh.mT
    S = V.T @ X[0] @ X[0].T @ V
    assert (S - torch.diag(S.diagonal())).norm() < 1e-12 * S.norm()


def test_least_squares_never_rises_and_solves_an_eigenproblem():
    A = torch.diag(torch.tensor([1.0, 2.0, 5.0], dtype=F64))

    def residual(p):
        q = p / torch.linalg.vector_norm(p, dim=-1, keepdim=True)
        return q @ A, (A - q[..., :, None] * (q @ A)[..., None, :]).mT

    start = normal(5, 3)
    p, value = least_squares(residual, start, 50)
    assert (value <= residual(start)[0].norm(dim=-1)).all()
    assert torch.allclose(value.amin(), torch.tensor(1.0, dtype=F64))


def test_one_matrix_has_no_frame_to_choose():
    with pytest.raises(BadParameter, match="at least 2"):
        theory.best_frames(torch.eye(3, dtype=F64)[None], normal(3, 1))
