"""The mathematics of the playgrounds against the library, and their keyboard path, in a headless
browser."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from devtools import Browser, browsing, chromium
from dlnplayground import SHARED, names
from scipy.interpolate import CubicSpline

import dlnlib as dl
from dlnlib import theory
from dlnlib.networks import with_product

FOLDER = ROOT / "book" / "_static" / "playground"
PAGE = """<!DOCTYPE html><html lang="en"><title>playgrounds</title><body>
<link rel="stylesheet" href="{folder}/playground.css">
{scripts}
<div class="dln-playground" data-name="{name}"></div></body></html>
"""
PLANES = {
    "six": dl.load("six-points").z,
    "one": dl.load("one-support-vector").z,
    "random": dl.load("random:n=9,d=2", seed=3).scaled().z,
    "many": dl.load("random:n=14,d=2", seed=8).scaled().z,
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if chromium() is None:
        pytest.skip(
            "no chromium on this machine: playgrounds are not checked (apt install chromium)"
        )
    with browsing(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def mathematics(browser) -> Browser:
    """A page with the mathematics alone."""
    browser.open("about:blank")
    browser.run((FOLDER / "flow.js").read_text(encoding="utf-8"))
    return browser


def page(folder: Path, name: str) -> str:
    """The address of a page that holds this playground and nothing else."""
    files = [f"{file}.js" for file in (*SHARED, name)]
    scripts = [f'<script defer src="{(FOLDER / file).as_uri()}"></script>' for file in files]
    path = folder / "page.html"
    path.write_text(
        PAGE.format(folder=FOLDER.as_uri(), scripts="\n".join(scripts), name=name), encoding="utf-8"
    )
    return path.as_uri()


def call(browser: Browser, function: str, *arguments):
    return browser.run(f"{function}({', '.join(json.dumps(a) for a in arguments)})")


# --- the mathematics ------------------------------------------------------------------------------


@pytest.mark.parametrize("plane", PLANES)
def test_the_maximum_margin_is_the_library_s(mathematics, plane):
    z = PLANES[plane]
    found, known = call(mathematics, "dln.maxMargin", z.tolist()), dl.max_margin(z)
    assert found["separable"] and found["margin"] == pytest.approx(known.margin, rel=1e-12)
    assert found["direction"] == pytest.approx(known.direction.tolist(), abs=1e-10)
    assert found["support"] == known.support.nonzero()[:, 0].tolist()
    assert found["spans"] == known.spans
    across = [-found["direction"][1], found["direction"][0]]
    offset = [found["offset"] * x for x in across]
    assert offset == pytest.approx(known.offset.tolist(), abs=1e-9)


def test_data_that_no_line_separates_have_a_certificate(mathematics):
    z = [[0.5, 0.4], [-0.4, 0.6], [0.1, -0.6], [0.3, 0.3]]
    found = call(mathematics, "dln.maxMargin", z)
    proof = found["certificate"]
    assert not found["separable"] and min(proof["weights"]) > 0
    assert sum(proof["weights"]) == pytest.approx(1)
    for k in (0, 1):
        terms = zip(proof["indices"], proof["weights"], strict=True)
        assert sum(a * z[i][k] for i, a in terms) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss", [dl.logistic, dl.exponential], ids=lambda loss: loss.name)
@pytest.mark.parametrize("depth", [1, 2, 3, 6])
@pytest.mark.parametrize("plane", ["six", "one", "random"])
def test_the_path_is_the_library_s(mathematics, plane, depth, loss):
    """Direction and log(1/risk) at the library's records, from a balanced start of width 3."""
    z, begin = PLANES[plane], [0.4, -0.2]
    start = with_product(z.new_tensor(begin), [2] + [3] * (depth - 1) + [1], seed=1)
    run = dl.flow(start, z, loss, until=1e4, accuracy=1e-9, per_decade=2)
    setting = {
        "depth": depth,
        "loss": loss.name,
        "start": begin,
        "until": math.log(run.predictor[-1].norm()),
    }
    mathematics.run(f"path = dln.balancedFlow({json.dumps(z.tolist())}, {json.dumps(setting)}), 1")
    assert mathematics.run("path.reached")
    u = dl.max_margin(z).direction
    for w, psi in zip(run.predictor, run.clocks["log_inverse_risk"], strict=True):
        size = w.norm().item()
        found = mathematics.run(
            f"dln.pathAt(path, {math.log(size)} - path.logNorm[0] + path.clock[0])"
        )
        turned = math.atan2((u[0] * w[1] - u[1] * w[0]).item(), (u @ w).item())
        assert found["delta"] == pytest.approx(turned, abs=1e-6)
        assert found["psi"] == pytest.approx(psi.item(), rel=1e-6, abs=1e-6)


def test_the_comparison_can_say_no(mathematics):
    """Of depth 3 against depth 2."""
    z = PLANES["six"].tolist()
    ends = []
    for depth in (2, 3):
        setting = {"depth": depth, "loss": "logistic", "start": [0.4, -0.2], "until": 1.0}
        path = call(mathematics, "dln.balancedFlow", z, setting)
        ends.append(path["delta"][-1])
    assert abs(ends[0] - ends[1]) > 1e-3


# --- the playground -------------------------------------------------------------------------------


def test_keys_move_points_and_are_told(browser, tmp_path):
    browser.open(page(tmp_path, "support-vectors"))
    browser.run("document.querySelector('.pg-point').focus()")
    before = browser.run("document.activeElement.getAttribute('aria-valuetext')")
    told = browser.run("document.querySelector('.pg-says').textContent")
    for _ in range(5):
        browser.press("ArrowRight", shift=True)
    assert browser.run("document.activeElement.getAttribute('aria-valuetext')") != before
    assert browser.run("document.querySelector('.pg-says').textContent") != told
    assert browser.run("location.hash").startswith("#pg_support-vectors_")
    count = "document.querySelectorAll('.pg-point').length"
    points = browser.run(count)
    browser.press("Delete")
    assert browser.run(count) == points - 1
    assert browser.errors == [] and not [r for r in browser.requests if r.startswith("http")]


def test_a_point_is_dragged_and_the_address_keeps_it(browser, tmp_path):
    browser.size(1000, 900)
    address = page(tmp_path, "support-vectors")
    browser.open(address)
    box = (
        "(r => [r.x + r.width / 2, r.y + r.height / 2])"
        "(document.querySelectorAll('.pg-shape')[3].getBoundingClientRect())"
    )
    x, y = browser.run(box)
    browser.drag((x, y), (x - 60, y + 40))
    assert browser.run(box) == pytest.approx([x - 60, y + 40], abs=1.5)
    state = browser.run("location.hash")
    browser.open(address + state)
    assert browser.run(box) == pytest.approx([x - 60, y + 40], abs=1.5)
    assert browser.errors == []


def test_points_that_no_line_separates_say_so(browser, tmp_path):
    browser.open(page(tmp_path, "support-vectors"))
    browser.run(
        "(s => { s.value = 'mixed'; s.dispatchEvent(new Event('change')); })"
        "(document.querySelectorAll('.dln-playground select')[1])"
    )
    assert "No line" in browser.run("document.querySelector('.pg-says').textContent")
    assert browser.run("document.querySelectorAll('.pg-proof').length") == 1


def test_training_ends_on_the_predicted_line_at_once_without_motion(browser, tmp_path):
    browser.prefer(reduced_motion="reduce")
    browser.open(page(tmp_path, "support-vectors"))
    browser.run("document.querySelector('.pg-play').click()")
    measured, predicted = browser.run(
        "[...document.querySelectorAll('.pg-facts dd')].slice(0, 2).map(d => d.textContent)"
    )
    assert measured == predicted
    browser.prefer()


# --- layers, modes, steps -------------------------------------------------------------------------


@pytest.fixture
def layers(mathematics) -> Browser:
    mathematics.run((FOLDER / "layers.js").read_text(encoding="utf-8"))
    return mathematics


def test_layers_flow_as_in_the_library(layers):
    """Gap of every layer and the norm at the library's risks, from an unbalanced start."""
    z, start = PLANES["six"], dl.gaussian([2, 3, 3, 1], seed=4)
    run = dl.flow(start, z, dl.exponential, until=100, accuracy=1e-10, per_decade=3)
    given, setting = (
        json.dumps([W.tolist() for W in start]),
        {"loss": "exponential", "until": 110, "accuracy": 1e-12},
    )
    layers.run(f"path = dln.layersFlow({given}, {z.tolist()}, {json.dumps(setting)}), 1")
    assert layers.run("path.reached")
    gaps = layers.run("path.layers.map(layers => layers.map(dln.rankOneGap))")
    found = [*zip(*gaps, strict=True), layers.run("path.norm")]
    known = [dl.rank_one_gap(W).tolist() for W in run.weights]
    known.append(run.clocks["log_norm"].exp().tolist())
    clock, psi = layers.run("path.psi"), run.clocks["log_inverse_risk"].tolist()
    for ours, theirs in zip(found, known, strict=True):
        assert CubicSpline(clock, ours)(psi) == pytest.approx(theirs, abs=1e-6)
    assert layers.run(f"dln.rankOneBound({given})") == pytest.approx(theory.rank_one_bound(start))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_modes_are_half_learnt_when_the_library_says(layers, depth):
    s, begin, shares = 1.7, 0.05, [0.1, 0.5, 0.9]
    times = call(layers, "dln.modeTimes", s, begin, depth, shares)
    start = with_product(torch.tensor([begin], dtype=torch.float64), [1] * (depth + 1))
    run = dl.flow_in_time(start, lambda W: _squared_loss_slopes(W, s), [0.0, *times], 1e-12)
    assert run.predictor[1:, 0].tolist() == pytest.approx([s * x for x in shares], rel=1e-6)


def _squared_loss_slopes(weights, s):
    """Gradient of (s - product)^2 / 2 in layers that are numbers."""
    product = torch.stack([W.reshape(()) for W in weights]).prod()
    return [-(s - product) * product / W for W in weights]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_critical_step_is_the_library_s(layers, depth):
    """Just below it training comes to rest, just above it does not."""
    one = torch.ones(1, dtype=torch.float64)
    critical = theory.critical_step(one, one, depth).item()
    assert call(layers, "dln.criticalStep", depth) == critical
    below = call(layers, "dln.steps", depth, 0.97 * critical, 0.9, 3000, 10)
    above = call(layers, "dln.steps", depth, 1.03 * critical, 0.9, 3000, 10)
    assert below == pytest.approx([1.0] * 10, abs=1e-6)
    assert above == [] or max(above) - min(above) > 1e-3


@pytest.mark.parametrize("name", names())
def test_every_playground_works_by_keys_and_says_what_it_shows(browser, tmp_path, name):
    browser.open(page(tmp_path, name))
    said = "document.querySelector('.pg-says').textContent"
    before = browser.run(said)
    assert len(before.split()) > 5
    browser.run("[...document.querySelectorAll('input[type=range]')].at(-1).focus()")
    browser.press("ArrowLeft")
    browser.press("ArrowLeft")
    assert browser.run(said) != before
    assert browser.run("location.hash").startswith(f"#pg_{name}_")
    unnamed = "[...document.querySelectorAll('svg[role=img]')].filter(s => !s.ariaLabel).length"
    assert browser.run(unnamed) == 0
    assert "[object" not in browser.run("document.body.textContent")  # a control that is none
    assert browser.errors == []
