"""Bad and awkward input to the command: one line, the right exit status, and nothing left behind.

Almost all is refused before any kernel starts, and so it is tried here without one, in this
process.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import stat
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pytest

from dlnlib import cli
from dlnlib.book import run
from dlnlib.book.chapters import convert
from dlnlib.errors import NotCertified

CHAPTER = Path("book", "toys", "halving.md")
ROWS = "1,2,1\n3,4,-1\n"


class Command:
    """The command in a toy book, whose kernels do not start; `notebook` stands in for what one
    would give back."""

    def __init__(self, book: Path, temporary: Path, capsys):
        self.book, self.temporary, self.capsys = book, temporary, capsys
        self.notebook = None

    def execute(self, chapter, values):
        if self.notebook is None:
            pytest.fail("a kernel was started")
        return self.notebook(chapter)

    def __call__(self, *arguments):
        status = cli.main([str(argument) for argument in arguments])
        return status, *self.capsys.readouterr()

    def files(self) -> dict:
        """Every file with its size, every folder and link."""
        paths = [p for p in self.book.rglob("*") if "__pycache__" not in p.parts]
        return {
            str(path): path.lstat().st_size if path.is_file() else stat.S_IFMT(path.lstat().st_mode)
            for path in paths
        }

    def refuses(self, arguments, words: str, status: int = 2) -> str:
        """One line with these words, this status, and everything as it was."""
        before = self.files()
        found, said, line = self(*arguments)
        assert found == status, line
        assert (
            said == ""
            and line.startswith("dlnlib: ")
            and line.count("\n") == 1
            and line.endswith("\n")
        )
        assert words.lower() in line.lower() and "Traceback" not in line and len(line) < 2100
        assert self.files() == before and list(self.temporary.iterdir()) == []
        return line


@pytest.fixture
def command(toy_book, tmp_path, monkeypatch, capsys):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.chdir(toy_book)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    made = Command(toy_book, temporary, capsys)
    monkeypatch.setattr(run, "execute", made.execute)
    monkeypatch.setattr(run, "render", lambda notebook, title, book: "the page\n")
    return made


def unrun(chapter):
    """The notebook of a chapter as it would come back from a kernel, without verdicts."""
    return convert(chapter.path)


# Parameters


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("steps=0", "steps = 0: 1 to 50 is needed"),
        ("steps=51", "steps = 51: 1 to 50 is needed"),
        ("seed=9223372036854775807", "0 to 1000000 is needed"),
        ("seed=18446744073709551616", "0 to 1000000 is needed"),
        ("seed=" + "9" * 31, "0 to 1000000 is needed"),
        ("seed=" + "9" * 5000, "has 5000 characters"),
        ("seed=-1", "0 to 1000000 is needed"),
        ("factor=inf", "0 to 1 is needed"),
        ("factor=1e400", "0 to 1 is needed"),
        ("factor=1e308", "0 to 1 is needed"),
        ("factor=nan", "0 to 1 is needed"),
        ("factor=-0.001", "0 to 1 is needed"),
        ("factor=" + "-" * 201 + "1", "a number is needed"),
        ("factor=" + "-" * 2000 + "1", "has 2001 characters"),
        ("factor=" + "(" * 250, "a number is needed"),
        ("factor=1j", "a number is needed"),
        ("factor=[0.5]", "a number is needed"),
        ("factor=", "a number is needed"),
        ("steps=8.0", "an integer is needed"),
        ("steps=many", "an integer is needed"),
        ("steps=None", "an integer is needed"),
        ("steps=2+2", "an integer"),
        ("steps=__import__('os').getpid()", "an integer is needed"),
        ("steps=８\N{BELL}", "an integer is needed"),
        ("exact=2", "true or false"),
        ("exact=yes", "true or false"),
        ("stpes=3", "did you mean 'steps'"),
        ("zzz=3", "known: seed"),
        ("z" * 5000 + "=3", "(5000 characters)"),
        ("steps", "NAME=VALUE is needed"),
        ("=3", "NAME=VALUE is needed"),
        ("", "NAME=VALUE is needed"),
        ("steps\n=\n3x", "an integer is needed"),
    ],
)
def test_parameters(command, given, words):
    command.refuses(["run", "halving", "-p", given], words)


def test_the_ends_of_a_range_are_in_it(command):
    command.notebook = unrun
    # no verdict
    assert (
        command("run", "halving", "-p", "steps=50", "-p", "factor=0", "-p", "seed=1000000")[0] == 1
    )


@pytest.mark.parametrize(
    "arguments", [["-p", "steps=3", "-p", "steps=3"], ["-p", "data=iris", "--data", "iris"]]
)
def test_a_parameter_is_given_once(command, arguments):
    command.refuses(["run", "halving", *arguments], "is given twice")


def test_a_relation_between_parameters(command):
    text = (command.book / CHAPTER).read_text()
    (command.book / CHAPTER).write_text(
        text.replace("parameters:\n", "requires: [2 * seed < steps]\nparameters:\n")
    )
    command.refuses(
        ["run", "halving", "-p", "seed=4"], "seed = 4, steps = 8: 2 * seed < steps is needed"
    )


def test_a_second_data_parameter_is_checked_before_anything_runs(command):
    text = (
        (command.book / CHAPTER)
        .read_text()
        .replace("  data: {data: needed}\n", "  data: {data: needed}\n  also: {data: list}\n")
    )
    (command.book / CHAPTER).write_text(
        text.replace("exact = True", 'also = "iris"  # more\nexact = True')
    )
    command.refuses(
        ["run", "halving", "-p", "also=iris; digitz"], "also: data set 'digitz' is not known"
    )
    command.refuses(["run", "halving", "-p", "also=gone.csv"], "also: ")


# Names of data


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "is not known"),
        ("digitz:0,1", "did you mean 'digits'"),
        ("digits:0,10", "from 0 to 9"),
        ("digits:0,1,2", "whole numbers"),
        ("digits:-1,2", "from 0 to 9"),
        ("digits:0,٣x", "whole numbers"),
        ("iris:3", "0, 1 or 2"),
        ("wine:1,1", "two different classes"),
        ("breast-cancer:31", "from 1 to 30"),
        ("random:n=1000000000,d=1000", "at most 10000000 numbers"),
        ("random:d=100000000", "at most 10000000 numbers"),
        ("not-separable:n=99999999,d=1", "at most 10000000 numbers"),
        ("spanning:n=9999,d=9999", "at most 10000000"),
        ("random:seed=100000000000000000000", "from 0 to 2^63 - 1"),
        ("random:seed=-1", "from 0 to 2^63 - 1"),
        ("random:seed=10**20", "a whole number"),
        ("random:n=" + "9" * 290, "at most 10000000"),
        ("random:n=0", "at least 2"),
        ("random:n=-5", "at least 2"),
        ("random:n=2.5", "a whole number"),
        ("random:n", "a whole number"),
        ("random:m=5", "one of n="),
        ("random:gap=inf", "a number above 0"),
        ("random:gap=nan", "a number above 0"),
        ("random:gap=1e400", "a number above 0"),
        ("spanning:margin=inf", "a number above 0"),
        ("spanning:spread=nan", "a number above 0"),
        ("spanning:condition=0.5", "at least 1"),
        ("spanning:n=3,d=4", "at least 4"),
        ("six-points:n=4", "no arguments"),
        ("n" * 5000, "has 5000 characters"),
        ("n" * 290, "(290 characters)"),
        ("n" * 290 + ".csv", "does not exist"),
        ("~nobody-of-that-name/a.csv", "does not exist"),
        ("/dev/null", "has no ending"),
        ("a\0b.csv", "does not exist"),
        ("/proc/self/mem", "has no ending"),
        ("gone/../gone.npz", "does not exist"),
        ("book", "has no ending"),
        ("mine.txt", "needed one of .csv, .csv.gz, .npz"),
        ("mine.csv.gz", "does not exist"),
        ("mine.csv.bz2", "ends in '.bz2'"),
        ("mine.pkl", "ends in '.pkl'"),
        ("iris?scale", "scale has no value"),
        ("iris?scale=unit", "one of ball, standard, none"),
        ("iris?scale=ball&scale=ball", "scale is given twice"),
        ("iris?constant=1", "constant takes no value"),
        ("iris?drop=", "the name of a column"),
        ("iris?drop=9", "no column '9'"),
        ("iris?drop=1&drop=2&drop=3&drop=4", "at least one row and one column"),
        ("iris?label=species=setosa", "its two classes are chosen"),
        ("iris?sample=151", "at most 150, the rows of iris"),
        ("iris?sample=1", "at least 2"),
        ("iris?sample=2.5", "a whole number of rows"),
        ("iris?sample=9,9,9", "a whole number of rows"),
        ("iris?sample=" + "9" * 270, "at most 150"),
        ("iris?smaple=9", "option 'smaple' is not one of label"),
        ("iris?__import__('os')", "is not one of label"),
        ("iris&constant", "'iris&constant' is not known"),
        ("http://example.org/a.csv", "does not exist"),
    ],
)
def test_names_of_data(command, name, words):
    command.refuses(["run", "halving", "--data", name], words)


# Files of data


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "0 rows of data"),
        ("\n\n", "0 rows"),
        ("a,b,label\n", "0 rows"),
        ("1\n2\n", "1 column"),
        ("1:2:1\n3:4:-1\n", "1 column"),
        ("1,2,1\n3,4\n", "line 2 (2 entries, needed 3)"),
        ("1,2,1\n3\n", "line 2 (1 entries, needed 3)"),
        ("1,2,1\n3,4,5,-1\n", "Expected 3 fields in line 2, saw 4"),
        ("1;2,5;1\n3;4,x;-1\n", "line 2, column 2 is '4,x'"),
        ("1,2,1\n3,4,\n", "line 2: the label (column 3) is missing"),
        ("a,b,y\n1,Rome,1\n2,Oslo,0\n", "column 2 'b' is 'Rome', needed a number (and 1 more"),
        ("a,b,y\n1,Rome,1\n2,Oslo,0\n", "drop=b"),
        ("id,income,loan,good\n1,560000,,0\n2,3100,12.5,1\n", "column 3 'loan' is ''"),
        ("1,2,1\n3,,-1\n", "line 2, column 2 is ''"),
        ("1,2,1\n3,NA,-1\n", "line 2, column 2 is 'NA'"),
        ("1,nan,1\n3,4,-1\n", "line 1, column 2 is nan"),
        ("1,inf,1\n3,4,-1\n", "is inf, needed a finite number"),
        ("1,1e400,1\n3,4,-1\n", "is 1e400, needed a finite number"),
        ("1,2+3j,1\n3,4,-1\n", "is '2+3j', needed a number"),
        ("2024-01-31,2,1\n2024-02-01,3,-1\n", "is '2024-01-31'"),
        ("2024_01_31,2,1\n2024_02_01,3,-1\n", "is '2024_01_31'"),
        ("2024/01/31,2,1\n2024/02/01,3,-1\n", "is '2024/01/31'"),
        ("0x10,2,1\n3,4,-1\n", "is '0x10', needed a number"),
        ("1,2,1\n3,4,1\n", "one class only"),
        ("1,2,1\n3,4,2\n5,6,3\n", "label '3' has 3 classes (1, 2, 3)"),
        ("1,2,True\n3,4,True\n", "all 2 labels are True"),
        ("1,2,a\n3,4,b\n5,6,c\n", "label=3=POSITIVE,NEGATIVE takes two"),
        ("y,species\nsetosa,1\nother,0\n", "column 1 'y' is 'setosa'"),
        ("a,a,y\n1,2,1\n3,4,0\n?drop=a", "has 2 columns 'a'"),
        ("a,b,y\n1,2,1\n3,4,0\n?label=z", "no column 'z'"),
        ("alpha,b,y\n1,2,1\n3,4,0\n?drop=alpah", "did you mean 'alpha'"),
        ("a,b,y\n1,2,1\n3,4,0\n?label=4", "no column '4'"),
        ("a,b,y\n1,2,1\n3,4,0\n?drop=y", "the label 'y' is dropped"),
        ("a,b,y\n1,2,1\n3,4,0\n?drop=a&drop=b", "no feature left"),
        ("a,b,y\n1,2,u\n3,4,v\n?label=y=w", "label 'y' has no class 'w'; it has u, v"),
        ("a,b,y\n1,2,u\n3,4,v\n?label=y=u,u", "two different classes"),
        ("a,b,y\n1,2,1\n3,4,0\n?label=y=1,1.0", "are one class"),
        ("a,b,y\n1,2,u\n3,4,v\n?label=y=u,v,w", "two different classes"),
        ("a,b,y\n1,2,u\n3,4,v\n?label=y=", "two different classes"),
        ("a,b,y\n0,0,u\n0,0,v\n?scale=ball", "all 2 points of mine.csv"),
        ('1,"2,1\n3,4,-1\n', "EOF inside string"),
        ("1,2,1\n3,\0,-1\n", "line 2, column 2"),
        ("1," + "2" * 200_000 + ",1\n", "cannot be read"),
    ],
)
def test_csv_files(command, text, words):
    text, _, options = text.partition("?")
    (command.book / "mine.csv").write_text(text)
    name = f"mine.csv?{options}" if options else "mine.csv"
    line = command.refuses(["run", "halving", "--data", name], "")
    assert any(part.lower() in line.lower() for part in words.split("|")), line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (ROWS.encode("utf-16"), "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"PK\x03\x04rubbish", "is not a .npz archive"),
        (b"gz: no", "Not a gzipped file"),
        (b"gz:" + gzip.compress(ROWS.encode())[:-9], "cannot be read"),
        (b"gz:" + gzip.compress(b""), "0 rows of data"),
        (b"parquet:PAR1 no", "cannot be read"),
        (b"parquet:", "cannot be read"),
        (b"svm:1 2 3\n", "cannot be read"),
        (b"svm:", "0 rows of data"),
        (b"svm:1 1:0.5 900000000:1\n0 1:2\n", "holds 1800000000 numbers"),
        (b"svm:1 2:1 1:1\n0 1:1\n", "cannot be read"),
        (b"npy:\x93NUMPY\x01\x00", "there is no y.npy beside it"),
    ],
)
def test_files_of_bytes(command, content, words):
    kind, colon, rest = content.partition(b":")
    endings = {b"gz": "csv.gz", b"parquet": "parquet", b"svm": "svm", b"npy": "npy"}
    if colon and kind in endings:
        name, content = f"mine.{endings[kind]}", rest
    else:
        name = "mine.npz" if b"PK" in content else "mine.csv"
    (command.book / name).write_bytes(content)
    command.refuses(["run", "halving", "--data", name], words)


X, Y = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1, -1])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, "holds nothing, needed arrays x and y"),
        ({"x": X}, "holds x, needed"),
        ({"a": X, "b": Y}, "holds a, b"),
        ({"data": X, "b": Y}, "holds data, b"),
        ({"x": X, "y": np.array(["a", None], object)}, "never unpickled"),
        ({"x": X, "y": ["a", ""]}, "label 2"),
        ({"x": X, "y": ["a", "a"]}, "all 2 labels are a"),
        ({"x": X + 1j, "y": Y}, "x is complex"),
        ({"x": X, "y": Y + 0j}, "y is complex"),
        ({"x": X.astype("datetime64[D]"), "y": Y}, "an array of dates"),
        ({"x": X.astype("timedelta64[s]"), "y": Y}, "of durations"),
        ({"x": X.astype(str), "y": Y}, "not a rectangular array of numbers"),
        ({"x": X.astype("S8"), "y": Y}, "rectangular array of numbers"),
        ({"x": X.astype(object), "y": Y}, "holds Python objects"),
        ({"x": np.zeros(2, "f8,f8"), "y": Y}, "an array of records"),
        ({"x": X[0], "y": Y}, "needed (n, d)"),
        ({"x": X[None], "y": Y}, "needed (n, d)"),
        ({"x": X[:0], "y": Y[:0]}, "at least one row"),
        ({"x": X[:, :0], "y": Y}, "one column"),
        ({"x": X, "y": Y[:1]}, "one label for each row"),
        ({"x": X, "y": Y[:, None]}, "one label for each row"),
        ({"x": X, "y": [1.0, np.nan]}, "label 2"),
        ({"x": X * np.inf, "y": Y}, "is inf"),
        ({"x": X.astype(np.longdouble) * np.longdouble("1e4000"), "y": Y}, "is inf"),
        ({"x": X, "y": [0.5, 0.5]}, "all 2 labels are 0.5"),
    ],
)
def test_npz_files(command, arrays, words):
    np.savez(command.book / "mine.npz", **arrays)
    command.refuses(["run", "halving", "--data", "mine.npz"], words)


def header(shape) -> bytes:
    """The beginning of an array of that shape, in .npy form, without its data."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (header((10**9, 10**3)), "holds 1000000000000 numbers, needed at most 10000000"),
        (header((10**30,)), "needed at most"),
        (header((2, 2)), "cannot be read"),
        (b"rubbish", "is no array"),
        (b"", "is no array"),
        (b"\x93NUMPY\x09\x00", "is no array"),
        (header((2, 2))[:40], "is no array"),
    ],
)
def test_archives_that_lie(command, x, words):
    with zipfile.ZipFile(command.book / "mine.npz", "w") as archive:
        archive.writestr("x.npy", x)
        archive.writestr("y.npy", header((2,)) + Y.astype(float).tobytes())
    command.refuses(["run", "halving", "--data", "mine.npz"], words)


def test_a_small_archive_of_a_great_array(command):
    """100 MB of zeros in a file of 100 kB: refused by the sizes in its headers, before any of it is
    unpacked."""
    with zipfile.ZipFile(command.book / "mine.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w") as stream:
            stream.write(header((2, 6_000_000)))
            for _ in range(96):
                stream.write(bytes(1_000_000))
        archive.writestr("y.npy", header((2,)) + Y.astype(float).tobytes())
    assert (command.book / "mine.npz").stat().st_size < 200_000
    command.refuses(
        ["run", "halving", "--data", "mine.npz"], "holds 12000016 numbers, needed at most 10000000"
    )


def test_a_great_csv_file(command):
    with open(command.book / "mine.csv", "wb") as file:
        file.truncate(10**9)  # a hole: it takes no room
    command.refuses(["run", "halving", "--data", "mine.csv"], "has 1000 MB, needed at most 250 MB")


def test_a_small_packed_file_of_great_size(command):
    with gzip.open(command.book / "mine.csv.gz", "wb", compresslevel=1) as file:
        for _ in range(251):
            file.write(bytes(1_000_000))
    assert (command.book / "mine.csv.gz").stat().st_size < 3_000_000
    command.refuses(["run", "halving", "--data", "mine.csv.gz"], "needed at most 250 MB")


class Planted:
    """Unpickled, it would leave a file behind."""

    def __reduce__(self):
        return (open, ("planted", "w"))


@pytest.mark.parametrize("name", ["mine.npz", "mine_x.npy"])
def test_nothing_is_unpickled(command, name):
    bomb = np.array([[Planted()], [Planted()]], object)
    np.savez(command.book / "mine.npz", x=bomb, y=Y)
    np.save(command.book / "mine_x.npy", bomb)
    np.save(command.book / "mine_y.npy", Y)
    command.refuses(["run", "halving", "--data", name], "never unpickled")
    assert not (command.book / "planted").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scale", "standard"], "scale=standard is asked of no data"),
        (["--constant"], "name them with --data"),
        (["--data", "iris", "--scale", "big"], "one of ball, standard, none"),
        (["--data", "iris?scale=ball", "--scale", "ball"], "scale is given twice"),
        (["--data", "iris", "--label", "a"], "its two classes are chosen"),
        (["--data", "iris", "--drop", "species"], "no column 'species'"),
        (["--data", "iris", "--sample", "many"], "a whole number of rows"),
        (["--data", "iris", "--label", "a&constant"], "label=a%26constant"),
    ],
)
def test_options_of_data(command, arguments, words):
    command.refuses(["run", "halving", *arguments], words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.csv"], "does not exist"),
        (["iris", "--scale", "big"], "one of ball"),
        (["random:n=1"], "at least 2"),
        (["iris", "--html", ""], "the name of a file is needed"),
        (["iris", "--html", "_toc.yml/page.html"], "_toc.yml is a file"),
        (["iris", "--html", "book"], "is a folder"),
        (["iris", "--html", "/proc/page.html"], "cannot be written"),
    ],
)
def test_what_check_refuses(command, arguments, words):
    command.refuses(["check", *arguments], words)


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling", "circle"])
def test_what_is_no_file(command, kind):
    path = command.book / "mine.csv"
    make = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "dangling": lambda: path.symlink_to("gone"),
        "circle": lambda: path.symlink_to("mine.csv"),
    }
    make[kind]()
    command.refuses(
        ["run", "halving", "--data", "mine.csv"],
        "is a directory" if kind == "folder" else "is no file",
    )


@pytest.mark.parametrize(
    "text",
    [
        "1;2;1\n3;4;-1\n",
        "1,2,0\n3,4,1\n",
        "1,2,True\n3,4,False\n",
        "5.1,3.5,setosa\n4.9,3.0,versicolor\n",
        "a,b,species\n5.1,3.5,setosa\n4.9,3.0,other\n",
        ",a,b,label\n0,1,2,1\n1,3,4,-1\n",
        ",0,1,2\n0,1,2,1\n1,3,4,-1\n",
        "0,1,label\n1,2,1\n3,4,-1\n",
        "0,1,2\n1,2,1\n3,4,-1\n"[6:],
        "a,b,y\n1,2,1\n3,4,-1\n",
        "\ufeffa,b,y\r\n1,2,1\r\n3,4,-1\r\n",
        '"0","1","label"\n"1","2","1"\n"3","4","-1"\n',
        " 1 , 2 , 1 \n+3.,.4e1,-1\n",
    ],
)
def test_files_that_are_read(command, text):
    command.notebook = unrun
    (command.book / "mine").write_text(text, encoding="utf-8")
    (command.book / "named.CSV").symlink_to("mine")
    assert command("run", "halving", "--data", "named.CSV")[0] == 1  # no verdict, but a run


# Places


@contextmanager
def files_at_most(size: int):
    """No file of this process may grow beyond `size` bytes: what a full disk looks like, on any
    machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("", "the name of a directory is needed"),
        ("_toc.yml", "_toc.yml is a file"),
        ("_toc.yml/out", "_toc.yml is a file"),
        ("_toc.yml/a/b/c", "_toc.yml is a file"),
        ("/dev/null", "Not a directory"),
        ("/dev/null/out", "cannot be written"),
        ("/dev/full", "Not a directory"),
        ("/proc/out", "cannot be written"),
        ("/proc/self/out/deep", "cannot be written"),
        ("/sys/out", "cannot be written"),
        ("/proc/1/task", "cannot be written"),
        ("n" * 300, "File name too long"),
        ("a/" * 3000 + "out", "too long"),
        ("~nobody-of-that-name/out", "home directory"),
        ("a\0b", "name of a directory"),
        ("circle/out", "output circle/out"),
        ("new/deep/" + "n" * 300, "File name too long"),
    ],
)
def test_places(command, out, words):
    if out.startswith(("/proc", "/sys", "/dev/full")) and sys.platform != "linux":
        pytest.skip("a place of Linux")
    (command.book / "circle").symlink_to("circle")
    command.refuses(["run", "halving", "-o", out], words)


def test_a_folder_in_place_of_a_file(command):
    (command.book / "halving-run" / "verdicts.json").mkdir(parents=True)
    command.refuses(["run", "halving"], "verdicts.json in it is a folder")


def test_a_full_disk_before_the_run(command):
    with files_at_most(2):
        command.refuses(["run", "halving", "-o", "new/deep/out"], "cannot be written")


@pytest.mark.parametrize("existing", [False, True])
def test_a_full_disk_after_the_run(command, existing):
    command.notebook = unrun
    out = command.book / "out"
    if existing:
        out.mkdir()
        (out / "verdicts.json").write_text("mine\n")
    with files_at_most(200):
        command.refuses(["run", "halving", "-o", "out"], "cannot be written (File too large)")


def test_what_was_replaced_comes_back_when_not_all_can_be(command, monkeypatch):
    command.notebook = unrun
    out = command.book / "out"
    out.mkdir()
    for name in ("halving.ipynb", "halving.html", "verdicts.json", "notes.txt"):
        (out / name).write_text(f"my {name}\n")
    replace = os.replace

    def refuse(source, target):
        if Path(target) == out / "verdicts.json" and Path(source).parent.name != "before":
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    command.refuses(["run", "halving", "-o", "out"], "Input/output error")
    assert all(
        (out / name).read_text() == f"my {name}\n"
        for name in ("halving.ipynb", "halving.html", "verdicts.json")
    )


def test_a_full_temporary_folder(command, monkeypatch):
    """Sphinx wraps the system's error; the line still says where there is no room."""
    command.notebook = unrun

    def render(*_):
        try:
            raise OSError(28, "No space left on device")
        except OSError as err:
            raise RuntimeError("wrapped") from err

    monkeypatch.setattr(run, "render", render)
    command.refuses(["run", "halving"], "No space left on device); set TMPDIR")


def test_no_temporary_folder(command, monkeypatch):
    from dlnlib.book import execute

    monkeypatch.setattr(run, "execute", execute.execute)
    monkeypatch.setattr(tempfile, "tempdir", str(command.book / "gone"))
    command.refuses(["run", "halving"], "set TMPDIR")


def test_a_page_that_cannot_be_made(command, monkeypatch):
    command.notebook = unrun
    monkeypatch.setattr(run, "render", lambda *_: 1 / 0)
    command.refuses(
        ["run", "halving"], "chapter halving: no page can be made of it: division by zero", status=1
    )


def test_an_output_that_is_a_link_or_here(command):
    command.notebook = unrun
    (command.book / "link").symlink_to("target")
    assert (
        command("run", "halving", "-o", "link")[0] == 1
        and (command.book / "target" / "halving.html").is_file()
    )
    (command.book / "here").mkdir()
    os.chdir(command.book / "here")
    assert (
        command("run", "halving", "--book", "..", "-o", ".")[0] == 1
        and len(list(Path.cwd().iterdir())) == 3
    )


def test_a_working_folder_that_was_deleted(command, tmp_path):
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    book = ["--book", command.book]
    command.refuses(["run", "halving", *book], "No such file or directory; give another directory")
    command.refuses(
        ["run", "halving", *book, "-o", command.book / "out", "--data", "a.csv"],
        "give a whole path",
    )
    command.refuses(["list", "--book", "."], "no book in .")
    assert "max-margin" in command("list")[1]  # the package's own
    command.notebook = unrun
    assert command("run", "halving", *book, "-o", command.book / "out")[0] == 1


# Standard output


@pytest.fixture
def output(monkeypatch):
    """Standard output as it may be; closed at the end, whatever is still in it."""
    opened = []

    def change(stream):
        opened.append(stream)
        monkeypatch.setattr(sys, "stdout", stream)

    yield change
    for stream in opened:
        if stream is not None:
            stream.close()


def refuted(chapter):
    from dlnlib.verdict.verdict import Verdict

    verdict = Verdict("JT18-eq1", chapter="halving")
    verdict.conclusion("last value", 1.0, "<=", 0.01)
    notebook = convert(chapter.path)
    notebook.cells[-1].outputs = [
        nbformat.v4.new_output("display_data", data=verdict._repr_mimebundle_())
    ]
    return notebook


def closed_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


@pytest.mark.parametrize("arguments", [("list",), ("run", "halving"), ("ledger", "halving-run")])
@pytest.mark.parametrize("kind", ["pipe", "none", "ascii", "full"])
def test_output_that_cannot_be_printed_hides_no_verdict(command, output, arguments, kind):
    command.notebook = refuted
    if arguments[0] == "ledger":
        assert command("run", "halving")[0] == 1
    if kind == "full" and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    streams = {
        "pipe": closed_pipe,
        "none": lambda: None,
        "full": lambda: open("/dev/full", "w"),
        "ascii": lambda: io.TextIOWrapper(io.BytesIO(), encoding="ascii"),
    }
    stream = streams[kind]()
    output(stream)
    status = cli.main(list(arguments))
    assert status == ({"full": 2}.get(kind, 0) if arguments[0] == "list" else 1)
    said = command.capsys.readouterr().err
    assert said == ("dlnlib: standard output: No space left on device\n" if kind == "full" else "")
    if kind == "ascii" and arguments[0] != "list":
        assert b"1 ? 0.01" in stream.buffer.getvalue()


def test_what_was_done_to_data_is_told_and_means_nothing_else(command):
    """In the notebook behind the parameters, and in each verdict; a stranger's names are no
    markup."""
    (command.book / "mine.csv").write_text("<b>*x*</b>,$b$,y\n3,4,[u](v)\n-6,-8,w\n1,1,z\n")
    command.notebook = refuted
    options = ["--label", "y=[u](v),w", "--drop", "$b$", "--scale", "ball"]
    assert command("run", "halving", "--data", "mine.csv", *options)[0] == 1
    out = command.book / "halving-run"
    (verdict,) = json.loads((out / "verdicts.json").read_text())
    told = verdict["data"]["data"]
    assert told.startswith("mine.csv?label=y=[u](v),w&drop=$b$&scale=ball: 2 points (1 of +1, 1 of")
    assert told.endswith(
        "1 rows of other classes left out; dropped $b$; divided by the largest norm"
    )
    cells = nbformat.read(out / "halving.ipynb", as_version=4).cells
    place = next(i for i, cell in enumerate(cells) if cell.source.startswith("**data:**"))
    assert "parameters" in cells[place - 1].metadata.tags
    assert r"\[u\]\(v\)" in cells[place].source and r"dropped \$b\$" in cells[place].source
    assert command("ledger", out)[0] == 1  # a verdict with one field more is still one
    assert command("run", "halving", "-o", "other")[0] == 1
    (verdict,) = json.loads((command.book / "other" / "verdicts.json").read_text())
    assert "data" not in verdict  # nothing was given


# Books


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("_toc.yml", "parts:", "parts: [", "_toc.yml, line"),
        ("_toc.yml", "parts:", "parts: !!python/object:os.system", "_toc.yml, line 3"),
        ("_toc.yml", "format: jb-book\n", "- ", "_toc.yml"),
        (
            "_toc.yml",
            "parts:",
            "parts: 3\nx:",
            "no chapter 'halving'|'3' found where pages are listed",
        ),
        ("_toc.yml", "file: book/toys/halving", "file: [a]", "`file: ['a']` found"),
        ("_toc.yml", "parts:", "parts: &a [*a]\nx:", "holds itself"),
        ("_toc.yml", "parts:", "parts: " + "[" * 3000 + "\nx:", "_toc.yml"),
        ("_toc.yml", "parts:", "parts: 2024-13-45\nx:", "_toc.yml"),
        ("_toc.yml", "book/toys/halving", "book/toys/gone", "no chapter 'halving'"),
        ("_toc.yml", "book/toys/halving", "n" * 3000, "no chapter 'halving'"),
        ("_config.yml", "parse:", "parse: [", "_config.yml, line"),
        ("_config.yml", "parse:", "parsed:", "a list of texts is needed under `parse"),
        (
            "_config.yml",
            "bibtex_bibfiles: [book/references.bib]",
            "bibtex_bibfiles: 3",
            "needed under `bibtex_bibfiles`",
        ),
        (CHAPTER, "kernelspec:", "kernelspec: [", "halving.md, front matter"),
        (
            CHAPTER,
            "kernelspec:",
            "x: !!python/name:os.system\nkernelspec:",
            "halving.md, front matter",
        ),
        (CHAPTER, "parameters:\n", "parameters: 3\nx:\n", "must map names to ranges"),
        (CHAPTER, "{least: 1, most: 50}", "{least: 9, most: 50}", "halving.md: `steps:"),
        (
            CHAPTER,
            "{least: 1, most: 50}",
            "1 to 50",
            "halving.md: `steps: 1 to 50` in the front matter",
        ),
        (CHAPTER, "  steps: {", "  stps: {", "halving.md: `stps:"),
        (CHAPTER, "parameters:\n", "requires: 3\nparameters:\n", "halving.md: `requires: 3`"),
        (CHAPTER, "steps = 8", "steps = (", "halving.md: the parameters cell does not parse"),
        (CHAPTER, "steps = 8", "steps, x = 8, 9", "NAME = LITERAL"),
        (CHAPTER, "steps = 8", '"""Steps."""\nsteps = 8', "NAME = LITERAL"),
        (CHAPTER, "steps = 8", "import os\nsteps = 8", "NAME = LITERAL"),
        (
            CHAPTER,
            "x = factor**steps",
            "x = = 3",
            "halving.md, code cell 2, line 13: invalid syntax",
        ),
        (CHAPTER, "x = factor**steps", "x = '\udcff'", "code cell 2|not UTF-8"),
        (CHAPTER, ":tags: [parameters]", ":tags: [parameters", "halving.md"),
        (CHAPTER, ":tags: [parameters]", "", "halving.md"),
    ],
)
def test_malformed_books(command, file, old, new, words):
    path = command.book / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1), errors="surrogateescape")
    line = command.refuses(["run", "halving"], "")
    assert any(part in line for part in words.split("|")), line


@pytest.mark.parametrize("file", ["_toc.yml", "_config.yml", str(CHAPTER)])
@pytest.mark.parametrize(
    ("content", "words"), [(b"a: 1\nb: \xff\n", "line 2: not UTF-8"), (None, ""), (b"", "")]
)
def test_files_of_a_book_that_are_missing_or_bytes(command, file, content, words):
    path = command.book / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    line = command.refuses(["run", "halving"], words)
    assert (
        (content is None and file == "_toc.yml")
        or path.name in line
        or "no chapter 'halving'" in line
    )


def test_a_broken_chapter_is_named_and_the_others_are_listed(command):
    edit(
        command.book / "_toc.yml",
        "file: book/toys/halving",
        "file: book/toys/halving\n      - file: book/toys/broken",
    )
    (command.book / "book" / "toys" / "broken.md").write_text(
        (command.book / CHAPTER).read_text().replace("seed = 0", "seed = (")
    )
    status, said, line = command("list")
    assert (
        status == 2
        and said.startswith("halving: Halving")
        and line.count("\n") == 1
        and "broken.md: the parameters cell" in line
    )


def test_no_book_is_taken_from_a_folder_above(command, monkeypatch):
    """A planted table of contents above would have a stranger's code run."""
    below = command.book / "deep" / "deeper"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    command.refuses(["run", "halving"], "no chapter 'halving' in the book")
    assert "max-margin" in command("list")[1]
    for folder in ("nowhere", command.book / "book", command.book / "_toc.yml", "n" * 3000, ""):
        command.refuses(["list", "--book", folder], "no book in")


# The ledger


ENTRY = {
    "id": "JT18-eq1",
    "title": "t",
    "source": "s",
    "provenance": "read",
    "chapter": "c",
    "status": "reproduced",
    "checks": [
        {
            "kind": "conclusion",
            "name": "n",
            "measured": 1,
            "relation": "<=",
            "expected": 2,
            "tolerance": 0,
            "holds": True,
        }
    ],
    "parameters": {},
    "seconds": 1.0,
}
UNRUN = {**ENTRY, "checks": [], "status": "not in this edition"}


def changed(**values) -> str:
    return json.dumps([{**ENTRY, "checks": [{**ENTRY["checks"][0], **values}]}])


def test_a_ledger_that_is_read(command):
    (command.book / "claims.json").write_text(json.dumps([ENTRY, UNRUN]))
    assert command("ledger", "claims.json")[0] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not readable as JSON"),
        ("{", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ("{}", "a list of verdicts"),
        ("3", "a list of verdicts"),
        ("[3]", "a verdict is a JSON object"),
        ("[null]", "a verdict is a JSON object"),
        ("[[]]", "JSON object"),
        ("[{}]", "the field 'id' is missing"),
        ("[" + "9" * 5000 + "]", "not readable as JSON"),
        ("[NaN]", "NaN is no JSON"),
        (json.dumps([{**ENTRY, "status": "not a status"}]), "'not a status' is not one of"),
        (json.dumps([{**ENTRY, "status": []}]), "'status' cannot be []"),
        (json.dumps([{**UNRUN, "checks": ENTRY["checks"]}]), "with checks"),
        (json.dumps([{"status": "not yet run"}]), "'id' is missing"),
        (json.dumps([{**ENTRY, "id": [1]}]), "'id' cannot be [1]"),
        (json.dumps([{**ENTRY, "seconds": "soon"}]), "'seconds' cannot be"),
        (json.dumps([{**ENTRY, "provenance": "x" * 9999}]), "provenance"),
        (json.dumps([{**ENTRY, "checks": {}}]), "'checks' cannot be"),
        (json.dumps([{**ENTRY, "checks": [3]}]), "a check lacks kind"),
        (json.dumps([{**ENTRY, "doubts": 3}]), "JT18-eq1"),
        (json.dumps([{**ENTRY, "doubts": [3]}]), "3 is not a text"),
        (json.dumps([{**ENTRY, "accuracy": [3]}]), "JT18-eq1"),
        (json.dumps([{**ENTRY, "status": "refuted"}]), "its checks say 'reproduced'"),
        (json.dumps([{**ENTRY, "parameters": []}]), "'parameters'"),
        (changed(measured=3), "its numbers say otherwise"),
        (changed(measured="1"), "'1' is not a number"),
        (changed(measured=10**400), "64 bits"),
        (changed(measured=-(10**30)), "64 bits"),
        (changed(measured=None), "is not a number"),
        (changed(measured=True), "is not a number"),
        (changed(measured=[1]), "is not a number"),
        (changed(tolerance="a"), "is not a number"),
        (changed(tolerance=1e400), "must be finite|not readable"),
        (changed(tolerance=1), "needs a one-line reason"),
        (changed(name=[1]), "is not a text"),
        (changed(kind="guess"), "kind 'guess'"),
        (changed(relation="<"), "relation '<'"),
        (changed(reason=3), "is not a text"),
        (changed(holds="yes"), "its numbers say otherwise"),
    ],
)
def test_ledgers(command, text, words):
    (command.book / "claims.json").write_text(text)
    line = command.refuses(["ledger", "claims.json"], "claims.json")
    assert any(part in line for part in words.split("|")), line


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere", "no claims.json"),
        ("n" * 3000, "no claims.json"),
        ("/dev/null", "no claims.json"),
        (CHAPTER, "not readable as JSON"),
        ("book", "no claims.json"),
        (None, "make book"),
    ],
)
def test_places_of_ledgers(command, path, words):
    command.refuses(["ledger"] if path is None else ["ledger", path], words)


def test_bytes_are_no_ledger(command):
    (command.book / "claims.json").write_bytes(b"\xff\xfe[]")
    command.refuses(["ledger", "claims.json"], "not readable as JSON")


# What else may happen


@pytest.mark.parametrize(
    "name", ["halvin", "h" * 5000, "", "../halving", "halving\0", "book/toys/halving"]
)
def test_names_of_chapters(command, name):
    command.refuses(["run", name], "no chapter")


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["run"], ["run", "halving", "--dta", "x"], ["list", "more"], ["x" * 5000]],
)
def test_usage(command, arguments):
    status, said, lines = command(*arguments)
    assert status == 2 and said == "" and lines.startswith("usage: dlnlib")


@pytest.mark.parametrize(
    ("problem", "status", "words"),
    [
        (MemoryError(), 2, "out of memory"),
        (OSError(28, "No space left on device", "/x"), 2, "/x: No space left"),
        (RecursionError("deep"), 1, "a defect: RecursionError: deep"),
        (KeyError("k"), 1, "a defect: KeyError"),
        (NotCertified("the dual is\nfar off"), 1, "undecided: the dual is far off"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was written"),
    ],
)
def test_whatever_happens_is_one_line(command, monkeypatch, problem, status, words):
    def fail(*_):
        raise problem

    monkeypatch.setattr(run, "execute", fail)
    command.refuses(["run", "halving"], words, status)
