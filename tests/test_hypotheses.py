"""Which claims apply to data: certificates that hold without rounding, and answers that the
chapters' own verdicts confirm."""

from __future__ import annotations

import csv
import json
import re
import shlex
from fractions import Fraction
from html import unescape

import numpy as np
import pytest
import torch
from conftest import ROOT, Tags, external

import dlnlib as dl
from dlnlib import cli
from dlnlib.book.chapters import chapters
from dlnlib.errors import BadParameter
from dlnlib.hypotheses import Fact, answers, facts_of, known_hypotheses, separation
from dlnlib.hypotheses.certificate import null_combination
from dlnlib.hypotheses.facts import rank_of
from dlnlib.hypotheses.page import page
from dlnlib.hypotheses.words import TITLES
from dlnlib.verdict.claims import Claim, registry

HERE = ROOT / "tests" / "data"


def exactly(z: torch.Tensor, w) -> list[Fraction]:
    """<w, z_i> in fractions."""
    w = [Fraction(float(value)) for value in w]
    return [sum(a * Fraction(b) for a, b in zip(w, row, strict=True)) for row in z.tolist()]


def test_rows_are_those_of_the_file(tmp_path):
    table = "1,2,u\n9,9,w\n3,1,u\n9,9,w\n-1,-2,u\n0,1,v\n"
    (tmp_path / "t.csv").write_text(table)
    report = dl.check(tmp_path / "t.csv", label="3=u,v")
    assert report.data.rows == (1, 3, 5, 6) and "rows 1, 5" in report.separation.words
    assert list(report.to_json()["certificate"]["weights"]) == ["1", "5"]
    report = dl.check(tmp_path / "t.csv?label=3=w,v&constant")
    assert report.facts["support"].words.startswith("3: rows 2, 4, 6")


def status(report: dl.hypotheses.Report) -> dict[str, str]:
    return {answer.claim.id: answer.status for answer in report.answers}


# Certificates


def test_three_points_are_not_separable_without_a_constant():
    report = dl.check(HERE / "three_points.csv")
    found = report.separation
    assert found.separable is False and "exactly 0" in found.words
    known = [1 / 3.6, 1 / 3.6, 1.6 / 3.6]
    assert [found.weights[i] for i in range(3)] == pytest.approx(known, rel=1e-15)
    with_one = dl.check(HERE / "three_points.csv", constant=True)
    assert with_one.facts["margin"].value == pytest.approx(0.1059998, abs=5e-8)
    assert with_one.facts["support"].value == 3 and with_one.facts["support_spans"].value
    assert {answer.after for answer in report.answers if answer.after} == {"constant"}


@pytest.mark.parametrize("name", ["six-points", "iris+1", "wine:0,1", "random:n=40,d=6"])
def test_a_separating_vector_separates_in_fractions(name):
    z = dl.load(name).z
    found = separation(z)
    assert found.separable and min(exactly(z, found.direction)) > 0
    norm = float(np.linalg.norm(found.direction))
    assert found.margin <= float(min(exactly(z, found.direction))) / norm * (1 + 1e-12)


@pytest.mark.parametrize(
    "name", ["breast-cancer?scale=standard", "iris:1?scale=standard", "random"]
)
def test_a_combination_that_is_0_is_so_in_fractions(name):
    z = dl.load(name).z
    if name == "random":  # a point inside the hull of the opposite ones, nothing exact by design
        z = torch.cat([z[:6], -z[:6].mean(0, keepdim=True)])
    found = separation(z)
    assert found.separable is False and min(found.weights.values()) > 0
    assert sum(found.weights.values()) == pytest.approx(1)
    rows, a = list(found.weights), torch.tensor(list(found.weights.values()), dtype=z.dtype)
    assert (a @ z[rows]).norm() < 1e-14 * z.norm(dim=1).max()


@pytest.mark.parametrize(
    ("rows", "weights"),
    [
        ([[1, 0], [0, 1], [-1, -1]], [1 / 3] * 3),
        ([[1, 0], [0, 1], [1, 1]], None),  # 1, 1, -1
        ([[1, 0], [0, 1]], None),  # none but 0
        ([[1, 0], [-1, 0], [2, 0]], None),  # more than one
        ([[0.1, 0], [-0.3, 0]], [0.75, 0.25]),
        ([[0.1, 1e-300], [-0.3, 0]], None),
    ],
)
def test_combinations_in_fractions(rows, weights):
    found = null_combination(np.array(rows, dtype=float))
    assert found is None if weights is None else found == pytest.approx(weights, rel=1e-15)


def test_a_square_of_support_vectors_has_many_duals():
    square = [[1.0, 1.0], [1, -1], [-1, 0.5], [-1, -0.5]]
    facts = dl.check(square, [1, 1, -1, -1]).facts
    assert facts["support"].value == 4 and facts["dual_unique"].value is False


def test_opposite_points_and_a_point_at_0():
    assert separation(torch.tensor([[1.0, 2], [3, -1], [-1, -2]]).double()).weights == {
        0: 0.5,
        2: 0.5,
    }
    assert separation(torch.tensor([[1.0, 2], [0, -0.0]]).double()).weights == {1: 1.0}


def test_what_rounding_hides_is_undecided_or_shown_without_rounding():
    thin = torch.tensor([[0.3, 0.1], [-(0.1 + 0.2), -0.1]]).double()  # opposite, but for one bit
    thin = torch.tensor([[0.3, 0.1], [-(0.1 + 0.2), -0.1]], dtype=torch.float64)
    found = separation(thin)
    assert found.separable is None or (found.separable and min(exactly(thin, found.direction)) > 0)
    rng = np.random.default_rng(0)
    many = torch.tensor(rng.normal(size=(80, 79)))
    many[-1] = -many[:-1].mean(0)  # 80 points whose sum is 0 to rounding: too many for fractions
    found = separation(many)
    assert found.separable is None and 0 < found.length < 1e-10 and "undecided" in found.words


def test_ranks_near_rounding_are_undecided():
    a = np.diag([1.0, 1.0, 1e-14]) + np.triu(np.ones((3, 3)), 1)
    a[2] = a[0] * 0.5 + a[1] * 0.25 + [0, 0, 3e-14]
    assert rank_of(a)[0] is None and "near rounding" in rank_of(a)[1]
    assert rank_of(np.eye(3))[0] == 3 and rank_of(np.ones((3, 2)))[0] == 1
    assert rank_of(np.zeros((2, 2)))[0] == 0


# Facts


def test_facts_of_six_points_and_of_one_support_vector():
    facts, _ = facts_of(dl.six_points())
    values = {name: fact.value for name, fact in facts.items()}
    assert values["margin"] == pytest.approx(0.3, rel=1e-12) and values["support"] == 2
    assert values["spread"] == pytest.approx(0.3, rel=1e-12) and values["idle"] == 0
    assert values["support_spans"] is values["dual_unique"] is True
    facts, _ = facts_of(dl.load("one-support-vector"))
    assert facts["support_spans"].value is False and facts["spread"].value == 0


def test_repeats_contradictions_constants_and_row_numbers():
    x = [[1.0, 5, 1], [2, 5, 1], [3, 5, 0], [4, 5, 1], [5, 5, 7]]
    facts = dl.check(x, [1, -1, 1, -1, 1]).facts
    assert (
        facts["constants"].words == "1: 2"
        and "feature 1 counts the rows" in facts["row_numbers"].words
    )
    facts = dl.check([[1.0, 5], [1, 5], [1, 5], [2, 5]], [1, 1, -1, -1]).facts
    assert (facts["repeats"].value, facts["contradictions"].value) == (1, 1)
    assert facts["separable"].value is False and "row_numbers" not in facts


def test_whitened_and_nearly_orthonormal_points():
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    y = [1, -1, 1, -1, 1, -1]
    report = dl.check(3 * q, y)
    assert report.facts["whitened"].value and report.facts["theta"].value < 1e-12
    assert {"Y23-T1", "W23-T1"} <= set(report.applying)
    near = q + 0.03 * np.ones((6, 6)) / 6
    report = dl.check(near, y)
    assert not report.facts["whitened"].value and report.facts["theta"].value > 0.01
    assert not {"Y23-T1"} & set(report.applying)
    assert dl.check(np.vstack([q, q[:1] * 2]), [*y, 1]).facts["theta"].value == 1  # n > d


def test_twenty_points_in_two_hundred_dimensions():
    rng = np.random.default_rng(0)
    report = dl.check(rng.normal(size=(20, 200)), np.arange(20) % 2)
    assert report.facts["support_spans"].value and not report.facts["support_spans_all"].value
    assert report.facts["independent"].value and "JT18-Thm2" in report.applying


# Answers


def test_every_claim_whose_chapter_takes_data_says_what_it_needs():
    """And names a parameter of that chapter which does take data; the words are those of
    needs.yml."""
    taking = {c.name: {p.name for p in c.parameters if p.data} for c in chapters(ROOT)}
    for claim in registry().values():
        if taking.get(claim.chapter):
            assert claim.needs is not None, claim.id
        assert claim.takes is None or claim.takes in taking[claim.chapter], claim.id
        assert set(claim.needs or ()) <= set(known_hypotheses()), claim.id


def test_every_hypothesis_asks_for_a_fact_that_is_there():
    facts, _ = facts_of(dl.six_points())
    assert {h.fact for h in known_hypotheses().values()} <= set(facts)
    assert set(facts) | {"row_numbers"} == set(TITLES)


def test_a_claim_with_an_unknown_need_is_named(monkeypatch):
    odd = Claim("odd", "t", "s", "read", needs=("seperable",))
    monkeypatch.setattr("dlnlib.hypotheses.needs.registry", lambda: {"odd": odd})
    with pytest.raises(BadParameter, match="did you mean 'separable'"):
        answers({})


def test_an_undecided_fact_decides_nothing():
    found = answers({"separable": Fact("separable", None, "undecided: too near")})
    said = {answer.claim.id: answer for answer in found}
    assert said["JT18-Thm1"].status == "undecided" and said["JT18-Thm1"].detail.endswith("too near")
    assert said["R20-scalar"].status == "applies"


def recorded() -> dict[str, dict[str, set[str]]]:
    """By data set and claim, the statuses that the claim's own chapter gave, in the steady
    table."""
    found: dict[str, dict[str, set[str]]] = {}
    with open(ROOT / "tests" / "steady.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            name, _, data = row["parameters"].partition("=")
            if name != "data":
                continue
            for verdict in row["verdicts"].split("; "):
                claim, _, said = verdict.partition(" ")
                if claim in registry() and registry()[claim].chapter == row["chapter"]:
                    found.setdefault(data, {}).setdefault(claim, set()).add(said)
    return found


# a hypothesis of the run, not of the data
OF_THE_RUN = {"SS25-T1"}


@pytest.mark.parametrize("name", sorted(recorded()))
def test_answers_are_those_of_the_chapters(name):
    """Where a claim is said not to apply, its chapter's hypotheses were not met, and the other way
    round."""
    report = dl.check(str(ROOT / name) if name.startswith("tests/") else name)
    compared = 0
    for claim, said in status(report).items():
        verdicts = recorded()[name].get(claim, set())
        if not verdicts or claim in OF_THE_RUN or registry()[claim].takes != "data":
            continue
        if said == "does not apply":
            assert verdicts & {"hypotheses not met", "undecided"}, (claim, verdicts)
        else:
            assert "hypotheses not met" not in verdicts, (claim, said, verdicts)
        compared += 1
    assert compared >= 1


# Faces


def test_a_report_as_text_json_and_page(tmp_path):
    text = '"<b>&y</b>",b,"<script>alert(1)</script>"\n1,2,u\n3,4.5,v\n-1,.5,u\n0,2.5,v\n'
    path = tmp_path / "a'b <i>.csv"
    path.write_text(text)
    report = dl.check(path)
    assert repr(report) == str(report) and "JT18-Thm1" in str(report)
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["facts"]["points"]["value"] == 4 and data["commands"] == report.commands
    shown = page(report)
    assert "<script>" not in shown and "<b>" not in shown and "<i>" not in shown
    assert "<script>alert(1)</script>" in unescape(shown) and external(Tags(shown)) == []
    assert report._repr_html_() in shown
    assert dl.check(np.eye(2), [1, -1]).commands == []  # data in memory have no name


@pytest.mark.parametrize(
    "name",
    [
        "deep/my data.csv?label=y=u,v&drop=a b&constant",
        "deep/my data.csv?label=y=u,v&drop=a b&scale=ball&constant&sample=3,1",
        "deep/signs.csv?label=is%3D=yes%2C,no%26&drop=%3F&constant",
    ],
)
def test_commands_can_be_pasted(name, tmp_path, monkeypatch):
    """Each line is parsed by the command itself, and names the data with all their options."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    table = "a b,c,y\n1,2,u\n3,4,v\n-1,5,u\n0,2,w\n2,2,w\n"
    (tmp_path / "deep" / "my data.csv").write_text(table)
    signs = "?,c,is=\n1,2,'yes,'\n3,4,no&\n-1,5,'yes,'\n".replace("'", '"')
    (tmp_path / "deep" / "signs.csv").write_text(signs)
    report = dl.check(name)
    assert report.commands
    for line in report.commands:
        _, *arguments = shlex.split(line)
        given = cli._given(cli._parser().parse_args(arguments))
        (value,) = given.values()
        assert torch.equal(dl.load(value).x, report.data.x) or "scale" in value
        assert dl.load(value).d == 2


def blocks(kind: str) -> list[str]:
    """The blocks of that kind on the page about own data."""
    text = (ROOT / "book" / "practice" / "your-own-data.md").read_text(encoding="utf-8")
    return re.findall(rf"(?ms)^```{re.escape(kind)}\n(?::caption: .*?\n)?(.*?)^```$", text)


def shown(printed: str, page: str) -> bool:
    """Whether the page shows what is printed: `...` stands for any lines, duality gaps are
    rounding."""
    page = re.sub(r"gap \de-1\d", "gap ~", page)
    printed = re.sub(r"gap \de[-+]\d\d", "gap ~", printed)
    parts = [re.escape(part) for part in re.split(r"(?m)^\.\.\.\n", page)]
    return re.fullmatch("(?s)" + "(?:.*\n)?".join(parts), printed + "\n") is not None


def test_the_page_shows_what_the_command_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "three.csv").write_text(blocks("{code-block} text")[0])
    exec(blocks("python")[0], {})  # writes iris.csv
    seen = 0
    for block in blocks("console"):
        for entry in filter(None, re.split(r"(?m)^\$ dlnlib ", block)):
            line, _, page = entry.partition("\n")
            cli.main(shlex.split(line))
            assert shown("".join(capsys.readouterr()).rstrip("\n"), page), line
            seen += 1
    assert seen == 4
    assert not shown("a\nb", "a\nc\n") and shown("a\nx\nb", "a\n...\nb\n")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([HERE / "three_points.csv"], 3),
        ([HERE / "three_points.csv", "--constant"], 0),
        ([HERE / "iris_100.csv", "--label", "species=setosa", "--scale", "standard"], 0),
        ([HERE / "applicants.csv"], 2),
    ],
)
def test_exit_status_of_check(arguments, wanted, capsys, tmp_path):
    file = tmp_path / "new" / "page.html"
    found = cli.main(["check", *map(str, arguments), "--json", "--html", str(file)])
    said, complaint = capsys.readouterr()
    assert found == wanted and file.is_file() == (wanted != 2)
    if wanted == 2:
        assert said == "" and complaint.count("\n") == 1 and not file.parent.exists()
    else:
        assert json.loads(said)["facts"]["separable"]["value"] is (wanted == 0)
