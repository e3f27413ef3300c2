"""Descent on scores against torch.func, against that on margins, and against that to a target."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch

import dlnlib as dl
from dlnlib.dynamics.rules import Constant, LossScaled, Schedule, SmoothnessStep
from dlnlib.errors import BadParameter, NonFinite, ShapeMismatch, StepRuleViolated
from dlnlib.losses.scores import CrossEntropy, cross_entropy, mean_squared_error, squared_error

F64 = torch.float64
N, DIMS = 7, [4, 5, 3]
LOSSES = [squared_error, mean_squared_error, cross_entropy]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def problem(loss, runs=(), own=False, dims=DIMS):
    """Weights, x, y; with `own`, every run has data of its own."""
    lead = runs if own else ()
    y = normal(*lead, dims[-1], N, seed=2).mT
    y = y.softmax(-1) if loss is cross_entropy else y
    return dl.gaussian(dims, 3, 0.8, runs=runs), 0.5 * normal(*lead, dims[0], N, seed=1).mT, y


class Margin:
    """A loss of the library's four, of one score times the label: any other loss of scores will do
    as well."""

    def __init__(self, loss):
        self.loss = loss

    def value(self, scores, y):
        return self.loss.values(scores * y)[..., 0].mean(-1)

    def slope(self, scores, y):
        return y * self.loss.slopes(scores * y) / scores.shape[-2]


def plain_loop(weights, x, y, loss, lengths, steps, momentum=0.0, decay=0.0):
    """Weights and, of every step, risk, gradients and eta a layer; by torch.func."""

    def risk(layers):
        return loss.value(x @ dl.end_to_end(layers).mT, y)

    W, V, seen = [A.clone() for A in weights], [torch.zeros_like(A) for A in weights], []
    for t in range(steps):
        g = torch.func.grad(risk)(W)
        etas = lengths(t, W, risk(W))
        seen.append((risk(W), g, etas))
        V = [
            momentum * v - eta * (a + decay * A) for v, a, A, eta in zip(V, g, W, etas, strict=True)
        ]
        W = [A + v for A, v in zip(W, V, strict=True)]
    return W, [*seen, (risk(W), None, None)]


def close(found, wanted, tolerance=1e-12):
    for A, B in zip(found, wanted, strict=True):
        torch.testing.assert_close(A, B, rtol=tolerance, atol=tolerance)


@every_loss
@pytest.mark.parametrize("momentum, decay", [(0.0, 0.0), (0.9, 0.0), (0.0, 0.2), (0.5, 0.1)])
@pytest.mark.parametrize("own", [False, True], ids=["shared data", "own data"])
def test_steps_and_totals_against_torch_func(loss, momentum, decay, own):
    weights, x, y = problem(loss, (2, 2), own)
    etas = (0.02, 0.05)
    path = dl.descend(
        weights,
        dl.ScoreRisk(x, y, loss),
        Constant(etas),
        40,
        records=100,
        momentum=momentum,
        weight_decay=decay,
    )
    for r in (0, 3):
        mine = path.run(r)
        data_of_run = (A.reshape(4, *A.shape[2:])[r] if own else A for A in (x, y))
        start = [W.reshape(4, *W.shape[2:])[r] for W in weights]
        W, seen = plain_loop(start, *data_of_run, loss, lambda *_: etas, 40, momentum, decay)
        close(mine.final, W)
        risks = torch.stack([risk for risk, _, _ in seen])
        squares = [[float(a.square().sum()) for a in g] for _, g, _ in seen[:-1]]
        first = [sum(e * s for e, s in zip(etas, row, strict=True)) for row in squares]
        second = [sum(e * e * s for e, s in zip(etas, row, strict=True)) for row in squares]
        assert mine.totals["error_sum"].item() == pytest.approx(sum(first), rel=1e-11)
        assert mine.totals["drift_sum"].item() == pytest.approx(sum(second), rel=1e-11)
        assert mine.totals["largest_increase"].item() == pytest.approx(
            risks.diff().max().item(), rel=1e-9
        )
        violated = sum(b - a > -s / 2 for a, b, s in zip(risks, risks[1:], first, strict=False))
        assert mine.totals["violations"] == violated and (violated == 0 or momentum or decay)
        assert mine.totals["steps"] == 40 and mine.totals["eta"].item() == pytest.approx(0.035)
        assert "radius" not in mine.totals
        torch.testing.assert_close(
            mine.clocks["log_inverse_risk"], -risks[mine.clocks["step"].long()].log()
        )
        assert mine.clocks["log_time"][-1].exp().item() == pytest.approx(40 * 0.035)
        size = sum(A.square().sum() for A in W).sqrt().log()
        torch.testing.assert_close(mine.clocks["log_norm"][-1], size)
    assert path.status == ["finished"] * 4 and path.settings["rule_of_theorem"] is False


@pytest.mark.parametrize(
    "rule",
    [Constant(0.3), LossScaled(0.5), SmoothnessStep(0.25, 1.0)],
    ids=lambda r: type(r).__name__,
)
@pytest.mark.parametrize(
    "loss", [dl.logistic, dl.exponential, dl.squared], ids=lambda loss: loss.name
)
def test_one_output_is_descend(rule, loss):
    z = dl.random_separable(n=13, d=5, seed=2).scaled().z
    weights = dl.gaussian([5, 6, 3, 1], seed=4, scale=0.5, runs=(3,))
    one = dl.descend(weights, z, loss, rule, 60)
    many = dl.descend(
        weights, dl.ScoreRisk(z, torch.ones(len(z), 1, dtype=F64), Margin(loss)), rule, 60
    )
    close(many.weights, one.weights)
    assert set(many.totals) == set(one.totals) and set(many.clocks) == set(one.clocks)
    for name, column in (one.totals | one.clocks).items():
        torch.testing.assert_close((many.totals | many.clocks)[name], column, rtol=1e-9, atol=1e-12)
    assert many.settings["rule_of_theorem"] == one.settings["rule_of_theorem"]
    if loss is dl.squared:
        same = dl.descend(
            weights,
            dl.ScoreRisk(z, torch.ones(len(z), 1, dtype=F64), mean_squared_error),
            rule,
            60,
        )
        close(same.final, one.final)


@pytest.mark.parametrize("momentum, decay", [(0.0, 0.0), (0.9, 0.0), (0.5, 0.1)])
def test_whitened_squared_loss_is_descent_to_a_target(momentum, decay):
    weights, _, y = problem(squared_error, (3,))
    x = dl.orthogonal([N, 4], 5)[0].mT
    etas = (0.02, 0.05)
    one = dl.descend(
        weights,
        dl.ScoreRisk(x, y, squared_error),
        Constant(etas),
        60,
        records=20,
        momentum=momentum,
        weight_decay=decay,
    )
    other = dl.descend(
        weights,
        dl.Factorisation(y.mT @ x),
        dl.Constant(etas),
        60,
        momentum=momentum,
        weight_decay=decay,
    )
    close(one.weights, other.weights)
    rest = (y.square().sum() - (y.mT @ x).square().sum()) / 2  # what X cannot explain
    risk, least = ((-path.clocks["log_inverse_risk"]).exp() for path in (one, other))
    torch.testing.assert_close(risk, least + rest)


def test_any_step_sizes():
    weights, x, y = problem(squared_error)
    etas = [(0.01 * (t % 3 + 1), 0.02) if t % 2 else 0.03 for t in range(20)]
    by_list = dl.descend(weights, dl.ScoreRisk(x, y, squared_error), Schedule(etas), 20)
    by_call = dl.descend(
        weights, dl.ScoreRisk(x, y, squared_error), Schedule(lambda t: etas[t]), 20
    )
    close(by_list.final, by_call.final, 0)
    W, _ = plain_loop(
        weights, x, y, squared_error, lambda t, *_: etas[t] if t % 2 else (0.03, 0.03), 20
    )
    close(by_list.final, W)


@pytest.mark.parametrize("scale, steps, least", [(6.0, 300, 48), (26.5, 400, 709)])
def test_loss_scaled_steps_reach_risks_that_log_softmax_cannot(scale, steps, least):
    """One-hot targets of a diagonal start, risk e^-36 or e^-702: it falls, to the end of float64,
    and rests there."""
    x = y = torch.eye(3, dtype=F64)
    weights, rule = [scale * torch.eye(3, dtype=F64)] * 2, LossScaled(1.0)
    path = dl.descend(weights, dl.ScoreRisk(x, y, cross_entropy), rule, steps)
    psi = path.clocks["log_inverse_risk"]
    assert least < psi[-1] < 746 and path.status == "finished"
    assert (psi[psi < 700].diff() > 0).all() and (psi.diff() >= 0).all()

    def length(_, W, risk):
        return [1.0 / (risk * max(1.0, 4 * sum(A.square().sum() for A in W)))] * 2

    early = dl.gaussian([3, 3, 3], 0)  # a start at which autograd has not lost everything
    found = dl.descend(early, dl.ScoreRisk(x, y, cross_entropy), rule, 5).final
    close(found, plain_loop(early, x, y, cross_entropy, length, 5)[0])


def test_the_rule_of_the_theorem_with_cross_entropy():
    """beta(R) bounds the smoothness for several outputs too: no violation, and eta is what the rule
    says."""
    weights, x, y = problem(cross_entropy, dims=[4, 5, 5, 3])
    x = x / torch.linalg.vector_norm(x, dim=-1).max()
    rule = SmoothnessStep.for_loss(cross_entropy, x)
    assert rule.smoothness == 0.5 and rule.lipschitz == math.sqrt(2)
    path = dl.descend(weights, dl.ScoreRisk(x, y, cross_entropy), rule, 200, records=2000)
    radius = max(torch.linalg.matrix_norm(W).item() for W in weights) + 1.05
    eta = 1 / (2 * 9 * radius**4 * (0.5 + math.sqrt(2)))
    assert path.clocks["log_time"][1].exp().item() == pytest.approx(eta)
    assert path.totals["violations"] == 0 and path.totals["radius"] == pytest.approx(radius)
    assert path.totals["refreshes"] == 1 and path.settings["rule_of_theorem"]
    with pytest.raises(StepRuleViolated, match="squared error"):
        SmoothnessStep.for_loss(squared_error, x)


def test_a_long_step_is_a_violation():
    weights, x, y = problem(mean_squared_error)
    assert (
        dl.descend(weights, dl.ScoreRisk(x, y, mean_squared_error), Constant(3.0), 5).totals[
            "violations"
        ]
        >= 1
    )


def test_a_run_that_diverges_stays_at_its_last_record_and_the_others_go_on():
    weights, x, y = problem(squared_error, (2,))
    weights = [W * torch.tensor([1.0, 30.0], dtype=F64)[:, None, None] for W in weights]
    path = dl.descend(weights, dl.ScoreRisk(x, y, squared_error), Constant(0.01), 300)
    broke = int(path.status[1].removeprefix("diverged at step "))
    assert path.status[0] == "finished" and all(bool(W.isfinite().all()) for W in path.weights)
    assert path.clocks["step"][-1, 0] == 300 and path.clocks["step"][-1, 1] < broke
    assert path.totals["steps"].tolist() == [300, broke] and path.totals["violations"][1] >= 1
    alone = [W[1] for W in weights]
    for steps, status in ((broke, path.status[1]), (broke - 1, "finished")):
        assert (
            dl.descend(alone, dl.ScoreRisk(x, y, squared_error), Constant(0.01), steps).status
            == status
        )
    single = dl.descend(
        [W[0] for W in weights], dl.ScoreRisk(x, y, squared_error), Constant(0.01), 300
    )
    close([W[:, 0] for W in path.weights], single.weights)
    for name, total in single.totals.items():
        torch.testing.assert_close(path.totals[name][0], total, rtol=1e-10, atol=0)


@every_loss
def test_slopes_are_derivatives_of_values(loss):
    scores, y = normal(2, 4, 5), normal(2, 4, 5, seed=1).softmax(-1)
    slope = torch.func.grad(lambda s: loss.value(s, y).sum())(scores)
    torch.testing.assert_close(loss.slope(scores, y), slope, rtol=1e-13, atol=1e-15)
    assert loss.value(scores, y).shape == (2,)


@pytest.mark.parametrize("gap", [0.0, 1.0, 30.0, 100.0, 600.0, -30.0, -800.0])
@pytest.mark.parametrize("first", [1.0, 0.25])
def test_cross_entropy_keeps_its_digits(gap, first):
    """Against 400 digits, from a wrong class by 800 to a right one by 600."""
    scores, y = (
        torch.tensor([[gap, 0.0, -0.5]], dtype=F64),
        torch.tensor([[first, 1 - first, 0.0]], dtype=F64),
    )
    with mpmath.workdps(400):
        e = [mpmath.exp(s) for s in scores[0].tolist()]
        p = [v / sum(e) for v in e]
        value = float(-sum(a * mpmath.log(b) for a, b in zip(y[0].tolist(), p, strict=True)))
        slope = [float(b - a) for a, b in zip(y[0].tolist(), p, strict=True)]
    assert cross_entropy.value(scores, y).item() == pytest.approx(value, rel=1e-14, abs=0)
    assert cross_entropy.slope(scores, y)[0].tolist() == pytest.approx(slope, rel=1e-13, abs=1e-300)


def test_what_must_be_refused():
    weights, x, y = problem(squared_error, (2,))
    rule = Constant(0.1)
    for wrong_x, wrong_y in (
        (x[:, :3], y),
        (x, y[:, :2]),
        (x, y[:4]),
        (x[0], y),
        (torch.stack([x] * 3), y),
    ):
        with pytest.raises(ShapeMismatch, match="one row a sample"):
            dl.descend(weights, dl.ScoreRisk(wrong_x, wrong_y, squared_error), rule, 5)
    for bad in (
        (weights, x * math.nan, y),
        (weights, x, y * math.inf),
        ([W * math.nan for W in weights], x, y),
    ):
        with pytest.raises(NonFinite, match="mend the input"):
            dl.descend(bad[0], dl.ScoreRisk(*bad[1:], squared_error), rule, 5)
    with pytest.raises(NonFinite, match="risk at the start is inf"):
        dl.descend([W * 1e100 for W in weights], dl.ScoreRisk(x, y, squared_error), rule, 5)
    with pytest.raises(BadParameter, match="not a probability"):
        dl.descend(weights, dl.ScoreRisk(x, y, CrossEntropy()), rule, 5)
    with pytest.raises(BadParameter, match=r"needed an object with value\(scores, y\)"):
        dl.descend(weights, dl.ScoreRisk(x, y, dl.logistic), rule, 5)
    with pytest.raises(BadParameter, match="eta has 3 entries, needed one number, or 2 a layer"):
        dl.descend(weights, dl.ScoreRisk(x, y, squared_error), Constant((0.1, 0.1, 0.1)), 5)
    with pytest.raises(BadParameter, match="schedule has 2 steps, needed 5"):
        dl.descend(weights, dl.ScoreRisk(x, y, squared_error), Schedule([0.1, 0.1]), 5)
    with pytest.raises(BadParameter, match="eta is -0.1"):
        dl.descend(weights, dl.ScoreRisk(x, y, squared_error), Schedule(lambda t: -0.1), 5)
    for wrong in ({"steps": 0}, {"records": 0}, {"momentum": 1.0}, {"weight_decay": -1.0}):
        with pytest.raises(BadParameter, match=f"{next(iter(wrong)).replace('_', ' ')} is"):
            dl.descend(weights, dl.ScoreRisk(x, y, squared_error), rule, **({"steps": 5} | wrong))
    with pytest.raises(BadParameter, match="eta is 0"):
        Constant((0.0, 0.0))


@pytest.mark.parametrize("rule", [Constant((0.1, 0.1)), Schedule([0.1] * 40)], ids=["layers", "t"])
def test_margins_with_steps_that_no_kernel_has(rule):
    """The chain in torch makes them, with the same totals."""
    z = dl.random_separable(n=13, d=5, seed=2).scaled().z
    weights = dl.gaussian([5, 6, 1], seed=4, scale=0.5, runs=(3,))
    compiled, chained = (dl.descend(weights, z, dl.logistic, r, 40) for r in (Constant(0.1), rule))
    close(chained.weights, compiled.weights)
    for name, total in compiled.totals.items():
        torch.testing.assert_close(chained.totals[name], total, rtol=1e-9, atol=1e-12)
