"""The recorder: which layers it joins and which it must not, laws it sees and breaks of them, and
what a user's loop may do to it."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jacrev
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss, soft_margin_loss

import dlnlib as dl
from dlnlib import measure, recorder
from dlnlib.errors import BadData, BadInput, BadOutput, BadParameter, ShapeMismatch
from dlnlib.recorder.finding import find
from dlnlib.recorder.measuring import balance_of, columns, rows, weights_of
from dlnlib.recorder.running import as_function, flat, hessian_top, kernel_top, trained

F64 = torch.float64


@pytest.fixture(autouse=True)
def same_start():
    torch.manual_seed(0)


def linear(dims, bias=False, between=None):
    """Layers of these sizes, in float64."""
    layers = []
    for a, b in zip(dims, dims[1:], strict=False):
        layers += [nn.Linear(a, b, bias=bias), *([between()] if between else [])]
    return nn.Sequential(*layers[: len(layers) - (between is not None)]).double()


def train(model, x, y, steps=20, lr=0.05, optimizer=None, loss=mse_loss, **options):
    """Plain gradient descent on all points, recorded."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr)
    with dl.Recorder(model, share=None, optimizer=optimizer, **options) as rec:
        for _ in range(steps):
            optimizer.zero_grad()
            out = model(x)
            loss(out.reshape(y.shape), y).backward()
            optimizer.step()
            rec.step()
    return rec


def points(n=40, d=5, k=2):
    x = torch.randn(n, d, dtype=F64)
    return x, x[:, :k] * 2 - x[:, 1 : k + 1]


# --- which layers are joined ----------------------------------------------------------------------


class Made(nn.Module):
    """Two layers, with anything between, and one on top."""

    def __init__(self, between, rest=lambda s, x, h: h):
        super().__init__()
        self.a, self.b, self.between, self.rest = nn.Linear(4, 4), nn.Linear(4, 4), between, rest

    def forward(self, x):
        return self.rest(self, x, self.b(self.between(self, x, self.a(x))))


JOINED = {
    "nothing": lambda s, x, h: h,
    "identity": lambda s, x, h: nn.Identity()(h),
    "a flatten that does nothing": lambda s, x, h: h.flatten(1),
}
APART = {
    "tanh": (lambda s, x, h: torch.tanh(h), "tanh"),
    "residual": (lambda s, x, h: h + x, "residual"),
    "dropout, though in evaluation": (lambda s, x, h: s.drop(h), "dropout"),
    "norm": (lambda s, x, h: nn.functional.layer_norm(h, (4,)), "layer norm"),
    "transposed": (lambda s, x, h: h.T, "permute"),
    "scaled": (lambda s, x, h: 2 * h, "product"),
    "detached": (lambda s, x, h: h.detach(), None),
}


@pytest.mark.parametrize("name", JOINED)
def test_layers_with_nothing_between_are_a_run(name):
    model = Made(JOINED[name])
    found = find(model, (torch.randn(4, 4),), {})
    assert [(p.below, p.above, p.between) for p in found.pairs] == [("a", "b", "")]
    assert found.runs == (("a", "b"),) and found.whole and found.apart == ()


@pytest.mark.parametrize("name", APART)
def test_layers_with_something_between_are_not_joined(name):
    between, said = APART[name]
    model = Made(between)
    model.drop = nn.Dropout(0.5)
    model.eval()
    found = find(model, (torch.randn(4, 4),), {})
    assert found.pairs == () and found.runs == () and not found.whole
    assert said is None or said in found.apart[0]


def test_a_rectifier_joins_units_and_not_matrices():
    for between in (lambda s, x, h: h.relu(), lambda s, x, h: nn.ReLU(inplace=True)(h)):
        found = find(Made(between), (torch.randn(4, 4),), {})
        assert [p.between for p in found.pairs] == ["relu"] and found.runs == ()


@pytest.mark.parametrize("between", [lambda h: h, lambda h: h.relu()], ids=["nothing", "relu"])
def test_an_output_that_the_model_also_returns_joins_nothing(between):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            h = self.a(x)
            return {"logits": self.b(between(h)), "hidden": h}

    found = find(Both(), (torch.randn(3, 4),), {})
    assert found.pairs == () and found.ends == ("a", "b")


def test_a_skip_around_two_layers_joins_them_and_not_their_neighbours():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))

        def forward(self, x):
            h = self.a(x)
            return self.d(h + self.c(self.b(h)))

    found = find(Skip(), (torch.randn(3, 4),), {})
    assert found.runs == (("b", "c"),)  # not a > b: a is read by the skip as well
    assert any("read 2 times" in line for line in found.apart)
    assert any("residual" in line for line in found.apart)


def test_nested_frozen_shared_and_twice_named_layers_are_found_and_said():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4)))
            self.tied, self.last = nn.Linear(4, 4), nn.Linear(4, 1)
            self.tied.weight = self.inner[0].weight
            self.inner[1][0].requires_grad_(False)
            self.alias = self.last  # one layer of two names

        def forward(self, x):
            return self.alias(self.tied(self.inner(x)))

    found = find(Net(), (torch.randn(3, 4),), {})
    assert found.runs == (("inner.0", "inner.1.0", "tied", "last"),) and found.whole
    notes = {layer.name: layer.notes for layer in found.layers}
    assert notes["inner.0"] == notes["tied"] == ("shared",)
    assert notes["inner.1.0"] == ("frozen",) and notes["last"] == ()
    assert not any(line.speaks for line in recorder.speaking_of(found))


def test_a_layer_after_itself_is_a_run_of_twice_the_layer():
    layer = nn.Linear(4, 4)
    found = find(nn.Sequential(layer, layer), (torch.randn(3, 4),), {})
    assert found.runs == (("0", "0"),) and found.layers[0].notes == ("shared",)


def test_frozen_layers_below_are_seen_as_well():
    model = linear([4, 4, 4])
    model.requires_grad_(False)
    x = torch.randn(3, 4, dtype=F64)
    with torch.inference_mode():
        assert find(model, (x,), {}).runs == (("0", "1"),)
    assert not any(p.requires_grad for p in model.parameters())


def test_convolutions_of_one_kind_join_and_grouped_or_reshaped_ones_do_not():
    x = torch.randn(2, 4, 8, 8)

    def runs(*layers):
        return find(nn.Sequential(*layers), (x,), {}).runs

    assert runs(nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 2, 3, stride=2)) == (("0", "1"),)
    assert runs(nn.Conv2d(4, 6, 3, groups=2), nn.Conv2d(6, 2, 3)) == ()
    assert runs(nn.Conv2d(4, 8, 1), nn.Linear(8, 8)) == ()  # channels below, columns above
    assert runs(nn.Conv2d(4, 6, 8), nn.Flatten(), nn.Linear(6, 2)) == ()
    assert runs(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 3)) == ()


# --- laws -----------------------------------------------------------------------------------------


def test_the_first_pass_and_the_watching_change_nothing_of_the_model():
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    twin = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    twin.load_state_dict(model.state_dict())
    x, y = torch.randn(30, 5), torch.randn(30)
    torch.manual_seed(1)
    rec = train(model, x, y, steps=5, data=(x, (y > 0).long()))
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(twin.parameters(), 0.05)
    for _ in range(5):
        optimizer.zero_grad()
        mse_loss(twin(x)[:, 0], y).backward()
        optimizer.step()
    for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert all(module.training for module in model.modules())
    assert not model._forward_hooks and rec.steps == 5


def test_numbers_are_those_of_the_library():
    x, y = points()
    model = linear([5, 70, 66, 2])  # large enough for the way by Gram matrices
    record = train(model, x, y, steps=1, lr=1e-3).records[-1]
    W = [layer.weight.detach() for layer in model]
    close = pytest.approx
    assert record["norm of 1"] == close(W[1].norm().item(), rel=1e-13)
    assert record["stable rank of 1"] == close(dl.stable_rank(W[1]).item(), rel=1e-12)
    share = (dl.rank_one_gap(W[1]) / W[1].norm() ** 2).item()
    assert record["rank-one share of 1"] == close(share, rel=1e-12)
    assert record["misalignment of 0 > 1"] == close(dl.misalignment(W)[0].item(), abs=1e-9)
    both = measure.commutator_score(W[:2]).item()
    assert record["commutator of 0 > 1"] == close(both, rel=1e-11)
    G = dl.balance(W)[0].norm().item() / (W[0].norm() ** 2 + W[1].norm() ** 2).item()
    assert record["balance of 0 > 1"] == close(G, rel=1e-12)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend = nn.MultiheadAttention(6, 2, batch_first=True)
        nn.init.normal_(self.attend.in_proj_bias)

    def forward(self, x):
        return self.attend(x, x, x)[0]


def convolutions():
    return nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(4, 2, 2, stride=2))


CASES = {
    "bias": (lambda: linear([5, 6, 4, 2], bias=True), (20, 5), 2),
    "rectifier": (lambda: linear([5, 6, 2], True, nn.ReLU), (20, 5), 1),
    "convolutions": (convolutions, (6, 3, 8), 1),
    "heads": (Attention, (8, 5, 6), 2),
}


def laws(model, found):
    """The balance of each pair, and the same with biases left out."""
    weights = weights_of(model, found)
    for pair in found.pairs:
        (W, b), (V, _) = weights[pair.below], weights[pair.above]
        for bias in (b, None):
            yield balance_of(rows(W), bias, columns(V), pair.between)


@pytest.mark.parametrize("name", CASES)
def test_a_step_of_descent_moves_the_balance_by_that_of_the_gradients(name):
    """G(t + 1) - G(t) = eta^2 (the same of the gradients), exactly: biases, rectifiers, kernels,
    heads."""
    make, shape, pairs = CASES[name]
    model, x, eta = make().double(), torch.randn(*shape, dtype=F64), 0.1
    found = find(model, (x,), {})
    assert len(found.pairs) == pairs
    model(x).sin().square().sum().backward()
    after, slopes = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        for p, q, g in zip(*(m.parameters() for m in (model, after, slopes)), strict=True):
            q -= eta * p.grad
            g.copy_(p.grad)
    moved = [new - old for new, old in zip(laws(after, found), laws(model, found), strict=True)]
    errors = [(a - eta**2 * b).abs().max() for a, b in zip(moved, laws(slopes, found), strict=True)]
    assert max(errors[::2]) < 1e-12
    assert min(errors[1::2]) > 1e-4  # a bias left out is seen


def test_a_planted_error_in_the_balance_is_seen():
    x, y = points()
    model = linear([5, 4, 2])
    clean = train(model, x, y, steps=30, lr=1e-5).records[-1]["balance drift of 0 > 1"]
    model = linear([5, 4, 2])
    hook = model[0].weight.register_hook(lambda g: 1.01 * g)  # 1 % in the slope of one layer
    wrong = train(model, x, y, steps=30, lr=1e-5).records[-1]["balance drift of 0 > 1"]
    hook.remove()
    assert clean < 1e-8 and wrong > 100 * clean


@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.Adam(p, 0.01), lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9)]
)
def test_optimizers_that_do_not_follow_the_flow_are_told(make):
    x, y = points()
    model = linear([5, 4, 2])
    report = train(model, x, y, optimizer=make(model.parameters())).report()
    (line,) = [line for line in report.said if line.claim == "JT18-eq2"]
    assert not line.speaks
    assert report.conserved["part of step 19 across"] > 1e-3  # the last one after a record
    plain = train(linear([5, 4, 2]), x, y, lr=1e-3).report()
    assert plain.conserved["part of step 19 across"] < 1e-10


# --- what is conserved, counted -------------------------------------------------------------------


def counted(model, n=30):
    x = torch.randn(n, model[0].in_features, dtype=F64)
    return measure.count_conserved(as_function(model, x), flat(trained(model)))


@pytest.mark.parametrize("dims", [[4, 3, 3], [3, 2, 3, 2], [5, 2, 4, 3, 3], [4, 3, 1]])
@pytest.mark.parametrize("bias", [False, True])
def test_deep_linear_networks_conserve_their_balances(dims, bias):
    """sum over hidden layers of d (d + 1)/2, where no layer is wider than its neighbours allow."""
    found = counted(linear(dims, bias))
    assert found.number == sum(d * (d + 1) // 2 for d in dims[1:-1]) and found.clear
    assert found.span < found.closure  # the fields alone would leave d^2


def test_one_quantity_a_rectifier_and_none_for_tanh():
    found = counted(linear([4, 6, 3], True, nn.ReLU), 200)
    assert (found.number, found.clear) == (6, True)
    assert counted(linear([4, 6, 3], True, nn.Tanh), 200).number == 0
    assert counted(linear([3, 4, 4, 2], False, nn.ReLU), 300).number >= 8


def test_what_no_sample_sees_is_conserved_as_well():
    model = linear([4, 2, 2])
    x = torch.randn(60, 4, dtype=F64) * torch.tensor([1.0, 1, 1, 0])
    found = measure.count_conserved(as_function(model, x), flat(trained(model)))
    assert found.number == 3 + 2  # two weights of the pixel that is always 0


def test_a_count_needs_a_vector_and_finite_outputs():
    with pytest.raises(BadParameter, match="theta.shape"):
        measure.count_conserved(lambda t: t, torch.ones(2, 2))
    with pytest.raises(BadData, match="not finite"):
        measure.count_conserved(lambda t: t.sqrt(), torch.zeros(3))


def test_hessian_and_kernel_agree_with_their_matrices():
    model = linear([3, 4, 2], True, nn.Tanh)
    x, y = torch.randn(10, 3, dtype=F64), torch.randn(10, 2, dtype=F64)
    f, theta = as_function(model, x), flat(trained(model))
    H = jacrev(jacrev(lambda t: mse_loss(f(t), y)))(theta)
    J = jacrev(lambda t: f(t).reshape(-1))(theta)
    assert hessian_top(model, mse_loss, x, y) == pytest.approx(
        torch.linalg.eigvalsh(H)[-1].item(), rel=1e-3
    )
    assert kernel_top(model, x) == pytest.approx(
        torch.linalg.matrix_norm(J, 2).item() ** 2, rel=1e-3
    )


def test_the_maximum_margin_where_there_is_one():
    data = dl.six_points().scaled()
    model = linear([2, 4, 1])
    rec = train(model, data.x, data.y, 60, 1.0, loss=soft_margin_loss, data=(data.x, data.y))
    report = rec.report()
    w = (model[1].weight @ model[0].weight)[0].detach()
    best = dl.max_margin(data.z)
    distance = report.series["distance to the maximum margin"]
    assert distance[-1] == pytest.approx(dl.direction_error(w, best.direction).item(), abs=1e-12)
    assert report.series["margin"][-1] == pytest.approx((data.z @ w).min().item())
    assert {line.claim for line in report.said if line.speaks} >= {"JT18-Thm1", "JT18-Thm2"}
    biased = train(linear([2, 4, 1], True), data.x, data.y, 5, data=(data.x, data.y)).report()
    assert "skipped" in biased.maximum
    assert any(line.claim == "JT18-Thm2" and "biases" in line.why for line in biased.said)


# --- what a user's loop may do --------------------------------------------------------------------


def test_step_outside_of_with_is_one_line():
    rec = dl.Recorder(linear([3, 2]))
    with pytest.raises(BadParameter, match="outside of `with`"):
        rec.step()
    with pytest.raises(BadData, match="0 records"):
        rec.report()


def test_a_network_without_layers_says_so_in_one_line():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x @ self.w

    report = train(Bare(), torch.randn(5, 3), torch.randn(5)).report()
    assert sum("no linear layer" in line for line in str(report).splitlines()) == 1
    with pytest.raises(BadParameter, match="0 parameters"):
        dl.Recorder(nn.ReLU())
    with pytest.raises(BadParameter, match="Module"):
        dl.Recorder([1, 2])


def test_nan_weights_zero_weights_and_half_precision():
    x, y = torch.randn(20, 5), torch.randn(20, 2)
    model = linear([5, 4, 2]).to(torch.bfloat16)
    nn.init.zeros_(model[1].weight)
    report = train(model, x.bfloat16(), y.bfloat16(), steps=12).report()
    assert math.isnan(report.series["stable rank of 1"][0])
    assert report.series["norm of 1"][0] == 0 < report.series["norm of 1"][-1]
    exact = model[0].weight.detach().double().norm().item()
    assert report.series["norm of 0"][-1] == exact
    broken = linear([5, 4, 2])
    with dl.Recorder(broken, share=None) as rec:
        broken(x.double())
        broken[0].weight.data[0, 0] = math.nan
        rec.step()
        rec.step()
    report = rec.report()
    assert [text for _, text in report.events] == ["0.weight has a NaN or an infinity"]
    assert json.loads(report.to_json())["series"]["norm of 0"][-1] is None


def test_lazy_layers_wait_for_their_first_call():
    model = nn.Sequential(nn.LazyLinear(4), nn.LazyLinear(2))
    x, y = torch.randn(20, 5), torch.randn(20, 2)
    with dl.Recorder(model, (x, torch.zeros(20)), share=None) as rec:
        mse_loss(model(x), y).backward()
        rec.step()
    assert [r["step"] for r in rec.records] == [0, 1] and rec.found.runs == (("0", "1"),)


def test_parameters_replaced_are_a_new_start():
    x, y = points()
    model = linear([5, 4, 2])
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with dl.Recorder(model, share=None) as rec:
        for k in range(40):
            if k == 20:
                model[0] = nn.Linear(5, 4, bias=True).double()
                optimizer = torch.optim.SGD(model.parameters(), 0.01)
            optimizer.zero_grad()
            mse_loss(model(x), y).backward()
            optimizer.step()
            rec.step()
    assert "replaced" in rec.events[0][1]
    assert rec.found.by_name["0"].bias and rec.found.pairs
    assert rec.records[-1]["balance drift of 0 > 1"] < 1e-2


def test_a_model_that_is_never_called_and_one_that_fails():
    x, y = points()
    model = linear([5, 4, 2])
    with dl.Recorder(model, share=None) as rec:
        mse_loss(model.forward(x), y).backward()
        rec.step()
    assert "no forward pass was seen" in rec.events[0][1] and rec.found.runs == ()

    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.calls = nn.Linear(5, 2).double(), 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("once\nonly")
            return self.a(x)

    model = Once()
    with dl.Recorder(model) as rec:
        model(x)
        rec.step()
    assert rec.events[0][1].endswith("RuntimeError: once")


def test_records_are_spaced_and_cost_no_more_than_their_share(monkeypatch):
    x, y = points()
    assert [r["step"] for r in train(linear([5, 4, 2]), x, y, 20, per_decade=4).records] == [
        *(0, 1, 2, 3, 6, 10, 18, 20)
    ]
    clock = iter(range(10**6))  # each look at the clock is a second later
    monkeypatch.setattr("dlnlib.recorder.recorder.time.perf_counter", lambda: float(next(clock)))
    model = linear([5, 4, 2])
    with dl.Recorder(model, share=0.05) as rec:
        for _ in range(500):
            model(x)
            rec.step()
    assert 3 <= len(rec.records) < 20 and rec.spent <= 0.05 * rec.elapsed


# --- kept -----------------------------------------------------------------------------------------


def test_a_saved_recorder_goes_on_as_if_nothing_had_happened(tmp_path):
    data = dl.six_points().scaled()
    whole = linear([2, 4, 1])
    parts = linear([2, 4, 1])
    parts.load_state_dict(whole.state_dict())

    def loop(model, rec, steps):
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        with rec:
            for _ in range(steps):
                optimizer.zero_grad()
                soft_margin_loss(model(data.x)[:, 0], data.y).backward()
                optimizer.step()
                rec.step()
        return rec

    options = dict(data=(data.x, data.y), share=None)
    one = loop(whole, dl.Recorder(whole, **options), 56)
    first = loop(parts, dl.Recorder(parts, **options), 18)
    first.save(tmp_path / "state.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]
    second = loop(parts, dl.Recorder.load(tmp_path / "state.npz", parts, **options), 38)
    assert second.records == one.records and second.found == one.found
    a, b = one.report(), second.report()
    assert a.series == b.series and a.maximum == b.maximum and a.said == b.said


def test_files_that_are_not_ours_and_models_that_are_not_the_same(tmp_path):
    x, y = points()
    rec = train(linear([5, 4, 2]), x, y, 3)
    rec.save(tmp_path / "s.npz")
    with pytest.raises(BadData, match=r"layer 0 has shape \(4, 5\) in the file and \(3, 5\)"):
        dl.Recorder.load(tmp_path / "s.npz", linear([5, 3, 2]))
    (tmp_path / "half.npz").write_bytes((tmp_path / "s.npz").read_bytes()[:300])
    np.savez(tmp_path / "pickle.npz", meta=np.array([{}], dtype=object))
    np.savez(tmp_path / "other.npz", meta=np.array('{"format": 1}'))
    (tmp_path / "text.npz").write_text("no")
    for name in ("half", "pickle", "other", "text", "missing"):
        with pytest.raises(BadData):
            dl.Recorder.load(tmp_path / f"{name}.npz", linear([5, 4, 2]))
    with pytest.raises(BadOutput, match="cannot be written"):
        rec.save(tmp_path / "no" / "folder.npz")


def test_the_page_and_the_json_escape_what_users_name(tmp_path):
    name = '<script>alert("x")</script>'
    model = nn.Sequential()
    model.add_module(name, nn.Linear(5, 3))
    model.add_module("$x_{$", nn.Linear(3, 2))
    x, y = points()
    report = train(model.double(), x, y, 4).report()
    report.write(tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "://" not in page
    assert page.count("<img") == len(report.figures()) == 2
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    assert data["steps"] == [0, 1, 2, 3, 4] and data["runs"] == [[name, "$x_{$"]]


BAD = {
    "pair": (torch.ones(3), BadData),
    "rows": ((torch.ones(3, 5), torch.ones(2)), ShapeMismatch),
    "empty": ((torch.ones(0, 5), torch.ones(0)), ShapeMismatch),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_are_one_line(name):
    data, error = BAD[name]
    with pytest.raises(error) as caught:
        dl.Recorder(linear([5, 1]), data)
    assert issubclass(error, BadInput) and "\n" not in str(caught.value)


def test_labels_that_are_none_leave_the_margin_out_and_say_so():
    x, _ = points()
    for y, out in ((torch.arange(40.0), 1), (torch.full((40,), 7), 2)):
        rec = train(linear([5, out]), x, torch.zeros(40, out, dtype=F64), 2, data=(x, y))
        assert math.isnan(rec.records[-1]["margin"]) and "labels are" in rec.events[0][1]
    with pytest.raises(BadParameter, match="hessian"):
        dl.Recorder(linear([5, 1]), hessian=True)


def test_curvature_on_request_is_recorded():
    x, _ = points()
    y = (x[:, 0] > 0).double()

    def loss(out, y):
        return binary_cross_entropy_with_logits(out[:, 0], y)

    rec = train(linear([5, 3, 1]), x, y, 2, data=(x, y), loss=mse_loss)
    assert "top of the Hessian" not in rec.records[-1]
    model = linear([5, 3, 1])
    with dl.Recorder(model, (x, y), loss=loss, hessian=True, kernel=True) as rec:
        rec.step()
    assert rec.records[-1]["top of the Hessian"] > 0 < rec.records[-1]["top of the kernel"]
