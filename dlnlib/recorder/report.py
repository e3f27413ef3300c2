"""What a recorder has seen, as plain data: a table, JSON, figures, a page."""

from __future__ import annotations

import json
import math
import textwrap
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from dlnlib import measure
from dlnlib.book.publish import publish
from dlnlib.errors import DlnError
from dlnlib.recorder.keeping import plain
from dlnlib.recorder.page import figures, page, short, told
from dlnlib.recorder.running import as_function
from dlnlib.recorder.speaking import Said, speaking_of
from dlnlib.theory.margin import max_margin

__all__ = ["Report", "MOST_NUMBERS"]

MOST_NUMBERS = 1_000_000  # of the data, up to which the maximum margin is computed in a report
CLOSE_ENOUGH = 1.3  # rows for a count: parameters over outputs, with this room


@dataclass(frozen=True)
class Report:
    """What was recorded of a model; `print` shows a table, a notebook a page.

    `series` maps a name, such as "norm of fc1", to its values at `steps` (NaN where there is none).
    `said` are the claims of the ledger that are, and are not, about these layers. `conserved` is
    the count, or says why there is none; `maximum` the same of the maximum margin. `share` is the
    part of the loop's time that recording took.
    """

    model: str
    parameters: int
    steps: list[int]
    series: dict[str, list[float]]
    layers: list[dict]
    pairs: list[str]
    runs: list[list[str]]
    apart: list[str]
    said: list[Said]
    events: list[tuple[int, str]]
    conserved: dict = field(default_factory=dict)
    maximum: dict = field(default_factory=dict)
    share: float = 0.0

    @classmethod
    def of(cls, recorder, count: bool = True) -> Report:
        """The report of a `Recorder`; see `Recorder.report`."""
        records, found, model = recorder.records, recorder.found, recorder.model
        names = dict.fromkeys(k for record in records for k in record if k != "step")
        series = {k: [record.get(k, math.nan) for record in records] for k in names}
        maximum, distances = _maximum(recorder)
        series |= distances
        total = recorder._time()
        return cls(
            type(model).__name__,
            sum(p.numel() for p in model.parameters()),
            [record["step"] for record in records],
            series,
            [asdict(layer) for layer in found.layers],
            [pair.name for pair in found.pairs],
            [list(run) for run in found.runs],
            list(found.apart),
            speaking_of(found, recorder.optimizer),
            list(recorder.events),
            _counted(recorder) if count else {"skipped": "not asked for"},
            maximum,
            recorder.spent / total if total else 0.0,
        )

    def to_json(self) -> str:
        """All of it as JSON; what is not finite is null."""
        data = asdict(self)
        data["series"] = {
            k: list(plain(dict(enumerate(v))).values()) for k, v in data["series"].items()
        }
        for part in ("conserved", "maximum"):
            data[part] = {k: _finite(v) for k, v in data[part].items()}
        return json.dumps(data, indent=1, allow_nan=False) + "\n"

    def figures(self) -> list:
        """The book's figures of it, as pictures with alt text."""
        return figures(self)

    def page(self) -> str:
        """One HTML page that needs no other file; every name of the model is escaped."""
        return page(self)

    def write(self, folder: str | Path) -> None:
        """report.html and report.json in this folder, both or none; raises BadOutput."""
        publish(
            {"report.html": self.page(), "report.json": self.to_json()}, Path(folder).absolute()
        )

    def __str__(self) -> str:
        return "\n".join(part for line in _lines(self) for part in _wrapped(line))

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {"text/plain": str(self)}


def _finite(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- what a report computes -----------------------------------------------------------------------


def _maximum(recorder) -> tuple[dict, dict[str, list[float]]]:
    """The maximum margin of the data, and the distance of the recorded predictors from it."""
    if not recorder.predictors:
        return {"skipped": "not one run of linear layers with one output and no bias"}, {}
    if recorder.data is None:
        return {"skipped": "no data: give data=(x, y)"}, {}
    x, y = (part.detach().cpu().double() for part in recorder.data)
    if x.numel() > MOST_NUMBERS:
        return {"skipped": f"{x.numel():,} numbers of data, at most {MOST_NUMBERS:,}"}, {}
    z = torch.where(y.reshape(-1, 1) > 0, 1.0, -1.0) * x.flatten(1)
    try:
        best = max_margin(z)
    except DlnError as err:
        return {"skipped": str(err)}, {}
    distances, shares = [], []
    for record in recorder.records:
        w = recorder.predictors.get(record["step"])
        seen = w is not None and bool(w.norm() > 0)
        distances.append(measure.direction_error(w, best.direction).item() if seen else math.nan)
        shares.append(measure.margin(w, z).item() / best.margin if seen else math.nan)
    named = {"distance to the maximum margin": distances, "share of the maximum margin": shares}
    return {"margin": best.margin, "support vectors": int(best.support.sum())}, named


def _counted(recorder) -> dict:
    """How many quantities the flow conserves, and what two recorded steps moved of them."""
    if not recorder.moves:
        many = sum(p.numel() for p in recorder.model.parameters() if p.requires_grad)
        return {
            "skipped": f"{many:,} parameters that train: 2,000 at most are counted, with a step"
        }
    if recorder.inputs is None:
        return {"skipped": "the model was not called with one tensor"}
    steps = sorted(recorder.moves)
    try:
        counts = {t: _count(recorder, recorder.moves[t]) for t in sorted({steps[0], steps[-1]})}
    except Exception as err:  # whatever a user's model may raise
        return {"skipped": f"{type(err).__name__}: {(str(err).splitlines() or [''])[0]}"}
    first, _ = counts[steps[0]]
    inputs = len(_enough(recorder, recorder.moves[steps[0]][0]))
    said = {"quantities": first.number, "parameters": first.parameters}
    said |= {"inputs": inputs, "clear": first.clear}
    for t, (_, across) in counts.items():
        said[f"part of step {t + 1} across"] = across
    return said


def _enough(recorder, theta) -> torch.Tensor:
    """As many inputs as tell all parameters apart, with some room, or all that there are."""
    x = recorder.inputs.cpu()
    outputs = as_function(recorder.model, x[:1])(theta.cpu()).numel()
    return x[: math.ceil(CLOSE_ENOUGH * len(theta) / outputs) + 8]


def _count(recorder, move) -> tuple[measure.Conserved, float]:
    before, after = (theta.cpu() for theta in move)
    x = _enough(recorder, before)
    counted = measure.count_conserved(as_function(recorder.model, x), before)
    return counted, measure.across_conserved(after - before, counted)


# --- as text --------------------------------------------------------------------------------------


def _lines(report: Report) -> list[str]:
    steps, share = report.steps, report.share
    lines = [
        f"{report.model}: {report.parameters:,} parameters, {len(steps)} records of steps "
        f"{steps[0]} to {steps[-1]}, {100 * share:.1f} % of the loop's time"
    ]
    if not report.layers:
        lines.append("no linear layer and no convolution was found: only norms are recorded")
    lines += _columns(
        report,
        "layer",
        [layer["name"] for layer in report.layers],
        (("norm", "norm"), ("stable rank", "stable rank"), ("rank-one share", "1 - s1^2/||W||^2")),
    )
    lines += _columns(
        report,
        "pair",
        report.pairs,
        (
            ("balance", "balance"),
            ("balance drift", "its drift"),
            ("misalignment", "misalignment"),
            ("commutator", "commutator"),
        ),
    )
    others = [k for k in report.series if " of " not in k.replace(" of the ", " ")]
    for name in others:
        first, last = report.series[name][0], report.series[name][-1]
        lines.append(f"{name}: {short(first)} -> {short(last)}")
    for what, found in (("maximum margin", report.maximum), ("conserved", report.conserved)):
        lines.append(f"{what}: {told(found)}")
    for said in report.said:
        verb = "speaks of" if said.speaks else "does not speak of"
        lines.append(f"{said.claim} {verb} {_listed(said.about)}: {said.why}")
    lines += [f"not a pair: {line}" for line in report.apart]
    return lines + [f"step {step}: {text}" for step, text in report.events]


def _wrapped(line: str) -> list[str]:
    """Sentences at 100 columns; rows of a table are left as they are."""
    if "  " in line.strip():
        return [line]
    return textwrap.wrap(line, 100, subsequent_indent="    ", break_long_words=False) or [line]


def _columns(report: Report, head: str, names: list[str], columns) -> list[str]:
    """A table of first and last values, a row a layer or pair; nothing for no rows."""
    if not names:
        return []
    width = max(len(head), *map(len, names))
    lines = [f"{head:{width}}  " + "  ".join(f"{title:>20}" for _, title in columns)]
    for name in names:
        cells = []
        for what, _ in columns:
            values = report.series.get(f"{what} of {name}", [math.nan])
            cells.append(f"{short(values[0])} -> {short(values[-1])}")
        lines.append(f"{name:{width}}  " + "  ".join(f"{cell:>20}" for cell in cells))
    return lines


def _listed(names: tuple[str, ...], most: int = 4) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
