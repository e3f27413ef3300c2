"""Initial weights: one suite that every initialiser must pass, what each promises, and Assumption 2
of JT18."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import dlnlib as dl
from dlnlib import measure, networks
from dlnlib.errors import BadParameter, InitialRiskTooHigh, ShapeMismatch, VanishingGradient

INITIALISERS = [dl.gaussian, dl.balanced, dl.orthogonal, dl.aligned]
SHAPES = [[4, 1], [3, 5, 1], [5, 2, 4, 3], [4, 4, 4, 4]]
every_start = pytest.mark.parametrize("start", INITIALISERS, ids=lambda start: start.__name__)
every_shape = pytest.mark.parametrize("dims", SHAPES, ids=str)
Z = torch.tensor([[0.3, 0.5], [0.3, -0.3], [0.5, 0.6], [0.6, -0.5]], dtype=torch.float64)


def imbalance(weights) -> float:
    pairs = zip(weights[:-1], weights[1:], strict=True)
    return max(((b.mT @ b - a @ a.mT).abs().max().item() for a, b in pairs), default=0.0)


@every_start
@every_shape
def test_shapes_and_type(start, dims):
    for runs in [(), (3,), (2, 2)]:
        weights = start(dims, 0, runs=runs)
        assert [tuple(W.shape) for W in weights] == [
            (*runs, b, a) for a, b in zip(dims[:-1], dims[1:], strict=True)
        ]
        assert all(W.dtype == torch.float64 and bool(W.isfinite().all()) for W in weights)


@every_start
@every_shape
def test_run_i_is_the_single_run_of_seed_plus_i(start, dims):
    many = start(dims, 5, runs=(2, 3))
    for i in range(6):
        single = start(dims, 5 + i)
        for W, alone in zip(many, single, strict=True):
            torch.testing.assert_close(W.flatten(0, 1)[i], alone, rtol=1e-14, atol=1e-15)


@every_start
def test_seeds_differ_and_global_generator_is_untouched(start):
    before = torch.random.get_rng_state()
    a, b, c = start([4, 4, 4], 0), start([4, 4, 4], 1), start([4, 4, 4], 0)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(a[0], c[0])
    assert not torch.allclose(a[0], b[0])


@every_start
def test_bad_dims(start):
    for dims in ([3], [3, 0, 1]):
        with pytest.raises(BadParameter, match="two positive sizes"):
            start(dims, 0)


def test_gaussian_has_the_stated_deviation():
    W = dl.gaussian([400, 300], 0, scale=3.0)[0]
    assert W.std().item() == pytest.approx(3 / 20, rel=0.01)


@every_shape
def test_orthogonal_layers(dims):
    for W in dl.orthogonal(dims, 0, scale=2.0, runs=(2,)):
        gram = W.mT @ W if W.shape[-2] >= W.shape[-1] else W @ W.mT
        torch.testing.assert_close(
            gram, 4 * torch.eye(gram.shape[-1], dtype=torch.float64).expand_as(gram)
        )


@every_shape
def test_balanced_layers(dims):
    weights = dl.balanced(dims, 0, scale=1.3, runs=(3,))
    assert imbalance(weights) < 1e-14
    assert imbalance(dl.gaussian(dims, 0)) > 1e-2 or len(dims) == 2  # the measure can say no
    rank = torch.linalg.matrix_rank(weights[0])
    assert (rank == min(dims)).all()


def test_aligned_layers():
    weights = dl.aligned([3, 5, 4, 1], 0, norms=[2.0, 0.5, 3.0], runs=(2,))
    for W, norm in zip(weights, [2.0, 0.5, 3.0], strict=True):
        s = torch.linalg.svdvals(W)
        torch.testing.assert_close(s[:, 0], torch.full((2,), norm, dtype=torch.float64))
        assert (s[:, 1:] < 1e-14).all()
    product = torch.linalg.vector_norm(dl.predictor(weights), dim=-1)
    # aligned: norms multiply
    torch.testing.assert_close(product, torch.full((2,), 3.0, dtype=torch.float64))
    assert imbalance(dl.aligned([3, 5, 4, 1], 0)) < 1e-15
    with pytest.raises(BadParameter, match="one a layer"):
        dl.aligned([3, 5, 1], 0, norms=[1.0])


@pytest.mark.parametrize("dims", [[4, 1], [3, 5, 4, 1], [5, 3, 3], [3, 6, 6, 4]], ids=str)
@pytest.mark.parametrize("runs", [(), (2,)], ids=str)
def test_with_product(dims, runs):
    w = dl.gaussian([dims[0], dims[-1]], 3, runs=runs)[0]
    w = w[..., 0, :] if dims[-1] == 1 else w
    weights = dl.with_product(w, dims, seed=2)
    networks.check_shapes(weights)
    product = dl.predictor(weights) if dims[-1] == 1 else dl.end_to_end(weights)
    torch.testing.assert_close(product, w, rtol=1e-13, atol=1e-14)
    assert imbalance(weights) < 1e-13


def test_with_product_errors():
    with pytest.raises(ShapeMismatch, match=r"\(4,\), needed \(..., 3\)"):
        dl.with_product(torch.ones(4, dtype=torch.float64), [3, 2, 1])
    with pytest.raises(BadParameter, match="rank above the smallest width 1"):
        dl.with_product(torch.eye(3, dtype=torch.float64), [3, 1, 3])


def test_product_and_margins_written_out():
    A, B = (torch.randn(3, 4, 2, dtype=torch.float64), torch.randn(3, 1, 4, dtype=torch.float64))
    torch.testing.assert_close(dl.end_to_end([A, B]), B @ A)
    torch.testing.assert_close(dl.predictor([A, B]), (B @ A)[:, 0])
    torch.testing.assert_close(dl.margins([A, B], Z), ((B @ A) @ Z.T)[:, 0])


def test_check_shapes_names_layers_and_shapes():
    weights = dl.gaussian([2, 3, 4, 1], 0)
    networks.check_shapes(weights, Z)
    with pytest.raises(
        ShapeMismatch, match=r"layer 3 has shape \(1, 4\) on top of layer 2 of shape \(3, 4\)"
    ):
        networks.check_shapes([torch.ones(4, 2), torch.ones(3, 4), torch.ones(1, 4)])
    with pytest.raises(
        ShapeMismatch, match=r"data have shape \(4, 2\) and layer 1 has shape \(3, 5\)"
    ):
        networks.check_shapes([torch.ones(3, 5)], Z)
    with pytest.raises(ShapeMismatch, match="same runs"):
        networks.check_shapes([torch.ones(2, 3, 2), torch.ones(3, 1, 3)])
    with pytest.raises(ShapeMismatch, match="0 layers"):
        networks.check_shapes([])
    with pytest.raises(ShapeMismatch, match="2 outputs"):
        dl.predictor([torch.ones(2, 2)])


@pytest.mark.parametrize(
    "loss", [dl.exponential, dl.logistic, dl.polynomial], ids=lambda loss: loss.name
)
def test_redrawn_starts_meet_assumption_2(loss):
    start = partial(dl.gaussian, [2, 4, 4, 1], scale=2.0)
    weights = measure.meeting_assumption_2(start, Z, loss, seed=0, runs=(40,))
    measure.check_assumption_2(weights, Z, loss)
    risk = loss.log_risk(dl.margins(weights, Z))
    assert (risk <= loss.log_at_zero).all()
    drawn = dl.gaussian([2, 4, 4, 1], 0, scale=2.0, runs=(40,))
    legal = loss.log_risk(dl.margins(drawn, Z)) <= loss.log_at_zero
    # so that there was something to redraw, and legal draws are kept as they are
    assert 5 < legal.sum() < 35
    assert torch.equal(weights[0][legal], drawn[0][legal])
    assert len({tuple(W.flatten().tolist()) for W in weights[0]}) == 40
    assert torch.equal(measure.meeting_assumption_2(start, Z, loss, seed=7)[0], weights[0][7])


def test_assumption_2_fails_at_saddles_and_above_l_of_0():
    one = torch.ones(1, 1, dtype=torch.float64)
    z = one.clone()
    with pytest.raises(InitialRiskTooHigh, match="2.71828, needed at most l"):
        measure.check_assumption_2([one, -one], z, dl.exponential)
    zero = [torch.zeros(3, 2, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64)]
    with pytest.raises(VanishingGradient, match="saddle"):
        measure.check_assumption_2(zero, Z, dl.logistic)
    opposite = torch.cat([Z, -Z])  # not separable: w = 0 is the minimum of the risk
    rest = dl.gaussian([3, 4, 1], 0)
    with pytest.raises(VanishingGradient):
        measure.check_assumption_2(
            [torch.zeros(3, 2, dtype=torch.float64), *rest], opposite, dl.logistic
        )


@pytest.mark.parametrize(
    "loss", [dl.exponential, dl.logistic, dl.polynomial], ids=lambda loss: loss.name
)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_first_layer_zero_meets_assumption_2(loss, scale):
    """JT18, appendix A: W_1 = 0 with the product of the others nonzero, at any scale."""
    rest = [scale * W for W in dl.gaussian([3, 3, 3, 1], 0)]
    measure.check_assumption_2([torch.zeros(3, 2, dtype=torch.float64), *rest], Z, loss)


def test_no_legal_start_is_told():
    one = torch.ones(1, 1, dtype=torch.float64)
    with pytest.raises(InitialRiskTooHigh, match="none of 3 draws from seed 4"):
        measure.meeting_assumption_2(lambda seed: [one, -one], one, dl.logistic, seed=4, tries=3)
