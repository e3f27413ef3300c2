"""Margins in norms: closed forms, duality, the ball that two layers fill, the ceiling of
log(1/risk)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from dlnlib import theory
from dlnlib.errors import BadParameter, NotSeparable

F64 = torch.float64
ONE = torch.tensor([[3.0, -4.0, 0.0]], dtype=F64)
GENERATOR = torch.Generator().manual_seed(3)
Z = torch.randn(12, 6, generator=GENERATOR, dtype=F64)
Z = Z * Z[:, :1].sign()


def test_one_point_has_the_dual_norm_as_margin():
    for name, expected in (("linf", 7.0), ("l1", 4.0), ("l2", 5.0)):
        found = theory.norm_margin(name, ONE)
        assert_allclose(found.margin, expected, rtol=1e-9)
        assert_allclose(theory.dual_norm(name, ONE)[0], expected)
        assert_allclose(found.entropy, 0.0, atol=1e-12)
    assert theory.norm_margin("linf", ONE).direction[2] == 0


@pytest.mark.parametrize("name", ["linf", "l1", "l2"])
def test_certified_and_best(name):
    found = theory.norm_margin(name, Z)
    assert_allclose(theory.norm_of(name, found.direction), 1.0, rtol=1e-12)
    assert_allclose(found.dual.sum(), 1.0, rtol=1e-12)
    tries = found.direction + 0.1 * torch.randn(500, 6, generator=GENERATOR, dtype=F64)
    low, high = theory.margin_bracket(name, Z, tries, torch.softmax(tries @ Z.T, -1))
    assert (low < found.margin).all() and (high > found.margin).all()
    psi = -torch.logsumexp(-(20 * tries @ Z.T), -1)
    assert (
        psi
        <= theory.log_risk_ceiling(found.margin, found.entropy, theory.norm_of(name, 20 * tries))
        + 1e-9
    ).all()
    assert (
        psi > theory.log_risk_ceiling(found.margin, 20.0, theory.norm_of(name, 20 * tries))
    ).any()


def test_spectral_norms_are_dual():
    W, G = Z[0], Z[1]
    assert_allclose(
        theory.norm_of("spectral", W, (2, 3)), np.linalg.norm(W.reshape(2, 3).numpy(), 2)
    )
    U, _, V = torch.linalg.svd(G.reshape(2, 3), full_matrices=False)
    assert_allclose(((U @ V).flatten() * G).sum(), theory.dual_norm("spectral", G, (2, 3)))


@pytest.mark.parametrize(
    ("name", "beta_norm"), [("linf", "linf"), ("l1", "l1"), ("l2", "l2"), ("spectral", "l2")]
)
def test_two_layers_stay_within_their_ball_and_fill_it(name, beta_norm):
    width, d = 3, 4
    W = torch.randn(300, width, d, generator=GENERATOR, dtype=F64)
    a = torch.randn(300, width, generator=GENERATOR, dtype=F64)
    size = (
        torch.maximum(torch.linalg.matrix_norm(W, 2), a.norm(dim=1))
        if name == "spectral"
        else theory.norm_of(name, torch.cat([W.flatten(1), a], 1))
    )
    beta = torch.einsum("th,thd->td", a, W)
    c = theory.two_layer_factor(name, width)
    assert (theory.norm_of(beta_norm, beta) <= c * size**2).all()
    best = {
        "linf": (np.ones(3), np.ones((3, 4))),
        "l1": (np.array([0.5, 0, 0]), 0.5 * np.eye(3, 4)),
        "l2": (np.array([1, 0, 0]) / math.sqrt(2), np.eye(3, 4) * [1, 0, 0, 0] / math.sqrt(2)),
        "spectral": (np.array([1, 0, 0]), np.eye(3, 4) * [1, 0, 0, 0]),
    }[name]
    if name == "l1":
        best = best[0], best[1] * [1, 0, 0, 0]
    assert_allclose(theory.norm_of(beta_norm, torch.tensor(best[0] @ best[1], dtype=F64)), c)


def test_refusals():
    with pytest.raises(NotSeparable):
        theory.norm_margin("l1", torch.cat([Z, -Z]))
    with pytest.raises(BadParameter):
        theory.norm_margin("spectral", Z)
