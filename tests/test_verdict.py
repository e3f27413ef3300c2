"""Checks, statuses, the JSON round trip, and the three faces of a verdict."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from importlib import resources

import pytest

from dlnlib.errors import BadData, BadParameter, IntegratorStalled, NotSeparable
from dlnlib.verdict import instrument, render
from dlnlib.verdict.attempts import attempt
from dlnlib.verdict.check import KINDS, Check
from dlnlib.verdict.claims import Claim, claim, registry
from dlnlib.verdict.verdict import MIME, Verdict

PLAIN = Claim("T-1", "A test", "nobody", "derived")
CONTROLLED = Claim("T-2", "A test with a control", "nobody", "read", needs_control=True)


def good(owner=CONTROLLED, **kwargs) -> Verdict:
    v = Verdict(owner, kwargs or {"depth": 3}, seconds=1.0, chapter="tests")
    v.hypothesis("positive", 0.3, ">=", 0)
    v.conclusion("error", 5.3e-6, "<=", 6e-6)
    v.constant("limit", 0.63853, "~", 0.638531, 1e-4, "finite horizon")
    v.control("broken", 2.0, ">=", 1.0)
    return v


@pytest.mark.parametrize(
    ("measured", "relation", "expected", "tolerance", "holds"),
    [
        (1.0, "<=", 1.0, 0, True),
        (1.0 + 1e-12, "<=", 1.0, 0, False),
        (1.05, "<=", 1.0, 0.1, True),
        (1.11, "<=", 1.0, 0.1, False),
        (1.0, ">=", 1.0, 0, True),
        (0.95, ">=", 1.0, 0.1, True),
        (0.89, ">=", 1.0, 0.1, False),
        (2.05, "==", 2.0, 0.1, True),
        (2.15, "==", 2.0, 0.1, False),
        (205, "~", 200, 0.1, True),
        (221, "~", 200, 0.1, False),
        (-205, "~", -200, 0.1, True),
        (205, "~", -200, 0.1, False),
        (0.0, "~", 0.0, 0.1, True),
        (1e-300, "~", 0.0, 0.1, False),
    ],
)
def test_relations(measured, relation, expected, tolerance, holds):
    assert Check("conclusion", "c", measured, relation, expected, tolerance, "why").holds is holds


@pytest.mark.parametrize("relation", ["<=", ">=", "==", "~"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_never_holds(relation, value):
    assert not Check("conclusion", "c", value, relation, 1.0).holds
    assert not Check("conclusion", "c", 1.0, relation, value).holds
    assert not Check("conclusion", "c", value, relation, value).holds


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("guess", "c", 1, "<=", 1), "kind 'guess'"),
        (("rate", "c", 1, "<", 1), "relation '<'"),
        (("rate", "c", 1, "<=", 1, -0.1, "why"), "at least 0"),
        (("rate", "c", 1, "<=", 1, math.inf, "why"), "finite"),
        (("rate", "c", 1, "<=", 1, math.nan, "why"), "at least 0"),
        (("rate", "c", 1, "<=", 1, 0.1), "one-line"),
        (("rate", "c", "x", "<=", 1), "one real number"),
        (("rate", "c", [1, 2], "<=", 1), "one real number"),
    ],
)
def test_refused_checks(arguments, words):
    with pytest.raises(BadParameter, match=words):
        Check(*arguments)


def test_holds_cannot_be_handed_in_or_changed():
    with pytest.raises(TypeError):
        Check("rate", "c", 1, "<=", 0, holds=True)
    check = Check("rate", "c", 1, "<=", 0)
    with pytest.raises(AttributeError):
        check.holds = True


def test_status_reproduced_and_each_way_out_of_it():
    assert good().status == "reproduced"
    v = good()
    v.hypothesis("fails", -1, ">=", 0)
    assert v.status == "hypotheses not met"
    for kind in ("conclusion", "invariant", "rate", "constant"):
        v = good()
        getattr(v, kind)("fails", 1, "<=", 0)
        assert v.status == "refuted", kind
    v = good()
    v.control("did not fail", 0, ">=", 1)
    assert v.status == "undecided" and "did not fail as told" in v.open_reasons[0]
    v = good()
    v.paper("their number", 1, "==", 2)
    assert v.status == "reproduced"
    v = good()
    v.accuracy("drift", 1e-3, 1e-6)
    assert v.status == "undecided" and "drift" in str(v)
    v = good()
    v.accuracy("drift", math.nan, 1e-6)
    assert v.status == "undecided"
    v = good()
    v.accuracy("drift", 1e-9, 1e-6)
    assert v.status == "reproduced"
    v = good()
    v.undecided("the horizon is too short")
    assert v.status == "undecided" and "horizon" in v.open_reasons[0]


def test_no_conclusion_or_missing_control_is_undecided():
    v = Verdict(PLAIN, seconds=0.0)
    v.invariant("always", 0, "==", 0)
    assert v.status == "undecided" and v.open_reasons == ["no conclusion was checked"]
    v = Verdict(CONTROLLED, seconds=0.0)
    v.conclusion("c", 0, "==", 0)
    assert v.status == "undecided" and "control" in v.open_reasons[0]
    v = Verdict(PLAIN, seconds=0.0)
    v.conclusion("c", 0, "==", 0)
    assert v.status == "reproduced"


def test_precedence_of_statuses():
    """Unmet hypotheses beat everything; lack of accuracy beats a failed conclusion; that beats a
    control."""
    for hypothesis, accuracy, conclusion, control in itertools.product([True, False], repeat=4):
        v = Verdict(CONTROLLED, seconds=0.0)
        v.hypothesis("h", 0, "==", 0 if hypothesis else 1)
        v.accuracy("a", 0 if accuracy else 1, 0.5)
        v.conclusion("c", 0, "==", 0 if conclusion else 1)
        v.control("k", 0, "==", 0 if control else 1)
        expected = "hypotheses not met" if not hypothesis else "undecided" if not accuracy else None
        assert v.status == (
            expected or ("refuted" if not conclusion else "reproduced" if control else "undecided")
        )


def test_json_round_trip_is_strict_json():
    v = good(depth=3, horizon=math.inf, widths=(2, 3))
    v.rate("nan", math.nan, "==", 1.0)
    v.rate("inf", math.inf, "<=", 1.0)
    v.accuracy("drift", math.nan, 1e-6)
    data = json.loads(json.dumps(v.to_json(), allow_nan=False))
    assert Verdict.from_json(data).to_json() == data
    assert Verdict.from_json(data).status == v.status == data["status"]
    wanted = {
        "id",
        "title",
        "source",
        "provenance",
        "chapter",
        "status",
        "checks",
        "parameters",
        "seconds",
    }
    assert wanted <= set(data)
    assert {"kind", "name", "measured", "relation", "expected", "tolerance", "holds"} <= set(
        data["checks"][0]
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("status"), "'status' is missing"),
        (lambda d: d.pop("checks"), "'checks' is missing"),
        (lambda d: d.update(status="refuted"), "status is written as"),
        (lambda d: d.update(status="x"), "not one of"),
        (lambda d: d.update(provenance="dreamt"), "not one of"),
        (lambda d: d.update(checks="none"), "cannot be"),
        (lambda d: d["checks"][0].pop("holds"), "lacks holds"),
        (lambda d: d["checks"][0].update(holds=False), "numbers say otherwise"),
        (lambda d: d["checks"][0].update(measured="0.3"), "not a number"),
        (lambda d: d["checks"][0].update(kind="guess"), "kind 'guess'"),
        (lambda d: d["checks"].append(3), "lacks"),
        (lambda d: d.update(accuracy=[{"name": "a"}]), "attained"),
    ],
)
def test_contradictory_json_is_refused(change, words):
    data = good().to_json()
    change(data)
    with pytest.raises(BadData, match=words):
        Verdict.from_json(data)


def test_json_that_is_no_object():
    with pytest.raises(BadData, match="JSON object"):
        Verdict.from_json([1])


def test_registry_knows_every_claim_and_names_the_closest():
    assert claim("JT18-Thm2").chapter == "max-margin"
    listed = (
        resources.files("dlnlib.verdict")
        .joinpath("claims.yml")
        .read_text(encoding="utf-8")
        .count("- id: ")
    )
    assert len(registry()) == listed  # no id twice
    with pytest.raises(BadParameter, match="did you mean 'JT18-Thm2'"):
        Verdict("JT18-Thm22")


def test_text_has_no_digits_of_residuals():
    """The regression text must be equal for numbers that differ only by rounding."""
    texts = []
    for noise in (0.0, 1e-17, -3e-16, 7.7e-13):
        v = Verdict(CONTROLLED, seconds=noise + 1)
        v.conclusion("residual", abs(noise), "<=", 1e-9)
        v.constant("dyadic", 0.03125 + noise, "~", 0.03125 - noise, 1e-3, "horizon")
        v.rate("slope", -1.0005 + noise, "==", -1.0, 0.02, "fit")
        v.control("large", 1e6 + noise, ">=", 1)
        texts.append(render.text(v))
    assert len(set(texts)) == 1
    assert "dyadic: ~ 0.0313" in texts[0] and "residual: <= 1e-09" in texts[0]


def test_text_changes_when_the_mathematics_does():
    before = render.text(good())
    v = good()
    v.checks[2] = Check("constant", "limit", 0.63853 * 1.01, "~", 0.638531, 1e-4, "finite horizon")
    assert render.text(v) != before and "does not hold" in render.text(v)
    v.checks[2] = Check("constant", "limit", 0.65, "~", 0.65, 1e-4, "finite horizon")
    assert render.text(v) != before


def test_text_shows_the_digits_that_are_known():
    v = Verdict(PLAIN, seconds=0.0)
    v.conclusion("count", 123456, ">=", 5)
    v.conclusion("made of rounding", 1e-17, "<=", 1.23456e-15)
    v.constant("known to a per cent", 1.0, "==", 1.0123456, 0.01, "horizon")
    v.constant("known to its size", 1.0, "~", 1.5, 0.4, "horizon")
    text = render.text(v)
    assert "count: >= 5" in text and "rounding: <= a computed bound" in text
    assert "cent: == 1\n" in text and "its size: ~ a number known to its size only" in text


def stalls():
    raise IntegratorStalled("5000 steps were not enough; raise max_steps")


def test_a_missing_experiment_leaves_its_verdict_undecided_for_the_reason():
    missing = attempt(stalls, advice="ask for a smaller until")
    v = good()
    assert v.needs(attempt(lambda: 3)) and v.status == "reproduced"
    assert not missing and not v.needs(3, missing)
    assert v.status == "undecided" and v.open_reasons == [
        "IntegratorStalled, ask for a smaller until"
    ]


def test_what_needs_a_missing_result_is_not_run():
    missing = attempt(stalls)
    assert attempt(pytest.fail, after=[1, missing]) is missing
    assert attempt(lambda: 3, after=[1, 0.0]) == 3


def test_a_missing_hypothesis_is_not_met_and_bad_input_is_raised():
    def inseparable():
        raise NotSeparable("no direction separates the data")

    v = good()
    assert not v.needs(attempt(inseparable)) and v.status == "hypotheses not met"
    with pytest.raises(BadParameter):
        attempt(lambda: (_ for _ in ()).throw(BadParameter("wrong")))


def test_html_is_accessible_and_escaped():
    v = good(data="<six & points>")
    v.conclusion(r"$\|w\| < \infty$ & more <b>", 1, "<=", 2)
    page = instrument.html(v)
    assert "more &lt;b&gt;" in page
    assert "<caption>" in page and 'scope="row"' in page and 'scope="col"' in page
    assert "&lt;six &amp; points&gt;" in page
    assert r"\(\|w\| &lt; \infty\)" in page
    assert "fails, as told" in page
    v.control("broken as well", 0.0, ">=", 1.0)
    assert "did not fail" in instrument.html(v) and "Undecided" in instrument.html(v)


def test_faces_in_a_notebook():
    bundle = good()._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", MIME}
    assert bundle[MIME]["status"] == "reproduced" and str(good()) == bundle["text/plain"]


def test_anchor_tells_runs_apart():
    one, two = good(seed=0).to_json(), good(seed=1).to_json()
    assert render.anchor(one) != render.anchor(two) and render.anchor(one) in instrument.html(
        good(seed=0)
    )


def test_every_kind_has_a_method_and_a_word():
    v = Verdict(PLAIN, seconds=0.0)
    for kind in KINDS:
        getattr(v, kind)("name", 1, ">=", 0)
        assert v.checks[-1].kind == kind
        assert kind in render.KIND_WORDS
    assert v.telling().kind == "constant"
    v.rate("fails", 0, ">=", 1)
    assert v.telling().name == "fails"


def test_scalars_of_other_libraries():
    import numpy as np
    import torch

    check = Check("rate", "c", torch.tensor(0.5, dtype=torch.float64), "<=", np.float64(1))
    assert check.holds and type(check.measured) is float
    assert type(Check("rate", "c", torch.tensor(3), "==", np.int64(3)).measured) is int
    v = Verdict(PLAIN, {"a": np.float64(1.5), "b": torch.tensor(2), "c": (1, 2)}, seconds=0.0)
    assert json.loads(json.dumps(v.to_json()))["parameters"] == {"a": 1.5, "b": 2, "c": [1, 2]}


def test_verdict_does_not_import_torch():
    code = "import sys, dlnlib.verdict.ledger; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
