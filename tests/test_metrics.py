from __future__ import annotations

import math

import pytest
import torch

import dlnlib as dl
from dlnlib import measure
from dlnlib.errors import BadParameter, ShapeMismatch

DIMS = [3, 4, 5, 1]


def gaussian(dims=DIMS, seed=0, runs=()):
    g = torch.Generator().manual_seed(seed)
    return [
        torch.randn(*runs, b, a, generator=g, dtype=torch.float64)
        for a, b in zip(dims, dims[1:], strict=False)
    ]


def orthogonal(d, seed=0):
    return torch.linalg.qr(
        torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )[0]


def t(rows):
    return torch.tensor(rows, dtype=torch.float64)


def close(a, b, rtol=1e-11, atol=1e-13):
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


OF_WEIGHTS = {
    "misalignment": lambda W: torch.stack(dl.misalignment(W)),
    "alignment": lambda W: torch.stack(dl.alignment(W)),
    "product": measure.product_alignment,
    "commutator": measure.commutator_score,
    "rank_one_error": lambda W: torch.stack([measure.rank_one_error(w) for w in W]),
    "stable_rank": lambda W: torch.stack([dl.stable_rank(w) for w in W]),
}


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_invariant_to_scale_sign_and_rotation(name):
    W, f = gaussian(runs=(2, 3)), OF_WEIGHTS[name]
    value = f(W)
    assert value.shape[-2:] == (2, 3)
    close(f([s * w for s, w in zip([1e8, -1e-8, 3.0], W, strict=True)]), value)
    Q = [orthogonal(d, seed=d) for d in DIMS]
    close(f([Q[k + 1] @ w @ Q[k].T for k, w in enumerate(W)]), value)
    # one transpose dropped
    wrong = [Q[k + 1] @ w @ (Q[k] if k == 1 else Q[k].T) for k, w in enumerate(W)]
    assert name in ("rank_one_error", "stable_rank") or (f(wrong) - value).abs().max() > 1e-2


def test_batches_are_independent_runs():
    W = gaussian(runs=(4,))
    for f in OF_WEIGHTS.values():
        for run in range(4):
            close(f(W)[..., run], f([w[run] for w in W]))


def test_balance_and_its_drift():
    W = gaussian(runs=(2,))
    G = dl.balance(W)
    close(G[0], W[1].mT @ W[1] - W[0] @ W[0].mT)
    assert [g.shape for g in G] == [(2, 4, 4), (2, 5, 5)] and dl.balance_drift(W, W).max() == 0
    moved = [W[0], W[1] * 1.001, W[2]]
    assert dl.balance_drift(moved, W).min() > 1e-5
    # one layer has nothing to keep in balance
    assert dl.balance_drift(W[:1], W[:1]).tolist() == [0.0, 0.0]
    close(measure.norm(W), sum(w.square().sum((-2, -1)) for w in W).sqrt())


@pytest.mark.parametrize("tail", [0.0, 1e-6, 1e-3])
def test_rank_one_quantities_keep_their_digits(tail):
    U, V = orthogonal(5, 1), orthogonal(4, 2)
    W = U[:, :3] @ torch.diag(t([1.0, tail, tail])) @ V[:, :3].T
    gap = 2 * tail**2
    close(dl.rank_one_gap(W), t(gap), rtol=1e-8, atol=1e-31)
    close(
        measure.rank_one_error(W),
        t(math.sqrt(2 - 2 / math.sqrt(1 + gap)) if tail == 1e-3 else math.sqrt(gap)),
        rtol=1e-8,
        atol=1e-15,
    )
    u, sigma, v = measure.top_singular(W)
    close(torch.outer(u, v) * sigma, torch.outer(U[:, 0], V[:, 0]), atol=1e-12)
    assert dl.rank_one_gap(torch.eye(3, dtype=torch.float64)) == pytest.approx(2)  # it can say no


@pytest.mark.parametrize("angle", [1e-12, 1e-9, 1e-4, 0.5])
def test_small_angles_are_read(angle):
    a, b = t([1.0, 0.0]), t([math.cos(angle), math.sin(angle)])
    W = [torch.outer(a, t([1.0, 2.0])), b[None]]
    close(
        dl.misalignment(W)[0],
        t(math.sin(angle) ** 2),
        rtol=1e-3 if angle == 1e-12 else 1e-6,
        atol=0,
    )
    close(dl.direction_error(1e8 * b, a), t(2 * math.sin(angle / 2)), rtol=1e-12, atol=0)
    close(measure.principal_sines(b[:, None], a[:, None])[0], t(math.sin(angle)), rtol=1e-3, atol=0)


def test_backwards_is_not_perfect():
    u = t([0.6, 0.8])
    assert dl.direction_error(-u, u) == pytest.approx(2) and dl.margin(
        -u, u[None]
    ) == pytest.approx(-1)
    errors = dl.direction_error(t([[0.8, -0.6], [3.0, 4.0]]), u)
    assert errors.tolist() == pytest.approx([math.sqrt(2), 0], abs=1e-15)
    assert measure.kkt_residual(-u, u[None]) == pytest.approx(1)


def test_margin_and_kkt_residual():
    z = t([[0.3, 0.5], [0.3, -0.3], [0.5, 0.6]])
    w = t([[5.0, 0.0], [0.0, 1.0]])
    assert dl.margin(w, z).tolist() == pytest.approx([0.3, -0.3])
    assert measure.kkt_residual(w, 1e8 * z[:2]).tolist() == pytest.approx(
        [0, math.cos(math.atan2(5, 3))], abs=1e-14
    )
    close(measure.perpendicular(t([[3.0, 4.0]]), t([1.0, 0.0])), t([[0.0, 4.0]]))


def test_product_alignment_of_aligned_and_of_crossed_layers():
    a = t([0.6, 0.8])
    aligned = [torch.outer(a, t([1.0, 2.0, 2.0])), torch.outer(t([0.0, 1.0]), a), t([[0.0, 7.0]])]
    assert measure.product_misalignment(aligned).abs() < 1e-15
    crossed = [aligned[0], aligned[1], t([[7.0, 0.0]])]
    assert measure.product_misalignment(crossed) == pytest.approx(1)
    with pytest.raises(ShapeMismatch, match="needed 1"):
        measure.product_alignment(aligned[:2])


def test_scores_of_r20():
    Q = [orthogonal(d, seed=d) for d in (4, 6, 5, 3)]

    def layers(*values):
        out = []
        for k, v in enumerate(values):
            S = torch.zeros(Q[k + 1].shape[0], Q[k].shape[0], dtype=torch.float64)
            S[range(3), range(3)] = t(v)
            out.append(Q[k + 1] @ S @ Q[k].T)
        return out

    aligned = layers([3, 2, 1.0], [1, 3, 2.0], [2.5, 1, 4.0])
    assert measure.commutator_score(aligned) < 1e-15
    other = layers([1, 2, 3.0], [5, 1, 2.0], [1.5, 2, 1.0])
    assert measure.inv_score(other, aligned) <= 1 + 1e-14
    noisy = gaussian([4, 6, 5, 3], seed=9)
    assert measure.commutator_score(noisy) > 0.05 and measure.align_score(noisy) < 0.95
    assert measure.inv_score(noisy, aligned) < 0.95
    square = [
        orthogonal(3, 1) @ torch.diag(t([3, 2, 1.0])),
        torch.diag(t([1, 2, 4.0])) @ orthogonal(3, 1).T,
    ]
    assert measure.align_score(square) == pytest.approx(1) and measure.inv_score(
        square, square
    ) == pytest.approx(1)


def test_path_length():
    angle = torch.linspace(0, math.pi / 2, 201, dtype=torch.float64)
    radius = torch.exp(angle)  # a spiral: only its direction counts
    W = [
        (radius * part)[:, None, None, None].expand(-1, 2, 1, 1)
        for part in (angle.cos(), angle.sin())
    ]
    length = measure.path_length(W)
    assert length.shape == (201, 2) and length[0].max() == 0
    close(length[-1], t([1, 1]) * 200 * 2 * math.sin(math.pi / 800))
    assert measure.path_length([w[:1] for w in W]).tolist() == [[0, 0]]


def test_zero_weights_are_named():
    zero = [torch.zeros(2, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)]
    assert dl.rank_one_gap(zero[0]) == 0 and dl.balance(zero)[0].abs().max() == 0
    for f in [
        *OF_WEIGHTS.values(),
        lambda W: dl.balance_drift(W, W),
        lambda W: measure.top_singular(W[0]),
    ]:
        with pytest.raises(BadParameter, match="no direction"):
            f(zero)
    for f in (
        dl.direction_error,
        lambda w, u: dl.margin(w, u[None]),
        lambda w, u: measure.kkt_residual(w, u[None]),
    ):
        with pytest.raises(BadParameter, match="norm of w is 0"):
            f(t([0.0, 0.0]), t([1.0, 0.0]))


def test_layers_that_do_not_fit():
    with pytest.raises(ShapeMismatch, match="layer 2 takes 3 inputs, layer 1 gives 2"):
        dl.balance([torch.zeros(2, 2), torch.zeros(1, 3)])
    with pytest.raises(ShapeMismatch, match="swap"):
        measure.principal_sines(torch.eye(3), torch.eye(3)[:, :1])
