from __future__ import annotations

import numpy as np
import pytest
import torch

import dlnlib as dl
from dlnlib import data, errors, theory
from dlnlib.errors import BadData, BadLabel, BadParameter, NonFinite, ShapeMismatch

X = [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize("name", data.known_names())
def test_every_name_loads(name):
    found = dl.load(name, seed=1)
    assert found.name == name and found.x.dtype == found.y.dtype == torch.float64
    assert found.z.shape == (found.n, found.d) and set(found.y.tolist()) == {-1.0, 1.0}
    assert torch.equal(found.z * found.y[:, None], found.x)
    sizes = torch.linalg.vector_norm(found.scaled().x, dim=1)
    assert sizes.max() <= 1 and sizes.max() > 1 - 1e-15


def test_real_data_are_what_they_say():
    digits = dl.load("digits:3,8")
    assert (digits.n, digits.d, digits.image_shape) == (357, 64, (8, 8))
    assert torch.equal(dl.load("iris+1").x[:, -1], torch.ones(150, dtype=torch.float64))
    assert dl.load("iris").y.sum() == -50 and dl.load("breast-cancer:10").d == 10
    assert torch.equal(dl.load("digits:8,3").y, -digits.y)


def test_seeds():
    assert torch.equal(dl.load("random", seed=4).x, dl.load("random:seed=4").x)
    assert not torch.equal(dl.load("random", seed=4).x, dl.load("random", seed=5).x)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_scaling_is_global(scale):
    found = dl.random_separable(12, 4, seed=2)
    scaled = dl.Dataset(found.x * scale, found.y, "scaled").scaled().x
    torch.testing.assert_close(scaled, found.scaled().x, rtol=1e-14, atol=0)


def test_gap_holds_and_spanning_is_known():
    draw = dl.random_separable(30, 6, seed=3, gap=0.2)
    assert draw.n == 30
    found, known = dl.spanning(12, 5, seed=3, margin=0.4, condition=20)
    margins = found.z @ known.direction
    torch.testing.assert_close(
        margins[:5], torch.full((5,), 0.4, dtype=torch.float64), rtol=1e-14, atol=0
    )
    assert margins[5:].min() > 0.5
    torch.testing.assert_close(found.z.T @ known.dual, 0.4 * known.direction, rtol=0, atol=1e-15)
    torch.testing.assert_close(
        torch.softmax(-found.z[:5] @ known.offset, 0), known.dual[:5], rtol=1e-12, atol=0
    )
    across = found.z[:5] - margins[:5, None] * known.direction
    singular = torch.linalg.svdvals(across)[:4]
    assert singular[0] / singular[-1] == pytest.approx(20, rel=1e-10)


@pytest.mark.parametrize(
    "x, y, error, words",
    [
        (X, [0, 1], BadLabel, "y = 2 [*] y - 1"),
        (X, [1, 3], BadLabel, "labels are 1, 3"),
        (X, [1, 1], BadData, "one class only"),
        (X, [1, -1, 1], ShapeMismatch, "needed [(]2,[)]"),
        (X, [1, float("nan")], NonFinite, "label 2"),
        ([[1.0, 2.0], [float("inf"), 1.0]], [1, -1], NonFinite, "row 2, column 1"),
        ([1.0, 2.0], [1, -1], BadData, "reshape"),
        (np.zeros((0, 3)), np.zeros(0), BadData, "at least one row"),
        ([[1.0], [2.0, 3.0]], [1, -1], BadData, "rectangular"),
        ([["a"], ["b"]], [1, -1], BadData, "rectangular"),
    ],
)
def test_bad_arrays_are_named(x, y, error, words):
    with pytest.raises(error, match=words) as caught:
        dl.Dataset(x, y, "bad")
    assert "\n" not in str(caught.value)


def test_all_zero_points_cannot_be_scaled():
    with pytest.raises(BadData, match="rescaled"):
        dl.Dataset(np.zeros((2, 2)), [1, -1], "zero").scaled()


@pytest.mark.parametrize(
    "spec, error, words",
    [
        ("digit:0,1", BadData, "did you mean 'digits'"),
        ("spaning", BadData, "did you mean 'spanning'"),
        ("zzz", BadData, "one of six-points"),
        ("digits:0,x", BadParameter, "whole numbers"),
        ("digits:0,0", BadParameter, "two different classes"),
        ("digits:0,1,2", BadParameter, "whole numbers"),
        ("wine:0,7", BadParameter, "from 0 to 2"),
        ("iris:5", BadParameter, "0, 1 or 2"),
        ("random:m=3", BadParameter, "one of n=, d=, seed=, gap="),
        ("random:n=3.5", BadParameter, "whole number"),
        ("random:n=1", BadParameter, "at least 2"),
        ("random:gap=0", BadParameter, "above 0"),
        ("spanning:n=2,d=5", BadParameter, "at least 5"),
        ("six-points:n=3", BadParameter, "no arguments"),
        ("gone.npz", BadData, "does not exist"),
        ("notes.txt", BadData, "needed one of .csv"),
    ],
)
def test_bad_names_are_named(spec, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words) as caught:
        dl.load(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["1,2,1\n3,4.5,-1\n", "a,b,y\n1,2,1\n\n3,4.5,-1\n", "\ufeffa,b,y\n1,2,1\n3,4.5,-1"]
)
def test_csv(text, tmp_path):
    path = tmp_path / "points.csv"
    path.write_text(text, encoding="utf-8")
    found = dl.load(path)
    assert found.x.tolist() == [[1.0, 2.0], [3.0, 4.5]] and found.y.tolist() == [1.0, -1.0]


@pytest.mark.parametrize(
    "text, error, words",
    [
        ("1,2,1\n3,x,-1\n", BadData, "line 2, column 2 is 'x'"),
        ("a,b,y\n1,,1\n", BadData, "line 2, column 2 'b' is ''"),
        ("1,nan,1\n", NonFinite, "line 1, column 2"),
        ("1,2,1\n3,-1\n", BadData, "line 2 .2 entries, needed 3."),
        ("1:2:1\n", BadData, "1 column"),
        ("a,y\n", BadData, "0 rows"),
        ("", BadData, "0 rows"),
        ("1,2,0\n3,4,1\n5,6,2\n", BadLabel, "'3' has 3 classes .0, 1, 2."),
    ],
)
def test_bad_csv(text, error, words, tmp_path):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(error, match=words):
        dl.load(str(path))


def test_npz(tmp_path):
    path = tmp_path / "points.npz"
    np.savez(path, x=X, y=[1, -1])
    assert dl.load(str(path)).x.tolist() == X
    np.savez(path, a=X)
    with pytest.raises(BadData, match="holds a, needed arrays x and y"):
        dl.load(str(path))
    np.savez(path, x=np.array([[None]]), y=[1])
    with pytest.raises(BadData, match="Python objects"):
        dl.load(str(path))
    path.write_text("not an archive")
    with pytest.raises(BadData, match="not a .npz archive"):
        dl.load(str(path))
    with pytest.raises(BadData, match="cannot be read"):
        (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
        dl.load(tmp_path / "bytes.csv")
    with pytest.raises(BadData, match="is a directory"):
        (tmp_path / "folder.csv").mkdir()
        dl.load(tmp_path / "folder.csv")


def test_standardised_features_have_mean_zero_and_deviation_one_and_constants_stay():
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0], [8.0, 5.0]], dtype=torch.float64)
    found = dl.Dataset(x, torch.tensor([1.0, -1.0, 1.0]), "three").standardised()
    torch.testing.assert_close(
        found.x[:, 0].mean(), torch.zeros((), dtype=torch.float64), rtol=0, atol=1e-15
    )
    torch.testing.assert_close(found.x[:, 0].square().mean(), torch.ones((), dtype=torch.float64))
    assert (found.x[:, 1] == 5).all()


def test_a_shift_can_make_separable_data_not_separable():
    raw = dl.load("breast-cancer")
    assert theory.separating_direction(raw.scaled().z) is not None
    with pytest.raises(errors.NotSeparable):
        theory.separating_direction(raw.standardised().scaled().z)


def test_one_hot_has_every_class_and_one_a_sample():
    x, y = data.load_classes("iris")
    assert (
        x.shape == (4, 150)
        and y.shape == (3, 150)
        and (y.sum(0) == 1).all()
        and (y.sum(1) == 50).all()
    )
    assert [
        data.load_classes(name)[1].shape[0] for name in ("wine", "breast-cancer", "digits")
    ] == [3, 2, 10]
    with pytest.raises(BadData, match="did you mean"):
        data.load_classes("digit")
