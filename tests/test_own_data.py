"""Data as people have them: every format and kind of label, and what is asked for beside a name."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from sklearn.datasets import dump_svmlight_file, load_iris

import dlnlib as dl
from dlnlib import data
from dlnlib.data.options import joined, query, split
from dlnlib.errors import BadData, BadLabel, BadParameter

HERE = ROOT / "tests" / "data"
X = np.array([[1.0, 2.0], [3.0, 4.5], [-1.0, 0.5], [0.0, 2.5]])


def same(found: dl.Dataset, x, y) -> None:
    assert found.x.tolist() == np.asarray(x).tolist() and found.y.tolist() == list(y)


# Files


def test_three_points():
    found = dl.load(HERE / "three_points.csv")
    same(found, [[1.5, 2.5], [2.5, 1.5], [2.5, 2.5]], [1, 1, -1])
    assert "label '3': True is +1 (2), False is -1 (1)" in found.sentence


def test_a_table_as_pandas_writes_it():
    found = dl.load(HERE / "iris_100.csv")
    known = load_iris()
    same(found, known.data[:100], [-1] * 50 + [1] * 50)
    assert found.columns == tuple(known.feature_names)
    assert "versicolor is +1 (50), setosa is -1 (50); column 1 has no name" in found.sentence


def test_gaps_are_named_and_can_be_dropped():
    path = HERE / "applicants.csv"
    with pytest.raises(BadData, match="line 2, column 5 'loan' is ''.* 2 more .*drop=loan"):
        dl.load(path)
    found = dl.load(path, drop=["id", "loan"])
    assert found.columns == ("income", "age", "owner") and found.x[0].tolist() == [560000, 44, 1]
    assert found.y.tolist() == [1, -1] * 4 and "dropped id, loan" in found.told


def test_semicolons_and_decimal_commas():
    found = dl.load(f"{HERE / 'european.csv'}?label=Art=rot,grün")
    same(found, [[1.5, 0.25], [2.75, 0.5], [-0.5, 1.0], [-1.25, 2.0]], [1, 1, -1, -1])
    assert "1 rows of other classes left out; decimal comma in 2 columns" in found.told


@pytest.mark.parametrize(
    "text",
    [
        "a,b,y\n1,2,u\n3,4.5,v\n-1,.5,u\n0,2.5,v\n",
        "0,1,y\n1,2,u\n3,4.5,v\n-1,.5,u\n0,2.5,v\n",
        "1,2,u\n3,4.5,v\n-1,.5,u\n0,2.5,v\n",
        "1\t2\tu\n3\t4.5\tv\n-1\t.5\tu\n0\t2.5\tv\n",
        ",a,b,y\n7,1,2,u\n9,3,4.5,v\n8,-1,.5,u\n1,0,2.5,v\n",
        ",0,1,2\n0,1,2,u\n1,3,4.5,v\n2,-1,.5,u\n3,0,2.5,v\n",
        "a;b;y\n1,0;2;u\n3;4,5;v\n-1;,5;u\n0;2,5;v\n",
        '"a","b","y"\r\n"1","2","u"\r\n\r\n"3","4.5","v"\r\n"-1","5e-1","u"\r\n0,2.5,v\r\n',
        "\ufeffa,b,y\n1,2,0\n3,4.5,1\n-1,.5,0\n0,2.5,1\n",
        "a,b,y\n1,2,False\n3,4.5,True\n-1,.5,False\n0,2.5,True\n",
        "a,b,y\n1,2,-0\n3,4.5,14\n-1,.5,0.0\n0,2.5,14\n",
        "a,b,y\n1,2,2\n3,4.5,10\n-1,.5,2\n0,2.5,10\n",  # numbers in their order, not the alphabet's
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_one_table_in_many_hands(text, packed, tmp_path):
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    same(dl.load(path), X, [-1, 1, -1, 1])


def test_a_first_row_of_data_is_no_header(tmp_path):
    (tmp_path / "t.csv").write_text("0,1,u\n1,0,v\n2,2,u\n")
    assert dl.load(tmp_path / "t.csv").n == 3
    (tmp_path / "t.csv").write_text("1,2,u\n1,0,v\n2,2,v\n")
    assert dl.load(tmp_path / "t.csv").n == 3


@pytest.mark.parametrize(("points", "labels"), [("x", "y"), ("X", "y"), ("data", "target")])
def test_archives_and_pairs(points, labels, tmp_path):
    y = np.array(["u", "v", "u", "v"])
    np.savez(tmp_path / "t.npz", **{points: X, labels: y, "other": X})
    same(dl.load(tmp_path / "t.npz"), X, [-1, 1, -1, 1])
    np.save(tmp_path / f"my_{points}.npy", X)
    np.save(tmp_path / f"my_{labels}.npy", y)
    same(dl.load(tmp_path / f"my_{points}.npy"), X, [-1, 1, -1, 1])
    np.save(tmp_path / "other.npy", [3, 2, 3, 2])
    same(dl.load(tmp_path / f"my_{points}.npy", label="other.npy"), X, [1, -1, 1, -1])
    with pytest.raises(BadData, match="no .*secret.npy beside it"):
        dl.load(tmp_path / f"my_{points}.npy", label="../secret.npy")


def test_parquet_and_svmlight(tmp_path):
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": list("uvuv")}).astype({"y": "category"})
    frame.to_parquet(tmp_path / "t.parquet")
    found = dl.load(tmp_path / "t.parquet")
    same(found, X, [-1, 1, -1, 1])
    assert found.columns == ("a", "b")
    dump_svmlight_file(X, [0, 1, 0, 1], str(tmp_path / "t.svm"))
    same(dl.load(tmp_path / "t.svm"), X, [-1, 1, -1, 1])


# Objects


class Pictures(torch.utils.data.Dataset):
    """What a torch data set gives: pictures, and labels as plain numbers."""

    def __len__(self):
        return 4

    def __getitem__(self, i):
        if i >= 4:
            raise IndexError
        return torch.tensor(X[i]).reshape(1, 2).float(), i % 2


@pytest.mark.parametrize(
    "made",
    [
        lambda: (X, [0, 1, 0, 1]),
        lambda: (torch.tensor(X, requires_grad=True), torch.tensor([0, 1, 0, 1])),
        lambda: {"data": X, "target": np.array(list("uvuv"))},
        lambda: pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": [False, True, False, True]}),
        lambda: (pd.DataFrame(X), pd.Series([0, 1, 0, 1], name="y")),
        lambda: Pictures(),
        lambda: torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor([0, 1, 0, 1])),
        lambda: dl.Dataset(X, [-1, 1, -1, 1], "mine"),
    ],
)
def test_objects(made):
    same(dl.load(made()), X, [-1, 1, -1, 1])


def test_scikit_learn_and_options_on_objects():
    known = load_iris()
    found = dl.load(load_iris(as_frame=True), label="target=2,1", drop="petal width (cm)")
    same(found, known.data[50:, :3], [-1] * 50 + [1] * 50)
    same(dl.load(known, label="target=0"), known.data, [1] * 50 + [-1] * 100)
    with pytest.raises(BadLabel, match="3 classes"):
        dl.load(known)
    for wrong in (3, [1, 2, 3], {"a": 1}, object()):
        with pytest.raises(BadData, match="is no data set"):
            dl.load(wrong)


def test_a_label_that_is_called_like_a_feature_replaces_none():
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1]})
    same(dl.load((frame, pd.Series([0, 1, 0, 1], name="b"))), X, [-1, 1, -1, 1])


# Options


def test_two_of_many_classes_and_one_against_the_rest(tmp_path):
    names = ["-0", *map(str, range(1, 15))] * 2
    table = pd.DataFrame({"a": np.arange(30.0), "b": -np.arange(30.0), "c": names})
    table.to_csv(tmp_path / "t.csv", index=False)
    found = dl.load(tmp_path / "t.csv", label="c=-0,14")
    assert found.x[:, 0].tolist() == [0, 14, 15, 29] and found.y.tolist() == [1, -1, 1, -1]
    assert dl.load(tmp_path / "t.csv", label="c=0").y.sum() == 2 - 28
    with pytest.raises(BadLabel, match="has 15 classes .-0, 1, 2, 3, 4, 5 and 9 more."):
        dl.load(tmp_path / "t.csv")
    x, y = data.load_classes(tmp_path / "t.csv")
    assert x.shape == (2, 30) and y.shape == (15, 30) and (y.sum(1) == 2).all()


def test_scale_constant_and_what_is_said():
    raw = dl.load("wine:0,1")
    ball = dl.load("wine:0,1", scale="ball")
    assert torch.equal(ball.x, raw.scaled().x) and ball.name == "wine:0,1?scale=ball"
    found = dl.load("wine:0,1?scale=standard&constant")
    assert torch.equal(found.x[:, :-1], raw.standardised().x) and (found.x[:, -1] == 1).all()
    assert found.told.endswith("scaled to deviation 1; a last feature 1 appended")
    assert torch.equal(dl.load("wine:0,1", scale="none").x, raw.x)


@pytest.mark.parametrize("count", [2, 7, 50, 149, 150])
def test_a_sample_has_of_each_class_its_share(count):
    found = dl.load("iris", sample=count)
    assert found.n == count and abs(float((found.y > 0).sum()) - count / 3) < 1.0
    assert set(found.y.tolist()) == {-1.0, 1.0}
    assert torch.equal(dl.load(f"iris?sample={count}").x, found.x)
    whole = {tuple(row) for row in dl.load("iris").x.tolist()}
    assert {tuple(row) for row in found.x.tolist()} <= whole


def test_another_seed_is_another_sample():
    assert not torch.equal(dl.load("iris", sample=20).x, dl.load("iris", sample="20,1").x)


def test_a_name_holds_all_and_can_be_taken_apart(tmp_path):
    text = query("a b=c,d", ["x&y", "p?q"], "ball", True, "5,2")
    name, found = split(joined("my.csv", text))
    assert name == "my.csv" and found.drop == ("x&y", "p?q") and found.sample == 5
    assert (found.label, found.classes, found.seed) == ("a b", ("c", "d"), 2)
    assert split("my.csv?label=a%3Db=c%2Cd")[1].classes == ("c,d",)
    (tmp_path / "what?.csv").write_text("1,2,0\n3,4,1\n")
    assert dl.load(tmp_path / "what?.csv").n == 2
    assert dl.load(tmp_path / "what?.csv", constant=True).d == 3
    assert Path(data.sources.absolute("a/b.csv?drop=c")).name == "b.csv?drop=c"
    with pytest.raises(BadParameter, match="scale is given twice"):
        dl.load("iris?scale=ball", scale="ball")
