"""Where data comes from: `load` turns a name ("six-points", "digits:0,1"), a file or an object into
a `Dataset`.

The class itself is in `dataset`, the synthetic families in `synthetic`, the file formats in
`readers`, what may be asked for beside a name in `options`.
"""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from dlnlib._checks import require
from dlnlib.data.dataset import Dataset
from dlnlib.data.labels import classes_of
from dlnlib.data.objects import from_object
from dlnlib.data.options import Options, joined, query, split
from dlnlib.data.readers import READERS, ending, read
from dlnlib.data.synthetic import (
    not_separable,
    one_support_vector,
    random_separable,
    six_points,
    spanning,
)
from dlnlib.data.table import column_of, finished
from dlnlib.errors import BadData, BadInput, BadParameter, shortened

__all__ = ["absolute", "known_names", "load", "bundled", "load_classes"]


def _pair(x, target, classes: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    keep = np.isin(target, classes)
    return x[keep], np.where(target[keep] == classes[1], 1.0, -1.0)


def _digits(first: int = 0, second: int = 1) -> Dataset:
    from sklearn.datasets import load_digits

    x, y = _pair(*load_digits(return_X_y=True), _two_classes("digits", first, second, 10))
    return Dataset(x, y, f"digits:{first},{second}", (8, 8))


def _wine(first: int = 0, second: int = 1) -> Dataset:
    from sklearn.datasets import load_wine

    x, y = _pair(*load_wine(return_X_y=True), _two_classes("wine", first, second, 3))
    return Dataset(x, y, f"wine:{first},{second}")


def _iris(chosen: int = 0) -> Dataset:
    """One class (+1) against the two others: 0 setosa (separable), 1 versicolor and 2 virginica
    (not)."""
    from sklearn.datasets import load_iris

    require(0 <= chosen <= 2, "iris class", chosen, "0, 1 or 2")
    x, target = load_iris(return_X_y=True)
    return Dataset(
        x, np.where(target == chosen, 1.0, -1.0), "iris" if chosen == 0 else f"iris:{chosen}"
    )


def _breast_cancer(features: int = 30) -> Dataset:
    """Benign (+1) against malignant; the first 10 of the 30 features are the means (alone, not
    separable)."""
    from sklearn.datasets import load_breast_cancer

    require(1 <= features <= 30, "number of features", features, "from 1 to 30")
    x, target = load_breast_cancer(return_X_y=True)
    name = "breast-cancer" if features == 30 else f"breast-cancer:{features}"
    return Dataset(x[:, :features], 2.0 * target - 1, name)


def _two_classes(name: str, first: int, second: int, count: int) -> tuple[int, int]:
    if first == second or not (0 <= first < count and 0 <= second < count):
        raise BadParameter(
            f"{name}:{first},{second} found, needed two different classes from 0 to {count - 1}"
        )
    return first, second


SYNTHETIC = {
    "six-points": six_points,
    "one-support-vector": one_support_vector,
    "random": random_separable,
    "spanning": lambda **known: spanning(**known)[0],
    "not-separable": not_separable,
}
REAL = {"digits": _digits, "iris": _iris, "breast-cancer": _breast_cancer, "wine": _wine}


def known_names() -> list[str]:
    """The names that `load` knows, each with an example of its arguments."""
    return [
        "six-points",
        "one-support-vector",
        "random:n=20,d=5,gap=0.3",
        "spanning:n=20,d=5",
        "not-separable:n=20,d=5",
        "digits:0,1",
        "iris",
        "iris+1",
        "breast-cancer",
        "breast-cancer+1",
        "wine:0,1",
    ]


def bundled(name: str) -> Dataset:
    """A data set bundled with scikit-learn: "digits:3,8" (-1 for the first), "iris",
    "breast-cancer", "wine:0,1".

    A suffix "+1" appends a constant feature. Raises BadData for an unknown name, BadParameter for
    unknown classes.
    """
    head, _, arguments = name.removesuffix("+1").partition(":")
    if head not in REAL:
        raise BadData(_unknown(name, list(REAL)))
    try:
        classes = [int(part) for part in arguments.split(",")] if arguments else []
        inspect.signature(REAL[head]).bind(*classes)
    except (TypeError, ValueError):
        found = shortened(name)
        raise BadParameter(
            f"'{found}' found, needed whole numbers after the colon, such as {_example(head)}"
        ) from None
    data = REAL[head](*classes)
    return data.with_constant() if name.endswith("+1") else data


def load_classes(name: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """All classes of a data set at once: X (d, n) as it comes, and Y (classes, n), one column a
    sample.

    `name` is "iris", "wine", "breast-cancer", "digits", or a file with the options `label` and
    `drop` (see `load`); raises BadData for another one.
    """
    from sklearn import datasets

    head, options = split(str(name))
    if head in REAL and not options.text:
        x, target = getattr(datasets, "load_" + head.replace("-", "_"))(return_X_y=True)
        return x.T.astype(np.float64), np.eye(target.max() + 1)[:, target]
    if not _looks_like_a_file(head):
        raise BadData(_unknown(head, list(REAL)))
    table = read(head, options)
    found = classes_of(table.labels, table.label)
    x = np.asarray(table.x, dtype=np.float64)
    return x.T, np.eye(len(found.names))[:, found.index]


def load(
    source,
    seed: int = 0,
    *,
    label: str | None = None,
    drop: str | Iterable[str] = (),
    scale: str | None = None,
    constant: bool = False,
    sample: int | str | None = None,
) -> Dataset:
    """The data set of that name (see `known_names`), in that file, or in that object.

    Files: .csv (also .csv.gz) with the label last, .npz with x and y, a pair of .npy, .parquet,
    .svm or .libsvm. Objects: a pair (x, y), a data frame, what scikit-learn loads, a torch data
    set.

    `label` "COLUMN", "COLUMN=POSITIVE,NEGATIVE" or "COLUMN=POSITIVE" (against the rest), `drop`
    columns, `scale` "ball", "standard" or "none", `constant` appends a feature 1, `sample` N or
    "N,SEED" rows. A name may hold the same:
    "mine.csv?label=species=setosa&scale=standard&constant". `seed` is for the random families,
    where "seed=3" in the name wins. Raises a BadInput that says what to do.
    """
    more = query(label, drop, scale, constant, sample)
    if isinstance(source, str | Path):
        spec = joined(str(source), more)
        head, options = split(spec)
        return _named(head, spec, options, seed)
    name = joined(type(source).__name__, more)
    options = split(name)[1]
    if isinstance(source, Dataset):
        return _with_options(source, joined(source.name, more), options)
    return from_object(source, options).dataset(name, options)


def absolute(spec: str) -> str:
    """The name with a file's path made whole, its options as they are: for use in another folder.

    Raises OSError where there is no working folder.
    """
    head, options = split(spec)
    path = Path(os.path.expanduser(head))
    if ending(path) in READERS or len(path.parts) > 1:
        # links are not followed: the name that was given says what it is
        head = os.path.abspath(path)
    return joined(head, options.text)


def _named(head: str, spec: str, options: Options, seed: int) -> Dataset:
    family = head.removesuffix("+1").partition(":")[0]
    if family in REAL:
        return _with_options(bundled(head), spec, options)
    if family in SYNTHETIC:
        arguments = _arguments(head.removesuffix("+1"), family, seed)
        data = replace(SYNTHETIC[family](**arguments), name=head.removesuffix("+1"))
        data = data.with_constant() if head.endswith("+1") else data
        return _with_options(data, spec, options)
    if _looks_like_a_file(head):
        name = joined(Path(head).name, options.text)
        try:
            return read(os.path.expanduser(head), options).dataset(name, options)
        except BadInput as err:
            file = shortened(Path(head).name, 200)
            raise err if file in str(err) else type(err)(f"{file}: {err}") from err
    raise BadData(_unknown(head, [*SYNTHETIC, *REAL]))


def _looks_like_a_file(name: str) -> bool:
    path = Path(name)
    return bool(path.suffix) or len(path.parts) > 1 or os.path.exists(name)


def _with_options(data: Dataset, name: str, options: Options) -> Dataset:
    """Options on data that have their classes already."""
    if options.label is not None:
        raise BadParameter(
            f"label={shortened(options.label)} for {shortened(name)}: its two classes are chosen; "
            "label is for files and tables, and digits:3,8 chooses classes by itself"
        )
    if options.drop:
        columns = data.columns or tuple(str(j + 1) for j in range(data.d))
        gone = {column_of(column, columns, data.name) for column in options.drop}
        left = [j for j in range(data.d) if j not in gone]
        told = "; ".join(filter(None, (data.told, f"dropped {', '.join(options.drop)}")))
        kept = tuple(columns[j] for j in left)
        data = replace(data, x=data.x[:, left], image_shape=None, columns=kept, told=told)
    return finished(replace(data, name=name), options)


def _arguments(spec: str, head: str, seed: int) -> dict[str, int | float]:
    """Arguments of a synthetic family, "name:key=value,...", with the types of their defaults."""
    family = spanning if head == "spanning" else SYNTHETIC[head]
    defaults = {key: p.default for key, p in inspect.signature(family).parameters.items()}
    found = {"seed": seed} if "seed" in defaults else {}
    for part in filter(None, spec.partition(":")[2].split(",")):
        key, _, text = part.partition("=")
        if key not in defaults:
            raise BadParameter(
                f"'{shortened(part)}' found, needed {_keys(defaults)}: see {_example(head)}"
            )
        kind = type(defaults[key])
        try:
            found[key] = kind(text)
        except ValueError:
            word = "a whole number" if kind is int else "a number"
            raise BadParameter(
                f"{key} = '{shortened(text)}', needed {word}: see {_example(head)}"
            ) from None
    return found


def _keys(defaults: dict) -> str:
    return "one of " + ", ".join(f"{key}=" for key in defaults) if defaults else "no arguments"


def _example(head: str) -> str:
    return next(f"'{name}'" for name in known_names() if name.startswith(head))


def _unknown(spec: str, known: list[str]) -> str:
    near = difflib.get_close_matches(spec.partition(":")[0][:60].lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else "one of " + ", ".join(known) + ", or a file"
    return f"data set '{shortened(spec)}' is not known: {hint}"
