"""The report of a sweep as one HTML page: no script, nothing fetched, every text escaped."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dlnlib.book import plots
from dlnlib.book.document import document

if TYPE_CHECKING:
    import pandas as pd

    from dlnlib.sweeps.statistics import Report

__all__ = ["page"]

DRAWN = ("rate", "constant", "conclusion")  # kinds of checks that have a figure
MOST_FIGURES = 40


def page(report: Report) -> str:
    """The whole page."""
    body = [
        f"<h1>{html.escape(report.title)}</h1>",
        f"<p>{report.runs} runs.</p>",
        _table(report.statuses),
    ]
    for heading, found in (
        ("What was measured", report.distributions),
        ("Against the parameters: means with 95 % intervals", report.means),
        ("Without a verdict", report.refusals),
    ):
        if len(found):
            body += [f"<h2>{html.escape(heading)}</h2>", _table(found)]
    figures = list(_figures(report))
    if figures:
        body += ["<h2>Pictures</h2>", *figures]
    return document(report.title, "\n".join(body))


def _table(found: pd.DataFrame) -> str:
    head = "".join(f'<th scope="col">{html.escape(str(name))}</th>' for name in found.columns)
    rows = "\n".join(
        f"<tr>{''.join(map(_cell, row))}</tr>" for row in found.itertuples(index=False)
    )
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"


def _cell(value) -> str:
    if isinstance(value, bool | str) or value is None:
        return f"<td>{html.escape('' if value is None else str(value))}</td>"
    if value != value:  # not a number
        return "<td></td>"
    return f'<td class="number">{html.escape(f"{value:.5g}")}</td>'


def _figures(report: Report) -> Iterator[str]:
    """For each check whose number varies: how it is distributed, and its mean against each
    parameter."""
    key = ["claim", "check", "kind"]
    checks = report.table[report.table["kind"].isin(DRAWN)]
    varying = checks.groupby(key, sort=False).filter(lambda rows: rows["measured"].nunique() > 1)
    for number, (names, rows) in enumerate(varying.groupby(key, sort=False)):
        if number == MOST_FIGURES:
            return
        means = report.means
        if len(means):
            means = means[(means[key] == list(names)).all(axis=1)]
        yield f"<h3>{html.escape(f'{names[0]}, {names[2]}: {names[1]}')}</h3>"
        yield _figure(rows, means)


def _figure(rows: pd.DataFrame, means: pd.DataFrame) -> str:
    axes_of = [(name, part) for name, part in means.groupby("parameter", sort=False)][:2]
    fig, axes = plots.figure(1 + len(axes_of), height=3.0)
    finite = rows["measured"][abs(rows["measured"]) < float("inf")]
    axes[0].hist(finite, bins=min(40, max(5, len(finite) // 5)))
    axes[0].set_xlabel("measured")
    axes[0].set_ylabel("runs")
    for ax, (name, part) in zip(axes[1:], axes_of, strict=True):
        values = part["value"]
        numeric = all(type(value) in (int, float) for value in values.tolist())
        at = values.astype(float) if numeric else range(len(values))
        half = ((part["high"] - part["low"]) / 2).fillna(0)
        ax.errorbar(at, part["mean"], yerr=half, fmt="o", capsize=3)
        if not numeric:
            ax.set_xticks(list(at), [str(value).replace("$", r"\$")[:20] for value in values])
        ax.set_xlabel(name)
        ax.set_ylabel("mean measured")
    seen = f"{len(finite)} measured numbers between {finite.min():.4g} and {finite.max():.4g}"
    against = "".join(f"; means against {name} with 95 % intervals" for name, _ in axes_of)
    return plots.picture(fig, alt=f"{seen}{against}.")._repr_mimebundle_()["text/html"]
