"""Mutants: what is changed, what counts as caught, and what the table covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import mutants
import pytest
import torch
from results_table import code

from dlnlib import measure
from dlnlib.book import chapters, inprocess


@dataclass(frozen=True)
class Found:
    size: float
    weights: list


class Pair(NamedTuple):
    count: int
    holds: bool


@pytest.fixture
def halving(toy_book):
    return chapters.chapter("halving", toy_book)


def test_every_number_of_an_answer_is_a_place_and_is_changed_alone():
    value = Found(2.0, [torch.ones(2), torch.ones(2)])
    assert list(mutants.leaves(value)) == [("size",), ("weights", "0"), ("weights", "1")]
    other = mutants.changed(value, ("weights", "1"), 0.5)
    assert other.size == 2.0 and other.weights[0] is value.weights[0]
    assert other.weights[1].tolist() == [1.5, 1.5] and value.weights[1].tolist() == [1.0, 1.0]
    assert mutants.changed(Pair(3, True), ("count",), 0.01) == Pair(4, True)
    assert mutants.changed({"a": Pair(3, True)}, ("a", "holds"), 0.01) == {"a": Pair(3, False)}
    assert mutants.changed(3, ("size",), 0.01) == 3


def test_the_first_sample_alone_is_changed():
    z = mutants._first_changed(torch.ones(3, 2, dtype=torch.float64), 0.01)
    assert z[0].tolist() == [1.01, 1.01] and z[1:].tolist() == [[1.0, 1.0]] * 2


def outcome(measured=1.0, status="reproduced", error=""):
    check = {"name": "c", "measured": measured, "expected": 1.0, "holds": True, "kind": "rate"}
    verdict = {"id": "X", "status": status, "reasons": ["because"], "checks": [check]}
    return inprocess.Outcome([verdict], [], error)


def test_caught_survived_and_unused_are_told_apart():
    before = outcome()
    assert mutants.judged(before, outcome(status="refuted"))[0] == "caught"
    assert mutants.judged(before, outcome(error="NonFinite: x"))[0] == "caught"
    assert mutants.judged(before, outcome(1.01))[0] == "survived"
    assert mutants.judged(before, outcome(1 + 1e-12))[0] == "unused"


def test_a_function_errs_for_every_caller():
    original = measure.norm
    try:
        mutants.mutate("measure.norm", 0.5)
        assert measure.norm([torch.ones(1, 1)]).item() == 1.5
    finally:
        inprocess.swap(measure.norm, original)
    assert measure.norm([torch.ones(1, 1)]).item() == 1.0


def test_rows_are_out_of_date_when_the_chapter_or_the_function_changes(halving):
    place = "measure.norm"
    assert mutants.covered(halving, place) != mutants.covered(halving, "measure.balance")
    assert mutants.covered(halving, place) != code(halving)


def test_a_sample_takes_the_rooms_in_turn(halving):
    found = [f"theory.f{i}" for i in range(9)] + ["measure.norm", "dynamics.flow.weights.0"]
    drawn = mutants.chosen(halving, found, 4)
    assert {"measure.norm", "dynamics.flow.weights.0"} < set(drawn) and len(drawn) == 4
    assert mutants.chosen(halving, found[::-1], 4) == drawn


def test_the_table_names_places_that_exist():
    known = mutants.functions()
    for row in mutants.TABLE.load():
        assert ".".join(row["place"].partition("<")[0].split(".")[:2]) in known
