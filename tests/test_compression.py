"""Y23: full and compressed descent agree to 1e-12, the repeated singular value obeys its recursion;
controls."""

from __future__ import annotations

import math

import pytest
import torch

import dlnlib as dl
from dlnlib.dynamics.fused_descent import advance
from dlnlib.errors import BadParameter, HypothesisNotMet, NonFinite, ShapeMismatch
from dlnlib.theory.compression import compress, invariant_frame, restrict, whitened_target

D, R, ETA, STEPS = 30, 3, 0.02, 400
SINGULAR = (3.0, 2.25, 1.5)
SCALES = (1.0, 0.8, 0.6, 0.9, 1.1)
EXACT = 1e-12
both_cases = pytest.mark.parametrize("outputs", [D, R], ids=["case a", "case b"])


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def low_rank(outputs=D, singular=SINGULAR, seed=0):
    U, V = (
        dl.orthogonal([len(singular), size], seed + i)[0] for i, size in enumerate((outputs, D))
    )
    return U * torch.tensor(singular, dtype=torch.float64) @ V.mT


def start(depth, outputs=D, seed=1, runs=()):
    layers = dl.orthogonal([D] * depth + [outputs], seed, runs=runs)
    return [eps * W for eps, W in zip(SCALES, layers, strict=False)]


def largest(weights, others):
    return max((a - b).abs().max().item() for a, b in zip(weights, others, strict=True))


def three(net, weights, target, decay=0.0, eta=ETA, steps=STEPS):
    """Trajectories of the full network, of the small one, and of the repeated singular values."""
    problems = [(weights, target), (net.weights, net.target), (net.rest, net.rest_target)]
    return [
        dl.descend(layers, dl.Factorisation(aim), dl.Constant(eta), steps, weight_decay=decay)
        for layers, aim in problems
    ]


def off_diagonal(net, weights):
    k = net.weights[0].shape[-1]
    return max(
        part.abs().max().item()
        for B in net.blocks(weights)
        for part in (B[..., k:, :k], B[..., :k, k:])
        if part.numel()
    )


@both_cases
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_the_trajectories_are_the_same(depth, outputs, decay):
    weights, target = start(depth, outputs), low_rank(outputs)
    net = compress(weights, target)
    full, small, rest = three(net, weights, target, decay)
    assert net.multiplicity == D - 2 * R and small.weights[0].shape[-1] == 2 * R
    assert largest(full.weights, net.restore(small.weights, rest.weights)) < EXACT
    assert off_diagonal(net, full.final) < EXACT
    distance = torch.linalg.matrix_norm(dl.end_to_end(full.weights) - net.expand(small.weights))
    torch.testing.assert_close(distance, net.gap(rest.weights), rtol=0, atol=EXACT)
    assert largest(full.final, weights) > 0.05  # something moved


@both_cases
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_repeated_singular_value_obeys_the_scalar_recursion(outputs, decay):
    weights, target = start(3, outputs), low_rank(outputs)
    net = compress(weights, target)
    rest = three(net, weights, target, decay)[2]
    rho = list(SCALES[:3]) if outputs == D else [*SCALES[:2], 0.0]
    for _ in range(STEPS):
        others = [math.prod(rho[:k] + rho[k + 1 :]) ** 2 for k in range(3)]
        rho = [r * (1 - ETA * decay - ETA * other) for r, other in zip(rho, others, strict=True)]
    assert [W.item() for W in rest.final] == pytest.approx(rho, abs=1e-14)
    if outputs == R:
        assert rho[:2] == pytest.approx(
            [eps * (1 - ETA * decay) ** STEPS for eps in SCALES[:2]], rel=1e-12
        )
    elif decay == 0:
        assert rho == pytest.approx([0.803638, 0.534856, 0.082996], abs=5e-7)


def test_the_full_network_has_the_repeated_singular_value_m_times():
    weights, target = start(3), low_rank()
    net = compress(weights, target)
    full, _, rest = three(net, weights, target)
    for W, rho in zip(full.final, rest.final, strict=True):
        distances = (torch.linalg.svdvals(W) - rho.item()).abs()
        assert (distances < EXACT).sum() == net.multiplicity and (distances > 1e-3).sum() == 2 * R


def test_gap_is_at_most_that_of_the_start():
    weights, target = dl.orthogonal([D] * 4, 1, 1e-3), low_rank()
    net = compress(weights, target)
    assert net.gap(net.rest).item() == pytest.approx(math.sqrt(D - 2 * R) * 1e-9, rel=1e-12)


def test_many_runs_at_once_are_the_single_runs():
    weights, shared = start(3, runs=(2, 2)), low_rank()
    many = torch.stack([low_rank(seed=5 * i) for i in range(4)]).reshape(2, 2, D, D)
    for target in (shared, many):
        net = compress(weights, target)
        full, small, rest = three(net, weights, target, 0.01, steps=50)
        assert largest(full.weights, net.restore(small.weights, rest.weights)) < EXACT
        assert small.status == ["finished"] * 4 and net.gap(rest.final).shape == (2, 2)
        alone = compress([W[1, 0] for W in weights], target[1, 0] if target is many else target)
        single = dl.descend(
            alone.weights, dl.Factorisation(alone.target), dl.Constant(ETA), 50, weight_decay=0.01
        )
        assert (alone.expand(single.final) - net.expand(small.final)[1, 0]).abs().max() < EXACT


@both_cases
def test_any_larger_rank_will_do(outputs):
    weights, target = start(3, outputs), low_rank(outputs)
    net = compress(weights, target, rank=5)
    full, small, rest = three(net, weights, target)
    assert (
        net.multiplicity == D - 10
        and largest(full.weights, net.restore(small.weights, rest.weights)) < EXACT
    )


def test_dependent_directions_need_no_decision_on_ranks():
    """Identity layers and a symmetric target: N(Phi) and N(Phi^T W(0)) are the same space."""
    weights, V = [torch.eye(D, dtype=torch.float64)] * 3, dl.orthogonal([R, D], 4)[0]
    net = compress(weights, V @ V.mT)
    full, small, rest = three(net, weights, V @ V.mT)
    assert largest(full.weights, net.restore(small.weights, rest.weights)) < EXACT


def test_whitened_data_give_the_same_descent_as_their_target():
    x, noise = dl.orthogonal([50, D], 3)[0], normal(D, 50)
    # what X cannot explain does not enter the gradient
    y = low_rank() @ x + 0.1 * (noise - noise @ x.mT @ x)
    target, weights = whitened_target(x, y), start(3)
    after = [
        W - ETA * G for W, G in zip(weights, dl.losses.squared_gradient(weights, x, y), strict=True)
    ]
    assert (
        largest(dl.descend(weights, dl.Factorisation(target), dl.Constant(ETA), 1).final, after)
        < 1e-14
    )
    with pytest.raises(HypothesisNotMet, match="whiten the inputs"):
        whitened_target(1.001 * x, y)


@both_cases
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("momentum, decay", [(0.9, 0.0), (0.5, 0.3), (0.0, 0.3)])
def test_steps_of_their_own_and_momentum_against_autograd(depth, outputs, momentum, decay):
    weights, target, etas = (
        start(depth, outputs),
        low_rank(outputs),
        [0.01 * (k + 1) for k in range(depth)],
    )
    leaves, V = (
        [W.clone().requires_grad_() for W in weights],
        [torch.zeros_like(W) for W in weights],
    )
    for _ in range(9):
        risk = (dl.end_to_end(leaves) - target).square().sum() / 2
        G = torch.autograd.grad(risk + decay / 2 * sum(W.square().sum() for W in leaves), leaves)
        V = [momentum * v - eta * g for v, g, eta in zip(V, G, etas, strict=True)]
        leaves = [(W + v).detach().requires_grad_() for W, v in zip(leaves, V, strict=True)]
    t = dl.descend(
        weights,
        dl.Factorisation(target),
        dl.Constant(etas),
        9,
        momentum=momentum,
        weight_decay=decay,
    )
    assert largest(t.final, leaves) < 1e-13
    if depth > 1:
        assert (
            largest(
                dl.descend(
                    weights,
                    dl.Factorisation(target),
                    dl.Constant(etas[0]),
                    9,
                    momentum=momentum,
                    weight_decay=decay,
                ).final,
                leaves,
            )
            > 1e-3
        )


@both_cases
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_steps_against_autograd(depth, outputs):
    weights, target, decay = start(depth, outputs), low_rank(outputs), 0.3
    leaves = [W.clone().requires_grad_() for W in weights]
    for _ in range(5):
        risk = (dl.end_to_end(leaves) - target).square().sum() / 2
        gradients = torch.autograd.grad(
            risk + decay / 2 * sum(W.square().sum() for W in leaves), leaves
        )
        leaves = [
            (W - ETA * G).detach().requires_grad_() for W, G in zip(leaves, gradients, strict=True)
        ]
    t = dl.descend(weights, dl.Factorisation(target), dl.Constant(ETA), 5, weight_decay=decay)
    assert largest(t.final, leaves) < 1e-13
    risk = (dl.end_to_end(leaves) - target).square().sum() / 2
    assert t.clocks["step"][-1] == 5 and t.clocks["log_inverse_risk"][-1].item() == pytest.approx(
        -risk.log().item()
    )
    layers = [W[None].clone() for W in weights]
    advance(layers, dl.Factorisation(target), [ETA] * depth, 5, decay)
    assert all(torch.equal(W[0], other) for W, other in zip(layers, t.final, strict=True))


# Controls: the same code must say no where a hypothesis fails.


def test_too_small_a_rank_cannot_fit():
    """The floor is what the two outer frames miss: less than the sum of the missing sigma^2 / 2."""
    weights, target = start(3), low_rank()
    net = restrict(weights, target, invariant_frame(weights, target, 1), 2)
    full, small, _ = three(net, weights, target, steps=5000)
    risk = ((net.expand(small.final) - target).square().sum() / 2).item()
    floor = (target.square().sum() - net.target.square().sum()).item() / 2
    assert risk == pytest.approx(floor, rel=1e-9) and 3.6 < floor < (2.25**2 + 1.5**2) / 2
    assert full.clocks["log_inverse_risk"][-1] > math.log(100 / floor)  # the full network can
    with pytest.raises(HypothesisNotMet, match="target needs rank 3, found rank 2"):
        compress(weights, target, rank=2)


@both_cases
def test_another_subspace_is_another_network(outputs):
    weights, target = start(3, outputs), low_rank(outputs)
    net = restrict(weights, target, dl.orthogonal([D, D], 9)[0], 2 * R)
    full, small, rest = three(net, weights, target)
    distance = torch.linalg.matrix_norm(dl.end_to_end(full.final) - net.expand(small.final))
    assert distance > net.gap(rest.final) + 1
    assert largest(full.final, net.restore(small.final, rest.final)) > 0.1


@pytest.mark.parametrize("broken", ["gaussian start", "target of full rank"])
def test_broken_hypotheses_break_the_blocks(broken):
    weights, target = start(3), low_rank()
    if broken == "gaussian start":
        weights = [eps * W for eps, W in zip(SCALES, dl.gaussian([D] * 4, 1), strict=False)]
    else:
        target = target + 0.3 / math.sqrt(D) * normal(D, D)
    net = restrict(weights, target, invariant_frame(weights, target, R), 2 * R)
    assert (
        off_diagonal(
            net, dl.descend(weights, dl.Factorisation(target), dl.Constant(ETA), STEPS).final
        )
        > 0.1
    )
    with pytest.raises(HypothesisNotMet):
        compress(weights, target)


def test_a_random_narrow_network_goes_another_way():
    weights, target = start(3), low_rank()
    net = compress(weights, target)
    narrow = [eps * W for eps, W in zip(SCALES, dl.orthogonal([2 * R] * 4, 7), strict=False)]
    small = dl.descend(net.weights, dl.Factorisation(net.target), dl.Constant(ETA), STEPS)
    other = dl.descend(narrow, dl.Factorisation(net.target), dl.Constant(ETA), STEPS)
    assert (dl.end_to_end(small.weights) - dl.end_to_end(other.weights)).abs().amax() > 0.1


def test_a_diverging_run_says_so_and_the_others_go_on():
    weights, target = start(3, runs=(2,)), low_rank()
    weights = [W * torch.tensor([1.0, 60.0], dtype=W.dtype)[:, None, None] for W in weights]
    t = dl.descend(weights, dl.Factorisation(target), dl.Constant(ETA), 100)
    assert t.status[0] == "finished" and t.status[1].startswith("diverged at step ")
    assert all(bool(W.isfinite().all()) for W in t.weights)
    broke = int(t.status[1].split()[-1])
    assert (
        t.clocks["step"][-1].tolist() == [100, t.clocks["step"][:, 1].max()]
        and t.clocks["step"][-1, 1] < broke
    )
    alone = [W[1] for W in weights]
    assert (
        dl.descend(alone, dl.Factorisation(target), dl.Constant(ETA), broke).status == t.status[1]
    )
    assert (
        dl.descend(alone, dl.Factorisation(target), dl.Constant(ETA), broke - 1).status
        == "finished"
    )
    single = dl.descend([W[0] for W in weights], dl.Factorisation(target), dl.Constant(ETA), 100)
    assert largest([W[:, 0] for W in t.weights], single.weights) < EXACT


def test_errors():
    weights, target = start(3), low_rank()
    with pytest.raises(
        HypothesisNotMet, match="layer 2 has W W.T off .* start from networks.orthogonal"
    ):
        compress([weights[0], weights[1] + 1e-9 * normal(D, D), weights[2]], target)
    with pytest.raises(HypothesisNotMet, match="layer 3 .* by inf"):
        compress([*weights[:2], torch.zeros_like(weights[2])], target)
    with pytest.raises(HypothesisNotMet, match="width is 30, needed above 2 rank = 30"):
        compress(weights, target, rank=15)
    with pytest.raises(ShapeMismatch, match="layer 1 has 20 rows, needed 30"):
        compress(dl.orthogonal([D, 20, D], 0), target)
    with pytest.raises(ShapeMismatch, match="layer 2 has 40 rows"):
        compress(dl.orthogonal([D, D, 40], 0), torch.zeros(40, D, dtype=torch.float64))
    with pytest.raises(ShapeMismatch, match="target has shape"):
        dl.descend(weights, dl.Factorisation(target[:R]), dl.Constant(ETA), 1)
    with pytest.raises(ShapeMismatch, match="frame has shape"):
        restrict(weights, target, target[:, :6], 6)
    with pytest.raises(BadParameter, match="size is 2, needed a number from 3 to 29"):
        restrict(start(3, R), low_rank(R), torch.eye(D, dtype=torch.float64), 2)
    with pytest.raises(NonFinite, match="mend the input"):
        compress(weights, target * math.nan)
    with pytest.raises(BadParameter, match="eta has 2 entries, needed one number, or 3 a layer"):
        dl.descend(weights, dl.Factorisation(target), dl.Constant([ETA, ETA]), 1)
    for wrong in ({"steps": 0}, {"weight_decay": -0.1}, {"records": 0}, {"momentum": 1.0}):
        with pytest.raises(BadParameter, match=f"{next(iter(wrong)).replace('_', ' ')} is"):
            dl.descend(
                weights, dl.Factorisation(target), dl.Constant(ETA), **({"steps": 1} | wrong)
            )
