"""W23: compression and discrimination against scikit-learn and numpy, the ideal law to rounding,
the moved mode."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import dlnlib as dl
from dlnlib import measure, theory
from dlnlib.errors import (
    BadData,
    BadLabel,
    BadParameter,
    HypothesisNotMet,
    NonFinite,
    ShapeMismatch,
)
from dlnlib.theory.compression import compress

K, N_EACH, L, EPS = 3, 4, 5, 0.3
N = K * N_EACH
LABELS = torch.arange(K).repeat_interleave(N_EACH)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def frames(d, seed=3, runs=()):
    return dl.orthogonal([d] * L, seed, runs=runs)


def orthonormal(d=N):
    return dl.orthogonal([N, d], 7)[0]


# --- what is measured -----------------------------------------------------------------------------


def test_features_are_the_products_of_the_layers():
    weights, x = dl.gaussian([6, 5, 4, 3], 1, runs=(2,)), normal(6, N)
    found = measure.layer_features(weights, x)
    assert [tuple(z.shape) for z in found] == [(2, 6, N), (2, 5, N), (2, 4, N), (2, 3, N)]
    for run in range(2):
        by_hand = weights[1][run] @ (weights[0][run] @ x)
        assert torch.allclose(found[2][run], by_hand, rtol=1e-14, atol=1e-14)
    assert not torch.allclose(found[2][0], found[2][1])


def test_scatter_is_that_of_discriminant_analysis():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    z, labels = normal(6, N) + 2 * normal(6, K, seed=1)[:, LABELS], LABELS.numpy()
    fitted = LinearDiscriminantAnalysis(solver="svd", store_covariance=True).fit(
        z.numpy().T, labels
    )
    within, between = measure.class_scatter(z, LABELS)
    assert within.item() == pytest.approx(np.trace(fitted.covariance_), rel=1e-12)
    assert between.item() == pytest.approx(np.trace(np.cov(fitted.means_.T, bias=True)), rel=1e-12)
    assert measure.class_compression(z, LABELS).item() == pytest.approx(
        (within / between).item(), rel=1e-14
    )


def test_unequal_classes_count_the_mean_of_all_samples():
    labels = torch.tensor([0, 0, 0, 1, 1])
    z = torch.tensor([[0.0, 1.0, 2.0, 10.0, 12.0]], dtype=torch.float64)
    within, between = measure.class_scatter(z, labels)
    assert within.item() == pytest.approx((2 + 2) / 5)  # deviations -1, 0, 1 and -1, 1
    assert between.item() == pytest.approx(((1 - 5) ** 2 + (11 - 5) ** 2) / 2)


def test_discrimination_is_one_minus_the_largest_cosine_of_means():
    from sklearn.metrics.pairwise import cosine_similarity

    z = normal(6, N)
    means = np.stack([z[:, LABELS == k].mean(1).numpy() for k in range(K)])
    cosines = cosine_similarity(means)
    largest = max(cosines[np.triu_indices(K, 1)])
    assert measure.class_discrimination(z, LABELS).item() == pytest.approx(1 - largest, rel=1e-12)
    assert torch.allclose(measure.class_cosines(z, LABELS), torch.from_numpy(cosines), atol=1e-14)


def test_opposite_means_are_discriminated_beyond_one():
    z = torch.tensor([[1.0, 1.0, -1.0, -1.0]], dtype=torch.float64)
    assert measure.class_discrimination(z, torch.tensor([0, 0, 1, 1])).item() == pytest.approx(2)


def test_runs_are_measured_one_by_one():
    z = normal(4, 2, 6, N)
    for score in (measure.class_compression, measure.class_discrimination):
        assert score(z, LABELS).shape == (4, 2)
        assert score(z, LABELS)[3, 1].item() == pytest.approx(
            score(z[3, 1], LABELS).item(), rel=1e-14
        )


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        ([0, 0, 0, 0], BadData, "1 class"),
        ([0, 0, 2, 2], BadLabel, "no sample of class 1"),
        ([-1, 0, 0, 1], BadLabel, "class -1"),
        ([0.0, 1.0, 0.0, 1.0], BadLabel, "integers"),
        ([0, 1, 1, 1], BadData, "class 0 has 1 sample"),
        ([0, 0, 1], ShapeMismatch, "needed 3 columns"),
    ],
)
def test_bad_labels_are_named(labels, error, words):
    with pytest.raises(error, match=words):
        measure.class_compression(normal(3, 4), torch.tensor(labels))


def test_undefined_measures_are_named():
    same = torch.ones(3, 4, dtype=torch.float64)
    with pytest.raises(BadData, match="class means coincide"):
        measure.class_compression(same, torch.tensor([0, 0, 1, 1]))
    centred = torch.tensor([[1.0, -1.0, 1.0, 2.0]], dtype=torch.float64)
    with pytest.raises(BadData, match="mean of a class is zero"):
        measure.class_discrimination(centred, torch.tensor([0, 0, 1, 1]))
    with pytest.raises(NonFinite):
        measure.class_discrimination(centred * math.nan, torch.tensor([0, 0, 1, 1]))


# --- the ideal weights ----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_ideal_weights_have_the_closed_law(scale):
    x = orthonormal(20)
    weights = theory.ideal_weights(theory.interpolating_map(x, LABELS, scale), frames(20), EPS)
    layers = measure.layer_features(weights, x)
    measured = torch.stack([measure.class_compression(z, LABELS) for z in layers[:-1]])
    law = theory.ideal_compression(K, N_EACH, L, EPS, scale)
    assert torch.allclose(measured, law, rtol=1e-13)
    assert law[0].item() == pytest.approx((N_EACH - 1) * K / (K - 1))
    assert not torch.allclose(
        measured, theory.ideal_compression(K, N_EACH + 1, L, EPS, scale), rtol=1e-2
    )
    assert torch.allclose(scale * layers[-1], dl.one_hot(LABELS), atol=1e-13)
    within, between = measure.class_scatter(layers[2], LABELS)
    assert within.item() == pytest.approx(EPS**4 * (1 - 1 / N_EACH), rel=1e-13)
    assert between.item() == pytest.approx(
        (N_EACH / scale**2) ** (2 / L) * (K - 1) / (N_EACH * K), rel=1e-13
    )
    assert all(abs(measure.class_discrimination(z, LABELS).item() - 1) < 1e-13 for z in layers)


def test_ideal_weights_are_balanced_and_have_the_singular_values():
    product = normal(K, 20)
    weights = theory.ideal_weights(product, frames(20, runs=(2,)), EPS)
    assert torch.allclose(dl.end_to_end(weights)[1], product, atol=1e-12)
    for below, above in zip(weights[:-2], weights[1:-1], strict=True):
        assert torch.allclose(above.mT @ above, below @ below.mT, atol=1e-12)
    expected = torch.cat(
        [torch.linalg.svdvals(product) ** (1 / L), EPS * torch.ones(20 - K, dtype=torch.float64)]
    )
    assert torch.allclose(
        torch.linalg.svdvals(weights[1][0]), expected.sort(descending=True).values, atol=1e-12
    )


def test_ideal_features_have_the_gram_matrices_of_the_ideal_weights():
    x, product = normal(20, N), normal(K, 20, seed=2)  # any data, any product
    layers = measure.layer_features(theory.ideal_weights(product, frames(20), EPS), x)
    predicted = theory.ideal_features(product, x, L, EPS)
    assert len(predicted) == L
    for z, model in zip(layers, predicted, strict=False):
        assert torch.allclose(z.mT @ z, model.mT @ model, rtol=1e-11, atol=1e-11)
    other = theory.ideal_features(product, x, L, 1.1 * EPS)
    assert not torch.allclose(layers[2].mT @ layers[2], other[2].mT @ other[2], rtol=1e-3)


def test_the_first_of_balanced_layers_tells_all_features():
    x, weights = (
        normal(20, N),
        theory.ideal_weights(normal(K, 20, seed=2), frames(20, runs=(2,)), EPS),
    )
    for z, model in zip(
        measure.layer_features(weights, x), theory.balanced_features(weights[0], x, L), strict=False
    ):
        assert torch.allclose(z.mT @ z, model.mT @ model, rtol=1e-11, atol=1e-11)
    bent = measure.layer_features([weights[0], 2 * weights[1], *weights[2:]], x)[2]
    model = theory.balanced_features(weights[0], x, L)[2]
    assert not torch.allclose(bent.mT @ bent, model.mT @ model, rtol=0.1)


def test_discrimination_is_linear_to_first_order_in_the_noise():
    errors = []
    for size in (1e-2, 1e-3):
        x = orthonormal(20) + size * normal(20, N) / math.sqrt(20 * N)
        model = theory.ideal_features(theory.interpolating_map(x, LABELS), x, L, 1e-2)
        measured = torch.stack([measure.class_discrimination(z, LABELS) for z in model])
        line = theory.discrimination_line(x, LABELS, L)
        assert line[-1].item() == 1
        errors.append((measured - line[:-1]).abs().max().item())
        assert (1 - measured[0]).abs() > 50 * errors[-1]
    assert errors[1] < errors[0] / 50  # second order


def test_interpolation_needs_independent_inputs():
    x = orthonormal(20)
    assert torch.allclose(
        2 * theory.interpolating_map(x, LABELS, 2.0) @ x, dl.one_hot(LABELS), atol=1e-13
    )
    with pytest.raises(HypothesisNotMet, match="not independent"):
        theory.interpolating_map(x[:, [0] * N], LABELS)
    with pytest.raises(HypothesisNotMet, match="not independent"):
        theory.interpolating_map(normal(N - 1, N), LABELS)
    with pytest.raises(ShapeMismatch):
        theory.interpolating_map(x[:, 1:], LABELS)


# --- what training makes of them ------------------------------------------------------------------


def test_two_layers_move_to_one_over_root_two():
    rho, lead = theory.moved_mode(2, 1e6, 1e-3)
    assert rho == pytest.approx(1e-3 / math.sqrt(2), rel=1e-8)
    assert lead == pytest.approx(1e6, rel=1e-8)


@pytest.mark.parametrize("overlap", [0.0, 0.4])
def test_the_moved_mode_is_what_small_steps_make(overlap):
    depth, sigma, eps = 4, 2.0, 0.4
    rest = math.sqrt(1 - overlap**2)
    found = []
    for eta in (4e-3, 2e-3):
        layers = [eps * torch.eye(2, dtype=torch.float64) for _ in range(depth - 1)]
        layers.append(eps * torch.tensor([[1.0, 0.0]], dtype=torch.float64))
        target = sigma * torch.tensor([[overlap, rest]], dtype=torch.float64)
        final = dl.descend(
            layers, dl.Factorisation(target), dl.Constant(eta), round(40 / eta)
        ).final
        found.append(torch.linalg.svdvals(final[0])[1].item())
    rho, _ = theory.moved_mode(depth, sigma, eps, overlap)
    assert 2 * found[1] - found[0] == pytest.approx(rho, rel=1e-6)  # Richardson: error O(eta^2)
    assert rho != pytest.approx(theory.moved_mode(depth, sigma, eps, overlap + 0.1)[0], rel=1e-3)


def test_training_moves_as_many_as_there_are_classes():
    x = orthonormal()
    net = compress(dl.orthogonal([N] * L + [K], 1, EPS), dl.one_hot(LABELS) @ x.mT)
    small = dl.descend(net.weights, dl.Factorisation(net.target), dl.Constant(0.02), 3000)
    rest = dl.descend(net.rest, dl.Factorisation(net.rest_target), dl.Constant(0.02), 3000)
    layers = measure.layer_features(net.restore(small.final, rest.final), x)
    measured = torch.stack([measure.class_compression(z, LABELS) for z in layers[:L]])
    s = torch.linalg.svdvals(small.final[0])
    law = theory.ideal_compression(
        K, N_EACH, L, EPS, moved=s[K:].tolist(), leading=s[:K].square().mean().item()
    )
    ideal = theory.ideal_compression(K, N_EACH, L, EPS)
    assert (measured[1] / law[1] - 1).abs() < 0.1 * (measured[1] / ideal[1] - 1).abs()


@pytest.mark.parametrize("bad", [dict(depth=1), dict(sigma=0.0), dict(eps=-1.0), dict(overlap=1.0)])
def test_bad_modes_are_named(bad):
    with pytest.raises(BadParameter):
        theory.moved_mode(**{"depth": 3, "sigma": 1.0, "eps": 0.1, **bad})
    with pytest.raises(BadParameter):
        theory.ideal_compression(1, 5, 3, 0.1)
