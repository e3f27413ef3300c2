"""The command `dlnlib`: list the chapters, look at data, run a chapter, sweep one over parameters,
print the ledger.

Exit status: 0 all reproduced; 1 something refuted or undecided; 2 bad usage or bad input; 3
hypotheses not met.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import warnings
from pathlib import Path

from dlnlib import __version__
from dlnlib.book.chapters import chapter, find_book, pages, parse
from dlnlib.book.execute import ChapterFailed
from dlnlib.book.publish import place, publish
from dlnlib.book.run import run
from dlnlib.errors import BadInput, BadOutput, BadParameter, DlnError, HypothesisNotMet, shortened
from dlnlib.sweeps.command import add_commands
from dlnlib.verdict.ledger import exit_status, load, summary, table

__all__ = ["main"]

EPILOG = (
    "exit status: 0 all reproduced; 1 something refuted or undecided; 2 bad usage or input; 3 "
    "hypotheses not met"
)
LONGEST = 2000  # characters of a message


class Stopped(BaseException):
    """A signal that asks this process to end."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    as_program = arguments is None
    try:
        if as_program:
            _own_process()
        return _main(arguments)
    except (KeyboardInterrupt, Stopped) as err:
        status = 128 + (err.args[0] if isinstance(err, Stopped) else signal.SIGINT)
        kept = "; ".join(getattr(err, "__notes__", ["nothing was written"]))
        _complain(f"interrupted; {kept}", status)
        if as_program:
            # at once: a thread may still be waiting for the kernel that was killed
            os._exit(status)
        return status


def _own_process() -> None:
    """What concerns the whole process, and so only the command itself: signals, warnings, missing
    standard streams."""

    def stop(number, frame):
        raise Stopped(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
            signal.signal(number, stop)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for stream in range(3):  # where one is closed, a file that is opened later would take its place
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _main(arguments: list[str] | None) -> int:
    try:
        options = _parser().parse_args(arguments)
        text, status = options.action(options)
    except SystemExit as err:  # of argparse: help was printed, or usage
        text, status = None, err.code
    except HypothesisNotMet as err:
        return _complain(f"hypotheses not met: {err}", 3)
    except BadInput as err:
        return _complain("; ".join([str(err), *getattr(err, "__notes__", [])]), 2)
    except DlnError as err:  # the numerics could not go on: nothing was decided
        return _complain(f"undecided: {err}", 1)
    except OSError as err:
        return _complain(f"{err.filename or 'the system'}: {err.strerror or err}", 2)
    except MemoryError:
        return _complain("out of memory; take smaller data or parameters", 2)
    except Exception as err:
        if os.environ.get("DLNLIB_TRACEBACK"):
            raise
        return _complain(
            f"a defect: {type(err).__name__}: {err} (DLNLIB_TRACEBACK=1 shows where)", 1
        )
    return _print(text, status)


def _print(text: str | None, status: int) -> int:
    """Print to standard output, closed, full or narrow as it may be; returns the status that is
    left.

    A reader who had enough of a pipe changes nothing: what was refuted stays so.
    """
    if sys.stdout is None:
        return status
    try:
        if text is not None:
            encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
            print(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except OSError as err:
        _give_up_output()
        if not isinstance(err, BrokenPipeError):
            return _complain(f"standard output: {err.strerror}", status or 2)
    return status


def _give_up_output() -> None:
    """What is still buffered goes nowhere: Python would try to write it once more when it ends."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass


def _complain(message: str, status: int) -> int:
    try:
        print(
            f"dlnlib: {shortened(' '.join(message.split()), LONGEST)}", file=sys.stderr, flush=True
        )
    except (OSError, ValueError):  # nobody listens there either
        pass
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "dlnlib", description="Theorems on deep linear networks, run.", epilog=EPILOG
    )
    parser.add_argument("--version", action="version", version=f"dlnlib {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    book = argparse.ArgumentParser(add_help=False)
    book.add_argument(
        "--book",
        metavar="DIR",
        help="the book (default: the one here, else the one beside the package)",
    )

    listing = commands.add_parser(
        "list",
        help="the chapters, their claims, and their parameters with defaults and ranges",
        parents=[book],
    )
    listing.set_defaults(action=_list)

    running = commands.add_parser(
        "run",
        help="run one chapter with your parameters or data",
        epilog=EPILOG,
        parents=[book],
        description=(
            "Run one chapter. Leaves CHAPTER.ipynb, CHAPTER.html and verdicts.json in DIR, or "
            "nothing at all."
        ),
    )
    running.add_argument("chapter", metavar="CHAPTER", help="a name that `dlnlib list` prints")
    running.add_argument(
        "-p",
        dest="parameters",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="set a parameter (repeatable)",
    )
    running.add_argument(
        "--data",
        metavar="NAME|FILE",
        help="data by name (digits:3,8, iris+1, ...) or a file: .csv, .csv.gz, .npz, .npy (x and "
        "y), .parquet, .svm",
    )
    _data_options(running)
    running.add_argument(
        "-o", dest="out", metavar="DIR", help="where to write (default: CHAPTER-run)"
    )
    running.set_defaults(action=_run)
    add_commands(commands, book, EPILOG)

    checking = commands.add_parser(
        "check",
        help="what your data are, and which claims say something about them",
        epilog="exit status: 0 separable; 1 undecided; 2 bad usage or input; 3 not separable",
        description=(
            "Look at data: separable or not (with a certificate), margin, support vectors, rank; "
            "and for each claim whether it applies, or after which option. Nothing is trained."
        ),
    )
    checking.add_argument("data", metavar="NAME|FILE", help="as for `dlnlib run --data`")
    _data_options(checking)
    checking.add_argument("--json", action="store_true", help="print it as JSON")
    checking.add_argument("--html", metavar="PAGE", help="also write it as one HTML file")
    checking.set_defaults(action=_check)

    looking = commands.add_parser(
        "ledger",
        help="all claims and verdicts of a built book or of a run",
        epilog=EPILOG,
        parents=[book],
    )
    looking.add_argument(
        "path",
        nargs="?",
        type=Path,
        metavar="PATH",
        help="claims.json, verdicts.json, or a folder with one (default: the built book)",
    )
    looking.set_defaults(action=_ledger)
    return parser


def _data_options(command: argparse.ArgumentParser) -> None:
    """What may be asked for beside the name of data; it becomes part of the name (see
    `dlnlib.data.options`)."""
    group = command.add_argument_group("options of the data, written into the result")
    group.add_argument(
        "--label",
        metavar="COLUMN[=POSITIVE[,NEGATIVE]]",
        help="the column of labels (default: the last), and two classes of it, or one against the "
        "rest",
    )
    group.add_argument(
        "--drop", metavar="COLUMN", action="append", default=[], help="leave it out (repeatable)"
    )
    group.add_argument(
        "--scale",
        metavar="ball|standard|none",
        help="divide by the largest norm, or bring every feature to mean 0 and deviation 1",
    )
    group.add_argument("--constant", action="store_true", help="append a feature that is always 1")
    group.add_argument("--sample", metavar="N[,SEED]", help="draw N rows, of each class its share")


def _asked(options) -> str:
    """The options of the data as the query of a name; empty without any."""
    given = (options.label, options.scale, options.sample)
    if given == (None, None, None) and not (options.drop or options.constant):
        return ""
    from dlnlib.data.options import query

    return query(options.label, options.drop, options.scale, options.constant, options.sample)


def _list(options) -> tuple[str, int]:
    """Every chapter that can be read; those that cannot are named on standard error, one line
    each."""
    root, blocks, status = find_book(options.book), [], 0
    for path in pages(root):
        try:
            blocks.append(_description(parse(path, root)))
        except BadInput as err:
            status = _complain(str(err), 2)
    return "\n".join(blocks), status


def _description(chapter) -> str:
    lines = [f"{chapter.name}: {chapter.title}", f"  claims: {', '.join(chapter.claims) or 'none'}"]
    for parameter in chapter.parameters:
        words = parameter.comment
        if not words.startswith(parameter.allowed):
            words = f"{parameter.allowed}: {words}"
        lines.append(
            (f"  -p {parameter.name}={parameter.default}".ljust(28) + f"  {words}").rstrip()
        )
    return "\n".join(lines + [f"  requires {relation}" for relation in chapter.requires])


def _run(options) -> tuple[str, int]:
    given = _given(options)
    chosen = chapter(options.chapter, find_book(options.book))
    out = f"{chosen.name}-run" if options.out is None else options.out
    try:
        verdicts = run(chosen, given, out)
    except ChapterFailed as err:
        return None, _complain(str(err), 1)
    if verdicts or chosen.claims:
        return f"{table(verdicts)}\n\nwritten to {out}", exit_status(verdicts)
    return f"no verdicts: this chapter makes no claim\n\nwritten to {out}", 0


def _given(options) -> dict[str, str]:
    """The parameters of the command line, `--data` and its options among them."""
    given = {}
    for text in [*options.parameters, *([] if options.data is None else [f"data={options.data}"])]:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not (name and equals):
            raise BadParameter(f"-p {shortened(text)}: NAME=VALUE is needed, such as -p depth=4")
        if name in given:
            raise BadParameter(f"{shortened(name)} is given twice; once is needed")
        given[name] = value
    asked = _asked(options)
    if asked and not given.get("data"):
        raise BadParameter(f"{asked} is asked of no data: name them with --data NAME|FILE")
    if asked:
        from dlnlib.data.options import joined

        given["data"] = joined(given["data"], asked)
    return given


def _check(options) -> tuple[str, int]:
    from dlnlib.data.options import joined
    from dlnlib.hypotheses.page import page
    from dlnlib.hypotheses.report import check

    file = None if options.html is None else Path(options.html)
    if file is not None and not file.name:
        raise BadOutput(f"--html {options.html!r}: the name of a file is needed")
    if file is not None:
        folder = place(file.parent, [file.name])
    report = check(joined(options.data, _asked(options)))
    if file is not None:
        publish({file.name: page(report)}, folder)
    text = json.dumps(report.to_json(), indent=1, allow_nan=False) if options.json else str(report)
    return text, report.exit_status


def _ledger(options) -> tuple[str, int]:
    entries = load(options.path or find_book(options.book) / "_build" / "html")
    return f"{table(entries)}\n\n{summary(entries)}".rstrip(), exit_status(entries)


if __name__ == "__main__":
    raise SystemExit(main())
