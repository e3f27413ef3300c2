"""Plateaus and floors of matrix factorisation by structured layers, against closed forms."""

import pytest
import torch

import dlnlib as dl
from dlnlib import dynamics, networks, theory
from dlnlib.errors import BadParameter

F64 = torch.float64
RAW = dl.convolution(3)
UNIT = networks.orthonormal(RAW)


def target(seed=0):
    return torch.rand(9, 9, dtype=F64, generator=torch.Generator().manual_seed(seed))


def delta(depth, c=0.1):
    middle = torch.zeros(9, dtype=F64)
    middle[4] = c
    return middle.expand(depth, 9)


def test_force_is_minus_the_gradient():
    kernels = (
        0.3 * torch.randn(3, 9, dtype=F64, generator=torch.Generator().manual_seed(1))
    ).requires_grad_()
    W = torch.linalg.multi_dot(list(networks.assemble(kernels, RAW).flip(0)))
    (gradient,) = torch.autograd.grad((W - target()).square().mean(), kernels)
    assert torch.allclose(
        dynamics.kernel_velocity(kernels.detach(), RAW, target()), -gradient, rtol=1e-12, atol=1e-16
    )


def test_the_scalar_time_is_exact_for_the_identity_alone():
    """One shift only, the identity, and a target far above: c' = (2/k^2) tr(T) c^(L-1) until the
    product is felt."""
    identity, T = torch.eye(4, dtype=F64)[None], 1e4 * torch.eye(4, dtype=F64)
    run = dynamics.structured_flow(
        torch.full((5, 1), 0.1, dtype=F64), identity, T, 0.99 * T.square().mean().item() / 4
    )
    assert run.reached
    assert run.time[-1].item() == pytest.approx(theory.scalar_time(T, 5, 0.1), rel=1e-3)
    assert theory.first_order_time(T, identity, 5, 0.1) == pytest.approx(
        run.time[-1].item(), rel=1e-3
    )
    with pytest.raises(BadParameter, match="needed 3 layers"):
        theory.scalar_time(T, 2, 0.1)


def test_tied_layers_predict_the_plateau():
    half = target().square().mean().item() / 2
    free = dynamics.structured_flow(delta(6), RAW, target(), half)
    tied = dynamics.structured_flow(delta(6), RAW, target(), half, tied=True)
    assert tied.time[-1].item() == pytest.approx(free.time[-1].item(), rel=2e-3)
    assert (free.error.diff() <= 1e-15).all()
    assert not dynamics.structured_flow(delta(6), RAW, target(), half, longest=0.1).reached


@pytest.mark.parametrize(("depth", "dimension"), [(1, 9), (2, 17), (5, 41), (11, 81)])
def test_dimension_of_products(depth, dimension):
    c = torch.randn(depth, 9, dtype=F64, generator=torch.Generator().manual_seed(depth))
    W = networks.assemble(c, RAW)
    W = W / torch.linalg.matrix_norm(W, 2)[:, None, None]
    assert theory.product_dimension(W, UNIT) == dimension


def test_floors_start_at_the_projection_and_fall():
    floors = theory.nearest_products(UNIT, target(), (1, 2, 3), starts=3, steps=40)
    exact = (networks.project(target(), RAW) - target()).square().mean()
    assert torch.allclose(floors[0], exact, rtol=1e-10)
    assert (floors.diff() < 0).all()
