"""Gradient descent against plain autograd loops, its step rules, its audit, and the cases where it
must say no."""

from __future__ import annotations

import math
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch

import dlnlib as dl
from dlnlib._kernels import slopes
from dlnlib.dynamics import margin_descent
from dlnlib.dynamics.descent import descend
from dlnlib.dynamics.margin_descent import _calls
from dlnlib.dynamics.recording import record_steps
from dlnlib.dynamics.rules import Constant, LossScaled, SmoothnessStep
from dlnlib.errors import BadParameter, NonFinite, ShapeMismatch, StepRuleViolated
from dlnlib.theory.smoothness import ball_smoothness

F64 = torch.float64
ALL = [dl.exponential, dl.logistic, dl.polynomial, dl.squared]
SIX = dl.six_points().scaled().z


def risk(weights, z, loss):
    return loss.values(dl.margins(weights, z)).mean()


def by_autograd(weights, z, loss, step_size, steps, momentum=0.0, decay=0.0):
    """A loop that nobody can get wrong: lists of (weights, gradient, eta) at every step."""
    W, V, seen = [A.clone() for A in weights], [torch.zeros_like(A) for A in weights], []
    for _ in range(steps):
        W = [A.detach().requires_grad_() for A in W]
        g = torch.autograd.grad(risk(W, z, loss), W)
        eta = step_size(W)
        seen.append((W, g, eta))
        V = [momentum * v - eta * (a + decay * A) for v, a, A in zip(V, g, W, strict=True)]
        W = [(A + v).detach() for A, v in zip(W, V, strict=True)]
    return W, seen


def close(found, wanted):
    for A, B in zip(found, wanted, strict=True):
        torch.testing.assert_close(A, B.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.name)
@pytest.mark.parametrize("dims", [[3, 1], [3, 4, 1], [3, 2, 5, 1], [3, 4, 1, 2, 1]], ids=len)
def test_steps_agree_with_autograd_in_every_run(dims, loss):
    z = dl.random_separable(7, 3, seed=1).scaled().z
    weights = dl.gaussian(dims, seed=3, runs=(2, 3))
    path = descend(weights, z, loss, Constant(0.05), 40, records=100)
    for r in range(6):
        W, seen = by_autograd(
            [A.reshape(6, *A.shape[2:])[r] for A in weights], z, loss, lambda _: 0.05, 40
        )
        mine = path.run(r)
        close(mine.final, W)
        squares = [sum(float(a.square().sum()) for a in g) for _, g, _ in seen]
        assert mine.totals["error_sum"].item() == pytest.approx(0.05 * sum(squares), rel=1e-12)
        assert mine.totals["drift_sum"].item() == pytest.approx(0.0025 * sum(squares), rel=1e-12)
        assert mine.totals["steps"] == 40
    assert path.status == ["finished"] * 6 and path.settings["rule_of_theorem"] is False


@pytest.mark.parametrize("momentum, decay", [(0.9, 0.0), (0.0, 0.1), (0.5, 0.01)])
def test_momentum_and_weight_decay_agree_with_a_plain_loop(momentum, decay):
    weights = dl.gaussian([2, 3, 3, 1], seed=0)
    path = descend(
        weights, SIX, dl.logistic, Constant(0.1), 50, momentum=momentum, weight_decay=decay
    )
    close(path.final, by_autograd(weights, SIX, dl.logistic, lambda _: 0.1, 50, momentum, decay)[0])


def test_loss_scaled_steps_agree_with_a_plain_loop():
    weights = dl.gaussian([2, 3, 3, 1], seed=0, scale=0.6)

    def step_size(W):
        return (
            0.5
            / (risk(W, SIX, dl.logistic) * max(1.0, 9 * sum((A**2).sum() for A in W) ** 2)).item()
        )

    path = descend(weights, SIX, dl.logistic, LossScaled(0.5), 60)
    close(path.final, by_autograd(weights, SIX, dl.logistic, step_size, 60)[0])


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_rule_of_the_theorem_keeps_its_word(depth):
    """eta = 1/beta(R_t) with W(t) in B(R_t - 1), R_t kept until it must grow; no step violates the
    inequality."""
    weights = dl.gaussian([2] + [3] * (depth - 1) + [1], seed=1)
    path = descend(
        weights, SIX, dl.logistic, SmoothnessStep.for_loss(dl.logistic, SIX), 400, records=2000
    )
    assert len(path) == 401  # every step is on record
    sizes = torch.stack([torch.linalg.matrix_norm(W) for W in path.weights]).amax(0)
    etas = path.clocks["log_time"].exp().diff()
    radius, refreshes = 0.0, 0
    for size, eta in zip(sizes, etas, strict=False):
        if size > radius - 1:
            radius, refreshes = size.item() + 1.05, refreshes + 1
        assert eta.item() == pytest.approx(
            min(1.0, 1 / ball_smoothness(depth, radius, 0.25, 1.0)), rel=1e-9
        )
        assert size <= radius - 1
    assert path.totals["refreshes"] == refreshes
    assert path.totals["radius"].item() == pytest.approx(radius)
    assert path.totals["violations"] == 0 and path.totals["largest_increase"] < 0
    assert path.settings["rule_of_theorem"]
    at_start = dl.logistic.log_risk(dl.margins(weights, SIX)).exp()
    assert (
        path.totals["error_sum"] <= 2 * at_start
        and path.totals["drift_sum"] <= path.totals["error_sum"]
    )


def test_balance_moves_by_the_exact_formula():
    weights = dl.gaussian([2, 3, 4, 1], seed=2)
    after = descend(weights, SIX, dl.logistic, Constant(0.3), 1).final
    _, [(_, g, _)] = by_autograd(weights, SIX, dl.logistic, lambda _: 0.3, 1)
    for k, (G, G0) in enumerate(zip(dl.balance(after), dl.balance(weights), strict=True)):
        torch.testing.assert_close(
            G - G0, 0.09 * (g[k + 1].mT @ g[k + 1] - g[k] @ g[k].mT), rtol=1e-10, atol=1e-14
        )


def test_the_audit_counts_what_a_plain_loop_counts():
    weights = dl.gaussian([2, 3, 1], seed=5)
    path = descend(weights, SIX, dl.logistic, Constant(40.0), 30, records=200)
    W, seen = by_autograd(weights, SIX, dl.logistic, lambda _: 40.0, 30)
    risks = [risk(V, SIX, dl.logistic).item() for V, _, _ in seen] + [
        risk(W, SIX, dl.logistic).item()
    ]
    bounds = [-20.0 * sum(float(a.square().sum()) for a in g) for _, g, _ in seen]
    violated = sum(b - a > bound for a, b, bound in zip(risks, risks[1:], bounds, strict=False))
    assert violated >= 1
    assert path.totals["violations"] == violated
    assert path.totals["largest_increase"].item() == pytest.approx(max(np.diff(risks)), rel=1e-9)


def test_a_run_that_diverges_is_reported_and_the_others_go_on():
    weights = dl.gaussian([2, 3, 3, 1], seed=0, runs=(2,))
    weights = [W * torch.tensor([1.0, 40.0], dtype=F64)[:, None, None] for W in weights]
    path = descend(weights, SIX, dl.squared, Constant(0.01), 1000)
    assert path.status[0] == "finished" and path.status[1].startswith("diverged at step ")
    assert all(torch.isfinite(W).all() for W in path.weights)
    assert path.totals["steps"][0] == 1000 and path.totals["steps"][1] < 1000
    assert path.totals["violations"][0] == 0 and path.totals["violations"][1] >= 1


def test_a_risk_that_underflows_is_reported_and_sums_stay_finite():
    weights = dl.gaussian([2, 3, 1], seed=0)
    path = descend(weights, SIX, dl.logistic, LossScaled(1.0), 30_000)
    assert path.status.startswith("risk underflowed at step ")
    assert 600 < path.clocks["log_inverse_risk"][-1] < 709
    assert torch.isfinite(path.totals["drift_sum"]) and torch.isfinite(path.totals["error_sum"])
    moved = torch.stack([(G - G[0]).abs().max() for G in dl.balance(path.weights)]).max()
    # of which most came after the plain ||g||^2 had underflowed
    assert 0 < moved <= path.totals["drift_sum"]


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.name)
def test_compiled_values_and_slopes_at_any_margin(loss):
    m = np.concatenate(
        [np.linspace(-1e3, 1e3, 401), np.linspace(-3, 3, 101), [0.0, 36.8, -36.8, 700.0, -700.0]]
    )
    if loss is dl.exponential:
        m = m[m > -708]  # the risk is infinite below
    s, v, e = (np.empty_like(m) for _ in range(3))
    slopes.pointwise(slopes.number_of(loss), m, s, v, e, e.view(np.int64))
    total, t = v + (np.log1p(e) if loss is dl.logistic else 0.0), torch.from_numpy(m)
    kept = m < 708 if loss in (dl.exponential, dl.logistic) else np.ones(len(m), bool)
    np.testing.assert_allclose(total[kept], loss.values(t).numpy()[kept], rtol=1e-14, atol=0)
    np.testing.assert_allclose(s[kept], -loss.slopes(t).numpy()[kept], rtol=1e-14, atol=0)
    assert (total[~kept] == 0).all() and (s[~kept] == 0).all()


@pytest.mark.parametrize("n", [1, 2, 3, 511, 512, 513, 2000])
def test_logistic_sums_keep_every_digit(n):
    """The product form of sum log(1 + e^-|m|) against 50 digits, many points at once, near 0 and
    far out."""
    rng = np.random.default_rng(0)
    for m in (rng.uniform(-30, 60, n), rng.uniform(300, 600, n), rng.uniform(-1e-3, 1e-3, n)):
        with mpmath.workdps(400):
            wanted = float(sum(mpmath.log1p(mpmath.exp(-mpmath.mpf(float(x)))) for x in m) / n)
        room = np.empty((4, n))
        found = slopes.over_data(
            m[None], np.ones(1), slopes.LOGISTIC, np.empty(1), room, room[3].view(np.int64)
        )[0]
        assert found == pytest.approx(wanted, rel=1e-14, abs=0)


def test_compiled_exp_is_good_to_two_ulps():
    x = np.concatenate([np.linspace(-708, 708, 501), np.random.default_rng(1).uniform(-2, 2, 500)])
    found = np.empty_like(x)
    slopes._exp(x.copy(), found, found.view(np.int64))
    with mpmath.workdps(30):
        exact = [mpmath.exp(mpmath.mpf(float(v))) for v in x]
        errors = [
            abs(float(mpmath.mpf(float(y)) / e - 1)) for e, y in zip(exact, found, strict=True)
        ]
    assert max(errors) <= 2.5 * np.finfo(float).eps


def test_records_are_log_spaced_and_end_at_the_last_step():
    assert record_steps(0, 20) == [0]
    assert record_steps(7, 100) == list(range(8))
    goals = record_steps(123_457, 10)
    assert (
        goals[0] == 0 and goals[-1] == 123_457 and goals == sorted(set(goals)) and len(goals) < 60
    )
    path = descend(dl.gaussian([2, 1], seed=0), SIX, dl.logistic, Constant(0.5), 1234, records=7)
    assert path.clocks["step"].tolist() == record_steps(1234, 7)
    assert path.clocks["log_time"][-1].exp().item() == pytest.approx(617.0)


@pytest.mark.parametrize("records", [1, 2, 3, 7, 20, 33, 100, 1000, 12_345])
@pytest.mark.parametrize("steps", [0, 1, 2, 9, 10, 11, 57, 999, 1000, 12_345, 1_000_003])
def test_records_are_all_rounded_powers_up_to_the_last_step(steps, records):
    powers = (
        round(10 ** (i / records))
        for i in range(math.ceil(records * math.log10(max(steps, 1))) + 1)
    )
    assert record_steps(steps, records) == sorted({0, steps, *(t for t in powers if t <= steps)})


def test_many_records_of_few_steps_cost_nothing():
    assert record_steps(2000, 10**15) == list(range(2001))


def test_weights_between_records():
    """A run recorded at a tenth of its steps gives the others by its spline; nothing outside it is
    made up."""
    weights = dl.gaussian([2, 3, 1], seed=0)
    dense, sparse = (
        descend(weights, SIX, dl.logistic, Constant(0.1), 200, records=r) for r in (2000, 30)
    )
    psi = dense.clocks["log_inverse_risk"]
    assert len(sparse) < 0.4 * len(dense)
    for W, V in zip(sparse.between("log_inverse_risk", psi), dense.weights, strict=True):
        torch.testing.assert_close(W, V, rtol=0, atol=1e-6)
    with pytest.raises(BadParameter, match="stay between"):
        sparse.between("log_inverse_risk", psi + 1)
    just_outside = torch.stack([psi.min() - 1e-15, psi.max() + 1e-15])
    for W, V in zip(sparse.between("log_inverse_risk", just_outside), sparse.weights, strict=True):
        torch.testing.assert_close(W, V[[0, -1]], rtol=1e-14, atol=0)
    with pytest.raises(BadParameter, match="single one"):
        descend([torch.stack([W, W]) for W in weights], SIX, dl.logistic, Constant(0.1), 5).between(
            "step", psi
        )


def test_what_must_be_refused():
    weights = dl.gaussian([2, 3, 1], seed=0)
    with pytest.raises(StepRuleViolated, match="logistic"):
        SmoothnessStep.for_loss(dl.exponential, SIX)
    with pytest.raises(StepRuleViolated, match="scale the data"):
        SmoothnessStep.for_loss(dl.logistic, 2 * SIX)
    with pytest.raises(BadParameter, match="eta"):
        Constant(-1.0)
    with pytest.raises(BadParameter, match="c is nan"):
        LossScaled(math.nan)
    with pytest.raises(BadParameter, match="steps"):
        descend(weights, SIX, dl.logistic, Constant(0.1), 0)
    with pytest.raises(ShapeMismatch):
        descend(dl.gaussian([3, 3, 1], seed=0), SIX, dl.logistic, Constant(0.1), 5)
    with pytest.raises(NonFinite, match="-700 and 700"):
        descend([W * 1e3 for W in weights], SIX, dl.exponential, Constant(0.1), 5)


@pytest.mark.parametrize(
    "rule",
    [Constant(0.3), LossScaled(0.5), SmoothnessStep(0.25, 1.0)],
    ids=lambda r: type(r).__name__,
)
@pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.name)
def test_many_small_runs_are_the_single_runs(loss, rule):
    """66 runs go by `lanes`, in two groups; single ones do not."""
    z = dl.random_separable(n=13, d=5, seed=2).scaled().z
    weights = dl.gaussian([5, 6, 3, 1], seed=4, runs=(66,))
    weights[0][2] *= 1e3 if loss is not dl.exponential else 1.0  # a run that diverges, or nearly
    together = descend(weights, z, loss, rule, 60)
    for r in (0, 2, 63, 64, 65):
        alone = descend([W[r] for W in weights], z, loss, rule, 60)
        assert together.status[r] == alone.status
        for both, one in zip(together.weights, alone.weights, strict=True):
            torch.testing.assert_close(both[: len(one), r], one, rtol=1e-11, atol=1e-11)
        # of a change of the risk
        rounding = 1e-15 * alone.clocks["log_inverse_risk"].neg().exp().max().item()
        for name, column in alone.totals.items():
            torch.testing.assert_close(
                together.totals[name][r], column, rtol=1e-9, atol=1e-12 + rounding
            )


@pytest.mark.parametrize("runs", [(), (9,)], ids=["one run", "lanes"])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_short_calls_of_the_kernels_change_nothing(runs, momentum, monkeypatch):
    """Records, totals and status are the same where a call makes one step, as for long runs it
    makes some."""
    weights = dl.gaussian([2, 3, 3, 1], seed=0, runs=runs)
    weights[0] = (
        weights[0] * torch.linspace(1, 300, *runs, dtype=F64)[:, None, None] if runs else weights[0]
    )
    whole = descend(weights, SIX, dl.squared, Constant(0.05), 300, momentum=momentum)
    monkeypatch.setattr(margin_descent, "_CALL", 0)
    parts = descend(weights, SIX, dl.squared, Constant(0.05), 300, momentum=momentum)
    assert whole.status == parts.status and (not runs or whole.status[-1].startswith("diverged"))
    for name, clock in (whole.clocks | whole.totals).items():
        torch.testing.assert_close(
            (parts.clocks | parts.totals)[name], clock, rtol=1e-12, atol=1e-12
        )
    close(parts.weights, whole.weights)


def test_calls_of_the_kernels_are_short_and_make_every_record():
    goals = np.array(record_steps(1_000, 20))
    for most in (1, 7, 100, 5_000):
        calls = list(_calls(goals, most))
        assert (
            calls[0][0] == 0 and calls[-1][1] == 1_000 and all(b - a <= most for a, b, _ in calls)
        )
        assert all(first[1] == second[0] for first, second in pairwise(calls))
        assert np.concatenate([goals[here] for _, _, here in calls]).tolist() == goals.tolist()
        assert all(a <= goal <= b for a, b, here in calls for goal in goals[here])


def test_records_carry_the_risk_and_the_time_of_their_weights():
    z = dl.random_separable(n=13, d=5, seed=2).scaled().z
    for runs in ((), (2, 6)):
        weights = dl.gaussian([5, 6, 3, 1], seed=4, runs=runs)
        path = descend(weights, z, dl.logistic, Constant(0.5), 100)
        log_risk = dl.logistic.log_risk(dl.margins(path.weights, z))
        torch.testing.assert_close(
            path.clocks["log_inverse_risk"], -log_risk, rtol=1e-13, atol=1e-14
        )
        torch.testing.assert_close(
            path.clocks["log_time"].exp(), 0.5 * path.clocks["step"], rtol=1e-13, atol=0
        )
