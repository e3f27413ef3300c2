from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

import dlnlib as dl
from dlnlib import data, measure, theory
from dlnlib.errors import (
    BadData,
    BadParameter,
    HypothesisNotMet,
    NonFinite,
    NotCertified,
    NotSeparable,
)
from dlnlib.losses.margin import logistic
from dlnlib.theory import margin
from dlnlib.theory._linalg import exact_sums
from dlnlib.theory.margin import _active_set, max_margin


def t(rows):
    return torch.tensor(rows, dtype=torch.float64)


def close(a, b, rtol=1e-10, atol=0.0):
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=rtol, atol=atol)


def rotation(d, seed=0):
    return torch.linalg.qr(
        torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )[0]


# --- maximum margin -------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_six_points_in_closed_form(scale):
    z = dl.six_points().z * scale
    found = max_margin(z)
    assert found.margin == pytest.approx(0.3 * scale, rel=1e-14) and found.gap <= 1e-14
    close(found.direction, t([1, 0]), atol=1e-15)
    close(found.dual, t([0.375, 0.625, 0, 0, 0, 0]), atol=1e-15)
    close(found.offset * scale, t([0, math.log(5 / 3) / 0.8]), atol=1e-14)
    assert (
        found.support.tolist() == found.active.tolist() == [True, True, False, False, False, False]
    )
    assert found.spans and found.spans_data
    assert theory.spread(z, found) == pytest.approx(0.3 * scale, rel=1e-13)


@pytest.mark.parametrize("condition", [1, 10, 1000])
@pytest.mark.parametrize("d", [1, 2, 8])
def test_known_solutions(d, condition):
    points, known = dl.spanning(25, d, seed=d, condition=condition)
    found = max_margin(points.z)
    assert found.margin == pytest.approx(known.margin, rel=1e-13) and found.spans
    close(found.direction, known.direction, atol=1e-12)
    close(found.dual, known.dual, rtol=1e-9, atol=1e-15)
    close(found.offset, known.offset, rtol=0, atol=1e-8 * max(known.offset.norm().item(), 1e-8))


@pytest.mark.parametrize("name", ["random:n=30,d=6", "digits:3,8"])
def test_equivariance(name):
    z = dl.load(name).z
    found, n, d = max_margin(z), *z.shape
    Q = rotation(d)
    turned = max_margin(z @ Q.T)
    assert turned.margin == pytest.approx(found.margin, rel=1e-12)
    close(turned.direction, Q @ found.direction, rtol=0, atol=1e-12)
    close(turned.offset, Q @ found.offset, rtol=0, atol=1e-9 * found.offset.norm().item())
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    shuffled = max_margin(z[order])
    close(shuffled.dual, found.dual[order], rtol=1e-9, atol=1e-14)
    assert torch.equal(shuffled.support, found.support[order])
    close(max_margin(-z).direction, -found.direction, rtol=0, atol=1e-13)
    assert max_margin(1e-8 * z).margin == pytest.approx(1e-8 * found.margin, rel=1e-13)


@pytest.mark.parametrize(
    "name, margin_found, count",
    [
        ("digits:0,1", 9.35911997, 16),
        ("digits:3,8", 3.3190465109, 29),
        ("iris", 0.74313749, 3),
        ("wine:0,1", 0.0738090, 11),
    ],
)
def test_real_data(name, margin_found, count):
    z = dl.load(name).z
    found = max_margin(z)
    assert (
        found.margin == pytest.approx(margin_found, rel=1e-6) and int(found.support.sum()) == count
    )
    low, high = (z @ found.direction).min(), torch.linalg.vector_norm(z.T @ found.dual)
    assert found.dual.min() >= 0 and found.dual.sum() == pytest.approx(1, rel=1e-14)
    assert found.gap <= 1e-12 and (high - low) / high <= 1e-11  # plain sums, so with their rounding
    S, u = z[found.support], found.direction
    pull = (S - torch.outer(S @ u, u)).T @ torch.softmax(-S @ found.offset, 0)
    assert pull.norm() <= 1e-13 * S.norm()


@pytest.mark.parametrize(
    "name, margin_found", [("breast-cancer", 4.0475602e-5), ("breast-cancer+1", 4.1370730e-5)]
)
def test_a_tiny_margin_is_proved_with_fractions(name, margin_found):
    z = dl.load(name).z
    found = max_margin(z)
    assert found.margin == pytest.approx(margin_found, rel=1e-7) and found.gap <= 1e-10
    u = [Fraction(v) for v in found.direction.tolist()]
    assert min(sum(Fraction(a) * b for a, b in zip(row, u, strict=True)) for row in z.tolist()) > 0


def test_tied_margins_and_duplicates():
    z = t([[0.3, 0.5], [0.3, -0.3], [0.3, 0.5], [0.3, 0.1], [0.3, -0.1], [0.9, 0.0]])
    found = max_margin(z)
    assert found.support.tolist() == found.active.tolist() == [True] * 5 + [False]
    close(found.dual[0], found.dual[2], rtol=1e-12)
    close(z.T @ found.dual, t([0.3, 0]), atol=1e-15)
    close(torch.softmax(-z[:5] @ found.offset, 0), found.dual[:5], rtol=1e-12)


def test_one_sample_one_dimension_more_dimensions_than_points():
    one = max_margin(t([[0.3, 0.4]]))
    assert (
        one.margin == pytest.approx(0.5, rel=1e-15)
        and one.offset.norm() == 0
        and not one.spans
        and one.spans_data
    )
    line = max_margin(t([[0.3], [0.4], [0.3]]))
    assert (
        line.margin == pytest.approx(0.3)
        and line.support.tolist() == [True, False, True]
        and line.spans
    )
    assert theory.spread(t([[0.3], [0.4]]), max_margin(t([[0.3], [0.4]]))) == math.inf
    wide = torch.randn(8, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = max_margin(wide)
    assert found.spans_data and not found.spans and found.gap <= 1e-13


def test_a_multiplier_that_must_be_zero():
    z = t([[0.3, 0.0], [0.3, 0.5]])
    found = max_margin(z)
    assert found.support.tolist() == [True, True] and found.active.tolist() == [True, False]
    assert found.offset is None and "support vector 1" in found.no_offset and found.spans
    assert theory.spread(z, found) == 0.0
    with pytest.raises(HypothesisNotMet, match="missing"):
        theory.at_horizon(z, found, 1e3)


def test_one_support_vector_does_not_span():
    z = data.one_support_vector().z
    found = max_margin(z)
    assert not found.spans and not found.spans_data and theory.spread(z, found) == 0.0
    assert (
        theory.direction_exponent(found, 3) == -1 / 3 and theory.direction_exponent(found, 1) == -1
    )


@pytest.mark.parametrize(
    "z",
    [
        data.not_separable(20, 5).z,
        1e-8 * data.not_separable(8, 30, seed=1).z,
        t([[0.0, 0.0], [1.0, 0.0]]),
        t([[1e8, 0], [-1e8, 0]]),
        t([[1.0], [-2.0]]),
    ],
)
def test_not_separable(z):
    for solver in (max_margin, theory.separating_direction):
        with pytest.raises(NotSeparable, match="convex combination") as caught:
            solver(z)
        a = torch.as_tensor(caught.value.certificate)
        assert a.min() >= 0 and a.sum() == pytest.approx(1, rel=1e-14)
        assert (z.T @ a).norm() <= 1e-10 * z.norm(dim=1).max()


@pytest.mark.parametrize("name", ["iris:1", "breast-cancer:10"])
def test_real_data_that_are_not_separable(name):
    z = dl.load(name).z
    with pytest.raises(NotSeparable) as caught:
        max_margin(z)
    a = torch.as_tensor(caught.value.certificate)
    assert ((z.T @ a).abs() <= 1e-14 * z.abs().amax(0)).all()


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-9, 1e-13])
def test_tiny_margins_are_solved_or_refused(size):
    points, _ = dl.spanning(40, 6, seed=1, margin=size)
    assert (points.z @ theory.separating_direction(points.z)).min() > 0
    try:
        found = max_margin(points.z)
    except NotCertified as refusal:
        assert size < 1e-6 and "rescale" in str(refusal)
    else:
        assert found.gap <= 1e-10 and found.margin == pytest.approx(size, rel=2e-10 + 1e-16 / size)


def test_undecided_is_said(monkeypatch):
    monkeypatch.setattr(margin, "_least_margin", lambda Z, u: -1.0)
    with pytest.raises(NotCertified, match="shortest convex combination"):
        theory.separating_direction(dl.six_points().z)


def test_a_wrong_solution_is_not_certified(monkeypatch):
    honest = _active_set

    def careless(Z, height):
        basis, v, multipliers = honest(Z, height)
        return basis, v + 1e-9 * np.linalg.norm(v), multipliers

    monkeypatch.setattr(margin, "_active_set", careless)
    with pytest.raises(NotCertified, match="duality gap"):
        max_margin(dl.load("random").z)


def test_unusable_z():
    with pytest.raises(BadData, match="needed [(]n, d[)]"):
        max_margin(t([1.0, 2.0]))
    with pytest.raises(NonFinite):
        max_margin(t([[1.0, math.nan]]))


def test_exact_sums():
    A = np.random.default_rng(0).normal(size=(5, 40)) * 10.0 ** np.random.default_rng(1).integers(
        -8, 8, 40
    )
    x = np.random.default_rng(2).normal(size=40)
    for row, found in zip(A, exact_sums(A, x), strict=True):
        assert found == float(
            sum(Fraction(a) * Fraction(b) for a, b in zip(row.tolist(), x.tolist(), strict=True))
        )


def test_the_narrowest_direction_attains_the_spread():
    for name in ("six-points", "spanning:n=12,d=4", "spanning:n=40,d=20"):
        z = dl.load(name).z
        found = max_margin(z)
        alpha, xi = theory.narrowest(z, found)
        assert alpha == theory.spread(z, found) and xi.norm().item() == pytest.approx(1, rel=1e-12)
        assert abs(xi @ found.direction) <= 1e-12
        assert (z[found.support] @ xi).max().item() == pytest.approx(alpha, rel=1e-9)


def test_many_tied_support_vectors_in_many_dimensions_are_left_undecided():
    corners = torch.cartesian_prod(*[t([-1.0, 1.0])] * 10)
    z = torch.cat([torch.ones(len(corners), 1, dtype=torch.float64), corners], 1)
    found = max_margin(z)
    assert found.spans and found.support.all() and found.offset.norm() <= 1e-10
    with pytest.raises(NotCertified, match="at most 9 dimensions"):
        theory.narrowest(z, found)
    assert theory.at_horizon(z, found, 1e6, 3).direction_error <= 1e-10


def test_spread_is_the_distance_to_the_hull():
    from scipy.spatial import ConvexHull

    for extra in (0, 2):  # a simplex, and tied points beyond one
        points, known = dl.spanning(4, 4, seed=5)
        S = torch.cat(
            [points.z, *[0.5 * (points.z[i] + points.z[i + 1])[None] for i in range(extra)]]
        )
        found = max_margin(S)
        alpha = theory.spread(S, found)
        Y = (S @ torch.linalg.svd(known.direction[None])[2][1:].T).numpy()
        assert alpha == pytest.approx(-ConvexHull(Y).equations[:, -1].max(), rel=1e-10)
        xi = torch.randn(20000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        xi = measure.perpendicular(xi, known.direction)
        reached = ((xi / xi.norm(dim=1, keepdim=True)) @ S.T).amax(1).min()
        assert alpha <= reached <= 1.3 * alpha


# --- layers ---------------------------------------------------------------------------------------


def gaussian(dims, seed=0, runs=(), scale=0.6):
    g = torch.Generator().manual_seed(seed)
    shapes = zip(dims[1:], dims, strict=False)
    return [
        scale * torch.randn(*runs, *shape, generator=g, dtype=torch.float64) for shape in shapes
    ]


def test_rank_one_bound():
    start = gaussian([3, 4, 5, 1], runs=(6,))
    D = theory.rank_one_bound(start)
    assert D.shape == (6,)
    for run in range(6):
        W = [w[run].numpy() for w in start]
        largest = max((w**2).sum() for w in W) - (W[-1] ** 2).sum()
        balances = sum(np.linalg.norm(a @ a.T - b.T @ b, 2) for a, b in zip(W, W[1:], strict=False))
        assert D[run].item() == pytest.approx(largest + balances, rel=1e-13)
    assert all((dl.rank_one_gap(w) <= D).all() for w in start)
    e = [t([0.6, 0.8]), t([1.0, 0, 0])]
    balanced = [torch.outer(e[0], t([1.0, 0])), torch.outer(e[1], e[0]), e[1][None]]
    assert theory.rank_one_bound(balanced) < 1e-15
    assert all(gap.abs() < 1e-15 for gap in theory.gap_limit(balanced, e))


def test_gap_bounds_lie_between_the_gaps_of_any_balanced_partner_and_D():
    start = gaussian([3, 4, 5, 1], runs=(6,))
    bounds, D = theory.gap_bounds(start), theory.rank_one_bound(start)
    assert [b.shape for b in bounds] == [(6,)] * 3 and (bounds[-1] == 0).all()
    for k in range(2):
        assert (dl.rank_one_gap(start[k]) <= bounds[k] + 1e-12).all() and (
            bounds[k] <= D + 1e-12
        ).all()
        worst = [t(np.linalg.eigh(G[0].numpy())[1][:, -1]) for G in dl.balance(start)]
        assert theory.gap_limit([W[0] for W in start], worst)[k].item() == pytest.approx(
            bounds[k][0].item(), rel=1e-12
        )
    assert [b.item() for b in theory.gap_bounds([gaussian([3, 1])[0]])] == [0.0]


def test_gap_limits_take_directions_at_many_times():
    start = gaussian([3, 4, 5, 1], runs=(6,))
    v = [
        torch.nn.functional.normalize(torch.ones(7, 6, d, dtype=torch.float64), dim=-1)
        for d in (4, 5)
    ]
    gaps, last = theory.gap_limit(start, v), theory.gap_limit(start, [e[-1] for e in v])
    assert [g.shape for g in gaps] == [(7, 6)] * 3
    assert all(torch.equal(g[-1], e) for g, e in zip(gaps, last, strict=True))


def follow(start, z, clock):
    """Path of the gradient flow of the exponential loss, at speed ||W||."""
    from scipy.integrate import solve_ivp

    shapes, cut = [W.shape for W in start], np.cumsum([0] + [W.numel() for W in start])
    z = z.numpy()

    def field(_, theta):
        A, B, C = [theta[a:b].reshape(s) for a, b, s in zip(cut, cut[1:], shapes, strict=False)]
        m = z @ (C @ B @ A)[0]
        weights = np.exp(m.min() - m)
        q, b = z.T @ (weights / weights.sum()), C[0] @ B
        g = np.concatenate([np.outer(b, q).ravel(), np.outer(C[0], A @ q).ravel(), B @ (A @ q)])
        return g * np.linalg.norm(theta) / np.linalg.norm(g)

    theta = np.concatenate([W.numpy().ravel() for W in start])
    run = solve_ivp(
        field, (0, clock[-1]), theta, method="LSODA", rtol=1e-10, atol=1e-11, t_eval=clock
    )
    path = torch.tensor(run.y.T.copy())
    return [path[:, a:b].reshape(-1, *s) for a, b, s in zip(cut, cut[1:], shapes, strict=False)]


@pytest.fixture(scope="module")
def run():
    z, start = dl.six_points().z, gaussian([2, 4, 4, 1], seed=3)
    if (start[2] @ start[1] @ start[0] @ z.T).mean() < 0:
        start[2] = -start[2]
    return z, start, follow(start, z, np.linspace(0, 5.5, 12))


def test_limits_and_bounds_along_a_flow(run):
    z, start, W = run
    directions = [measure.top_singular(w[-1])[2] for w in W[1:]]
    gaps = theory.gap_limit(start, directions)
    for w, gap in zip(W, gaps, strict=True):
        close(dl.rank_one_gap(w)[-1], gap, rtol=1e-4, atol=1e-12)
    swapped = theory.gap_limit(start[:2] + [2 * start[2]], directions)
    assert abs(swapped[0] - gaps[0]) > 1e-2  # it can say no
    measured = dl.misalignment(W)
    norms = [torch.linalg.matrix_norm(w, 2) for w in W[1:]]
    for sine2, norm, limit in zip(
        measured, norms, theory.misalignment_limit(start, directions), strict=True
    ):
        close((sine2 * norm**4)[-1], limit, rtol=1e-3)
    for sine2, bound in zip(measured, theory.alignment_bound(start, norms), strict=True):
        assert (sine2 <= bound).all()
    whole = measure.product_misalignment(W)[-1] * torch.linalg.matrix_norm(W[0][-1], 2) ** 2
    close(whole, theory.product_misalignment_limit(start, directions), rtol=1e-3)
    with pytest.raises(BadParameter, match="layers 2 to L"):
        theory.alignment_bound(start, norms[:1])


def test_the_predictor_at_a_finite_horizon(run):
    z, _, W = run
    w = (W[2] @ W[1] @ W[0])[-1, 0]
    found = max_margin(z)
    psi = (math.log(len(z)) - torch.logsumexp(-(z @ w), 0)).item()
    assert psi > 1e6
    there = theory.at_horizon(z, found, psi, depth=3)
    assert there.neglected < 1e-300 and there.norm == pytest.approx(w.norm().item(), rel=1e-12)
    assert dl.direction_error(w, found.direction) == pytest.approx(there.direction_error, rel=1e-5)
    lost = 1 - there.margin_ratio
    assert abs(dl.margin(w, z) / found.margin - there.margin_ratio) <= 1e-5 * lost + 1e-15
    with pytest.raises(BadParameter, match="slow manifold"):
        theory.at_horizon(z, found, 1.0, depth=3)


@pytest.mark.parametrize("depth", [3, 4, 6])
def test_the_memory_of_an_unbalanced_start(depth):
    z = dl.load("random:n=20,d=3").scaled().z
    found = max_margin(z)
    start = measure.meeting_assumption_2(
        lambda s: dl.gaussian([3] + [4] * (depth - 1) + [1], s), z, logistic
    )
    run = dl.flow(start, z, logistic, until=1e5, accuracy=1e-10)
    psi = run.clocks["log_inverse_risk"]
    left, by_law, by_layers = [], [], []
    for i in (psi > 3e3).nonzero()[:, 0].tolist():
        even = theory.at_horizon(z, found, psi[i].item(), depth).offset
        own = theory.at_horizon(z, found, psi[i].item(), depth, run.at(i)).offset
        memory = measure.perpendicular(run.predictor[i], found.direction) - even
        left.append(memory.norm().item())
        by_law.append(
            ((memory - theory.memory(z, found, start, run.at(i))).norm() / memory.norm()).item()
        )
        by_layers.append(((memory - (own - even)).norm() / memory.norm()).item())
    exponent = math.log(left[-1] / left[0]) / math.log(psi[-1] / psi[psi > 3e3][0])
    assert exponent == pytest.approx(-3 / depth, abs=0.06)  # and not -4/depth
    assert max(by_law) <= 0.06 and max(by_layers) <= 0.02


@pytest.mark.parametrize("depth, order", [(1, None), (2, 3), (4, 3)])
def test_the_slow_manifold_of_a_balanced_flow(depth, order):
    from scipy.integrate import solve_ivp

    points, _ = dl.spanning(12, 4, seed=2)
    z, found = points.z.numpy(), max_margin(points.z)

    def field(_, w):
        m = z @ w
        weights = np.exp(m.min() - m)
        q = z.T @ (weights / weights.sum())
        f = q + (depth - 1) * w * (w @ q) / (w @ w)
        return f * (w @ w) / (w @ f)

    ends = np.log([200.0, 400.0])
    path = solve_ivp(
        field,
        (np.log(10.0), ends[1]),
        10 * found.direction.numpy(),
        method="Radau",
        rtol=1e-11,
        atol=1e-10,
        t_eval=ends,
    ).y.T
    errors, naive = [], []
    for w in torch.tensor(path):
        psi = (math.log(len(z)) - torch.logsumexp(-(points.z @ w), 0)).item()
        there = theory.at_horizon(points.z, found, psi, depth)
        p = measure.perpendicular(w, found.direction)
        errors.append((p - there.offset).norm().item())
        naive.append((p - found.offset).norm().item())
    if order is None:
        assert errors[1] <= 1e-11
    else:
        assert (
            math.log2(errors[0] / errors[1]) > order - 0.3
            and 0.8 < math.log2(naive[0] / naive[1]) < 1.2
        )


def test_horizon_in_closed_form():
    z = dl.six_points().z
    there = theory.at_horizon(z, max_margin(z), 100.0)
    p = math.log(5 / 3) / 0.8
    c = (100 - math.log(6) + math.log(math.exp(-0.5 * p) + math.exp(0.3 * p))) / 0.3
    assert there.along == pytest.approx(c, rel=1e-14) and there.norm == pytest.approx(
        math.hypot(c, p), rel=1e-14
    )
    assert there.margin_ratio == pytest.approx((c - p) / math.hypot(c, p), rel=1e-13)
    assert there.direction_error == pytest.approx(2 * math.sin(math.atan2(p, c) / 2), rel=1e-12)


class Exponential:
    """What `product_floor` and `gradient_floor` need of a loss."""

    log_slopes = staticmethod(lambda m: -m)
    inverse = staticmethod(lambda log_loss: -log_loss)


def test_floors_of_lemma_1_hold_and_are_used_with_the_right_sign():
    z = dl.six_points().scaled().z
    gamma = max_margin(z).margin
    for seed in range(20):
        W = gaussian([2, 3, 1], seed=seed)
        w = (W[1] @ W[0])[0]
        m, radius = z @ w, max(torch.linalg.matrix_norm(v).item() for v in W)
        log_risk = (torch.logsumexp(-m, 0) - math.log(6)).item()
        gradient = (z * torch.exp(-m)[:, None]).mean(0).norm()
        assert gradient.log() >= theory.gradient_floor(gamma, 2, radius, Exponential)
        if log_risk < 0:
            assert W[1].norm() >= theory.product_floor(log_risk, radius, Exponential)
    assert theory.gradient_floor(gamma, 2, 0.1, Exponential) > theory.gradient_floor(
        gamma, 2, 2.0, Exponential
    )


def test_ball_smoothness():
    assert theory.ball_smoothness(3, 2.0, 0.25, 1.0) == 2 * 9 * 2**4 * 1.25
