"""A report drawn: figures in the book's style, and one page of HTML."""

from __future__ import annotations

import html
import math

from dlnlib.book import plots
from dlnlib.book.document import document

__all__ = ["figures", "page", "short", "told"]

MOST = 6  # curves in a panel
LAYERS = ("norm", "stable rank", "rank-one share")
PAIRS = ("balance", "balance drift", "misalignment", "commutator")


# --- figures --------------------------------------------------------------------------------------


def figures(report) -> list[plots.Picture]:
    """Norm and stable rank of layers; drift of balances and misalignment of pairs; margins: those
    for which there are numbers, against the step."""
    pictures = []
    names = [layer["name"] for layer in report.layers]
    for what, wholes in ((LAYERS[:2], names), (PAIRS[1:3], report.pairs)):
        panels = {part: _curves(report, part, wholes) for part in what}
        panels = {part: curves for part, curves in panels.items() if curves}
        if panels:
            pictures.append(_picture(report, panels))
    margins = {
        name: {name: report.series[name]}
        for name in ("margin", "distance to the maximum margin")
        if name in report.series and not all(map(math.isnan, report.series[name]))
    }
    return pictures + ([_picture(report, margins)] if margins else [])


def _curves(report, part: str, names: list[str]) -> dict[str, list[float]]:
    """Curves with numbers in them; of many, some at equal distances, the last one included."""
    found = {name: report.series.get(f"{part} of {name}", []) for name in names}
    found = {k: v for k, v in found.items() if any(x > 0 for x in v)}
    if len(found) > MOST:
        kept = {round(k * (len(found) - 1) / (MOST - 1)) for k in range(MOST)}
        found = {k: v for i, (k, v) in enumerate(found.items()) if i in kept}
    return found


def _picture(report, panels: dict) -> plots.Picture:
    fig, axes = plots.figure(len(panels))
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for i, (name, values) in enumerate(curves.items()):
            style = {"color": plots.PALETTE[i % 6], "linestyle": plots.DASHES[i % 4]}
            drawn = [v if v else math.nan for v in values]  # a drift of 0 has no logarithm
            ax.plot(report.steps, drawn, label=_shortened(name), **style)
        if title in ("balance drift", "misalignment", "distance to the maximum margin"):
            ax.set_yscale("log")
        ax.set_xscale("symlog", linthresh=1)
        ax.set(xlabel="step", title=title)
        ax.set_xlim(0, max(1, report.steps[-1]))
        ax.legend()
    parts = "; ".join(f"{title} of {', '.join(curves)}" for title, curves in panels.items())
    return plots.picture(fig, alt=f"Recorded against the training step: {parts}.")


def _shortened(name: str, most: int = 34) -> str:
    name = name.replace("$", r"\$")  # no mathematics of a user's
    return name if len(name) <= most else f"...{name[-most:]}"


# --- the page -------------------------------------------------------------------------------------


def page(report) -> str:
    """The report as one HTML page: no script, no other file, every text escaped."""
    title = f"{report.model}, recorded"
    pictures = "".join(p._repr_mimebundle_()["text/html"] for p in figures(report))
    names = [layer["name"] for layer in report.layers]
    body = [
        f"<h1>{html.escape(title)}</h1>",
        _paragraph(str(report).splitlines()[0]),
        pictures,
        _table(report, "layer", names, LAYERS),
        _table(report, "pair", report.pairs, PAIRS),
        _totals(report),
        _claims(report),
        _list("Neighbours that are no pair", report.apart),
        _list("Events", [f"step {step}: {text}" for step, text in report.events]),
    ]
    return document(title, "\n".join(body))


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _table(report, head: str, names: list[str], columns: tuple[str, ...]) -> str:
    """First and last values."""
    if not names:
        return _paragraph(f"No {head} was found.")
    lines = ["".join(f"<th>{html.escape(word)}</th>" for word in (head, *columns))]
    for name in names:
        cells = [f"<td>{html.escape(name)}</td>"]
        for what in columns:
            values = report.series.get(f"{what} of {name}", [math.nan])
            cells.append(f'<td class="number">{short(values[0])} → {short(values[-1])}</td>')
        lines.append("".join(cells))
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _totals(report) -> str:
    parts = (("Maximum margin", report.maximum), ("Conserved", report.conserved))
    return "".join(_paragraph(f"{what}: {told(found)}.") for what, found in parts)


def _claims(report) -> str:
    rows = [
        f'<tr class="{"yes" if said.speaks else "no"}"><td>{html.escape(said.claim)}</td>'
        f"<td>{'speaks' if said.speaks else 'does not'}</td>"
        f"<td>{html.escape(', '.join(said.about))}</td>"
        f"<td>{html.escape(said.title)}: {html.escape(said.why)}</td></tr>"
        for said in report.said
    ]
    if not rows:
        return _paragraph("No claim of the ledger is about these layers.")
    return "<h2>Which theorem speaks of which layer</h2><table>" + "".join(rows) + "</table>"


def _list(title: str, lines: list[str]) -> str:
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<h2>{title}</h2><ul>{items}</ul>" if items else ""


def told(found: dict) -> str:
    """What was found, or why it was not, in words."""
    if "skipped" in found:
        return f"not computed ({found['skipped']})"
    return ", ".join(f"{k} {short(v)}" for k, v in found.items())


def short(value) -> str:
    """A number to three digits, "-" for none."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3g}"
    return str(value)
