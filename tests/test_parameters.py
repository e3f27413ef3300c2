"""Ranges, choices, data sets and relations of a chapter's parameters: what is allowed, and what is
refused how."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ROOT

from dlnlib.book.chapters import chapter, chapters, checked
from dlnlib.book.parameters import Parameter, check, check_relations, read, relations
from dlnlib.errors import BadData, BadParameter, UnknownChapter

DEPTH = Parameter("depth", 3, "1 to 6: layers", 1, 6)
UNTIL = Parameter("until", 1e9, "1e2 to 1e10: where it stops", "1e2", "1e10")
LOSS = Parameter(
    "loss", "exponential", "exponential or logistic", choices=("exponential", "logistic")
)
SIDES = Parameter("sides", 3, "3 or 4: sides", choices=(3, 4))
DATA = Parameter("data", "iris", "a data set", data="needed")
REAL = Parameter("real", "", "a data set", data="optional")
MANY = Parameter("many", "", "data sets", data="list")


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        (DEPTH, "1 to 6"),
        (UNTIL, "1e2 to 1e10"),
        (LOSS, "exponential or logistic"),
        (SIDES, "3 or 4"),
        (DATA, "a data set"),
        (REAL, 'a data set, "" for none'),
        (Parameter("exact", True, ""), ""),
        (MANY, 'data sets separated by semicolons, "" for none'),
    ],
)
def test_what_is_allowed_in_words(parameter, words):
    assert parameter.allowed == words


@pytest.mark.parametrize(
    ("parameter", "given", "value"),
    [
        (DEPTH, "1", 1),
        (DEPTH, "6", 6),
        (UNTIL, "1e2", 1e2),
        (UNTIL, "1e10", 1e10),
        (UNTIL, "100", 100.0),
        (LOSS, "logistic", "logistic"),
        (SIDES, "4", 4),
        (DATA, "iris+1", "iris+1"),
        (REAL, "", ""),
        (REAL, " ", ""),
        (MANY, "", ""),
        (MANY, "iris; wine:0,1;", "iris; wine:0,1"),
    ],
)
def test_both_ends_and_every_choice_are_allowed(parameter, given, value):
    found = check(parameter, given)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("parameter", "given", "words"),
    [
        (DEPTH, "0", "depth = 0: 1 to 6 is needed"),
        (DEPTH, "7", "depth = 7: 1 to 6 is needed"),
        (DEPTH, str(2**64), "1 to 6 is needed"),
        (DEPTH, "1" * 299, "[(]299 characters[)]: 1 to 6 is needed"),
        (DEPTH, "1" * 5000, "has 5000 characters"),
        (DEPTH, "-" * 200 + "1", "1 to 6 is needed|an integer is needed"),
        (DEPTH, "[" * 200 + "]" * 200, "has 400 characters"),
        (DEPTH, "[" * 150, "an integer is needed"),
        (UNTIL, "99.99", "1e2 to 1e10 is needed"),
        (UNTIL, "1.1e10", "1e2 to 1e10 is needed"),
        (UNTIL, "inf", "1e2 to 1e10 is needed"),
        (UNTIL, "-inf", "1e2 to"),
        (UNTIL, "1e400", "1e2 to 1e10 is needed"),
        (UNTIL, "nan", "1e2 to 1e10 is needed"),
        (UNTIL, "1e308", "1e2 to"),
        (UNTIL, "10**3", "a number is needed"),
        (UNTIL, "1j", "a number is needed"),
        (UNTIL, "True", "a number is needed"),
        (LOSS, "hinge", "exponential or logistic is needed"),
        (SIDES, "5", "3 or 4 is needed"),
    ],
)
def test_others_are_refused_in_one_line(parameter, given, words):
    with pytest.raises(BadParameter, match=words) as caught:
        check(parameter, given)
    text = str(caught.value)
    assert text.startswith(parameter.name) and "\n" not in text and len(text) < 300


@pytest.mark.parametrize("parameter", [DATA, REAL, MANY])
def test_a_wrong_data_set_names_its_parameter(parameter):
    with pytest.raises(
        BadData, match=f"^{parameter.name}: data set 'digitz' is not known: did you mean 'digits'"
    ):
        check(parameter, "digitz")


def test_a_data_set_that_is_needed_cannot_be_empty():
    with pytest.raises(BadData, match="^data: data set '' is not known"):
        check(DATA, "")


def test_a_list_of_data_sets_is_checked_to_its_end():
    with pytest.raises(BadData, match="^many: data set 'digitz'"):
        check(MANY, "iris; digitz")


def test_the_name_of_a_link_decides_what_a_file_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "kept.npz", x=[[1.0], [-1.0]], y=[1, -1])
    (tmp_path / "kept.npz").rename(tmp_path / "kept")
    (tmp_path / "named.npz").symlink_to("kept")
    assert check(DATA, "named.npz") == str(tmp_path / "named.npz")


def test_relations_hold_or_name_both_sides():
    values = {"rank": 3, "width": 8, "depth": 2}
    relation = "2 * rank < width"
    check_relations(
        [relation, "rank + 1 <= width / 2 and depth != 3", "max(rank, depth) - min(1, 2) >= 2"],
        values,
    )
    with pytest.raises(
        BadParameter,
        match="^rank = 4, width = 8: 2 [*] rank < width is needed; change one of them$",
    ):
        check_relations([relation], {**values, "rank": 4})


def test_relations_are_read_with_the_chapter():
    assert relations(None, [DEPTH], "a.md") == () and relations(["depth > 2"], [DEPTH], "a.md") == (
        "depth > 2",
    )


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("depth > 2", "a list of texts"),
        ([3], "a list of texts"),
        (["depth >"], "cannot be evaluated"),
        (["rank > 2"], "cannot be evaluated"),
        (["depth > 3"], "does not hold for the defaults"),
        (["__import__('os')"], "cannot be evaluated"),
        (["depth.real > 0"], "cannot be evaluated"),
        (["depth > 'a'"], "cannot be evaluated"),
        (["depth / 0 > 1"], "cannot be evaluated"),
        (["depth ** 9 > 1"], "cannot be evaluated"),
    ],
)
def test_wrong_relations_are_named(found, words):
    with pytest.raises(BadParameter, match=f"a.md: `requires: .*{words}"):
        relations(found, [DEPTH], "a.md")


@pytest.mark.parametrize(
    ("front", "words"),
    [
        ([1], "must map names to ranges"),
        ({"width": {"least": 1, "most": 2}}, "a parameter's name"),
        ({"depth": 3}, "a parameter's name"),
        ({"depth": {"lest": 1, "most": 2}}, "a parameter's name"),
        ({"depth": {"least": 1}}, "both ends"),
        ({"depth": {}}, "both ends"),
        ({"depth": {"least": 4, "most": 6}}, "default 3 between them"),
        ({"depth": {"least": "a", "most": 6}}, "needed numbers"),
        ({"depth": {"least": [1], "most": 6}}, "needed numbers"),
        ({"depth": {"choices": 3}}, "a list of choices"),
        ({"depth": {"choices": [1, 2]}}, "default 3 among them"),
        ({"depth": {"data": "needed"}}, "a text as default"),
        ({"depth": {"data": ["needed"]}}, "needed, optional, list"),
    ],
)
def test_wrong_ranges_are_named(front, words):
    with pytest.raises(BadParameter, match=f"^a.md: .*{words}"):
        read("depth = 3  # layers", {"parameters": front}, "a.md")


@pytest.mark.parametrize(
    "line",
    [
        '"""Depth."""',
        "a, b = 1, 2",
        "a = b = 1",
        "depth: int = 3",
        "import os",
        "depth = 2 * 3",
        "depth = len('a')",
        "depth[0] = 1",
        "del depth",
        "depth += 1",
        "depth = {[]: 1}",
        "depth = (",
        "depth = " + "-" * 5000 + "1",
        "a = 1\0",
    ],
)
def test_a_parameters_cell_holds_assignments_of_literals(line):
    with pytest.raises(BadParameter, match="^a.md: the parameters cell"):
        read(line, {}, "a.md")


def test_every_number_of_the_book_has_a_range_that_its_comment_repeats():
    for found in chapters(ROOT):
        for parameter in found.parameters:
            where = f"{found.name}: {parameter.name}"
            if isinstance(parameter.default, bool):
                continue
            assert parameter.allowed, where
            if parameter.least is not None:
                assert parameter.comment.startswith(f"{parameter.allowed}: "), where


def test_every_relation_of_the_book_is_one_that_an_end_of_a_range_breaks():
    """A relation that holds wherever the ranges do says nothing."""
    for found in chapters(ROOT):
        numbers = {p.name: p for p in found.parameters if p.least is not None}
        defaults = {p.name: p.default for p in found.parameters}
        for relation in found.requires:
            corners = [{}]
            for name in (name for name in numbers if name in relation):
                ends = [float(numbers[name].least), float(numbers[name].most)]
                corners = [{**corner, name: end} for corner in corners for end in ends]
            assert any(_broken(relation, {**defaults, **corner}) for corner in corners), (
                f"{found.name}: {relation}"
            )


def _broken(relation, values) -> bool:
    try:
        check_relations([relation], values)
    except BadParameter:
        return True
    return False


def test_a_relation_is_refused_before_anything_runs(toy_book):
    path = toy_book / "book" / "toys" / "halving.md"
    path.write_text(
        path.read_text().replace("parameters:\n", "requires: [seed < 10 * steps]\nparameters:\n")
    )
    chapter = chapters(toy_book)[0]
    assert checked(chapter, {"seed": "79"}) == {"seed": 79}
    with pytest.raises(BadParameter, match="seed = 80, steps = 8: seed < 10 [*] steps is needed"):
        checked(chapter, {"seed": "80"})


def test_a_broken_chapter_does_not_hide_the_others(toy_book):

    toc = toy_book / "_toc.yml"
    toc.write_text(toc.read_text() + "      - file: book/toys/broken\n")
    text = (toy_book / "book" / "toys" / "halving.md").read_text()
    (toy_book / "book" / "toys" / "broken.md").write_text(text.replace("seed = 0", "seed = ("))
    assert chapter("halving", toy_book).name == "halving"
    with pytest.raises(BadParameter, match="broken.md: the parameters cell does not parse"):
        chapter("broken", toy_book)
    with pytest.raises(UnknownChapter):
        chapter("other", toy_book)
