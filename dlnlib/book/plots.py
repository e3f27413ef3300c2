"""The book's figures: one style, colours that colour-blind readers can tell apart, alt text
required. Draws, never computes.

A chapter draws with one of the three kinds below, or on the axes of `figure()`, and ends with
`show(fig, alt=...)`.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from dataclasses import dataclass

from dlnlib.errors import BadParameter

__all__ = [
    "PALETTE",
    "STYLE",
    "Picture",
    "clock_plot",
    "decision_plane",
    "figure",
    "image_grid",
    "image_row",
    "show",
]

# Okabe and Ito's colours, yellow left out (unreadable on white); line styles differ as well, for
# print in grey.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES = ("-", (0, (6, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)))
STYLE = {
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 2.0,
    "svg.fonttype": "path",
    "svg.hashsalt": "dlnlib",
}
WIDTH, HEIGHT = 7.2, 4.0  # inches of one panel, about the width of the text column


@dataclass(frozen=True)
class Picture:
    """A drawn figure as a notebook output: inline SVG image with its alt text, and the alt text as
    plain text."""

    svg: bytes
    alt: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        data = base64.b64encode(self.svg).decode("ascii")
        alt, source = html.escape(self.alt), f"data:image/svg+xml;base64,{data}"
        image = f'<img class="dln-figure" alt="{alt}" src="{source}">'
        return {"text/html": image, "text/plain": f"[figure: {self.alt}]"}


def figure(columns: int = 1, *, height: float = HEIGHT, width: float | None = None):
    """An empty figure in the book's style and its list of axes, side by side."""
    from cycler import cycler
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**STYLE, "axes.prop_cycle": cycler(color=PALETTE)}):
        fig = Figure(figsize=(width or (WIDTH if columns == 1 else 9.6), height))
        axes = fig.subplots(1, columns, squeeze=False)[0]
    return fig, list(axes)


def show(fig, *, alt: str) -> None:
    """Display `fig` as a crisp inline image whose `alt` text says what a reader should see in it.

    Raises BadParameter when the alt text is missing or only a word or two.
    """
    from IPython.display import display

    display(picture(fig, alt=alt))


def picture(fig, *, alt: str) -> Picture:
    """`fig` drawn, with its alt text; see `show`."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    if len(alt.split()) < 4:
        raise BadParameter(
            f"alt text {alt!r}: say in a sentence what the figure shows, for those who cannot see "
            "it"
        )
    buffer = io.BytesIO()
    with rc_context(STYLE):
        # `savefig` draws everything twice
        FigureCanvasSVG(fig).print_svg(buffer, metadata={"Date": None})
    return Picture(buffer.getvalue(), " ".join(alt.split()))


def clock_plot(
    measured: Mapping,
    predicted: Mapping | None = None,
    *,
    clock: str,
    quantity: str,
    title="",
    ax=None,
):
    """Log-log curves in the right clock: `measured` and `predicted` map a label to its (x, y).

    Measured curves are coloured; the predicted one is drawn over them in black dashes. Returns the
    figure.
    """
    fig, ax = _figure_of(ax)
    for i, (label, (x, y)) in enumerate(measured.items()):
        ax.loglog(
            _array(x),
            _array(y),
            color=PALETTE[i % 6],
            linestyle=DASHES[i // 6 % 4],
            lw=2.6,
            label=label,
        )
    for i, (label, (x, y)) in enumerate((predicted or {}).items()):
        style = ((0, (4, 3)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))[i % 3]
        ax.loglog(
            _array(x), _array(y), color="black", linestyle=style, lw=1.3, label=label, zorder=3
        )
    ax.set(xlabel=clock, ylabel=quantity, title=title)
    ax.legend(frameon=False)
    return fig


def decision_plane(x, y, directions: Mapping, *, title="", ax=None):
    """Points (n, 2) of the two classes and, for each named w, the line <w, x> = 0. Returns the
    figure."""
    fig, ax = _figure_of(ax, height=4.6)
    x, y = _array(x), _array(y)
    for sign, marker, colour, label in (
        (1, "o", PALETTE[0], "y = +1"),
        (-1, "s", PALETTE[1], "y = −1"),
    ):
        ax.scatter(
            *x[y == sign].T,
            marker=marker,
            s=48,
            color=colour,
            edgecolor="white",
            label=label,
            zorder=3,
        )
    for i, (label, w) in enumerate(directions.items()):
        # only the direction is drawn: a long w would set the scale
        w = _array(w) / (abs(_array(w)).max() or 1.0)
        style = dict(
            color="black" if i == 0 else PALETTE[(i + 1) % 6],
            linestyle=DASHES[i % 4],
            lw=2.6 - 0.5 * (i % 4),
        )
        # the second point within the data: it counts for the limits of the axes
        t = 0.1 * abs(x).max() / abs(w).max()
        ax.axline((0.0, 0.0), (-t * w[1], t * w[0]), label=label, **style)
    ax.set(xlabel="first feature", ylabel="second feature", title=title)
    ax.set_aspect("equal", adjustable="box")
    ax.legend(frameon=False, loc="best")
    return fig


def image_row(images: Mapping, *, shape=(8, 8), title=""):
    """A row of titled images, each with its own symmetric blue-white-orange scale about zero.
    Returns the figure."""
    fig, axes = figure(len(images), height=2.5, width=min(9.6, 0.4 + 1.9 * len(images)))
    for ax, (label, image) in zip(axes, images.items(), strict=True):
        _image(ax, image, shape, label)
    if title:
        fig.suptitle(title, fontsize=12)
    return fig


def image_grid(rows: Mapping, *, shape=(8, 8)):
    """Rows of images: each value of `rows` maps titles to images, its key stands at the left.
    Returns the figure."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = max(len(row) for row in rows.values())
    with rc_context(STYLE):
        fig = Figure(figsize=(min(9.6, 0.6 + 1.7 * columns), 0.2 + 1.95 * len(rows)))
        axes = fig.subplots(len(rows), columns, squeeze=False)
    for line, (name, row) in zip(axes, rows.items(), strict=True):
        for ax in line[len(row) :]:
            ax.set_axis_off()
        for ax, (label, image) in zip(line, row.items(), strict=False):
            _image(ax, image, shape, label)
        line[0].set_ylabel(name)
    return fig


def _image(ax, image, shape, title):
    """One image on a symmetric blue-white-orange scale about zero."""
    from matplotlib.colors import LinearSegmentedColormap

    diverging = LinearSegmentedColormap.from_list(
        "blue-orange", [PALETTE[0], "#f7f7f7", PALETTE[1]]
    )
    image = _array(image).reshape(shape)
    top = abs(image).max() or 1.0
    ax.imshow(image, cmap=diverging, vmin=-top, vmax=top, interpolation="nearest", aspect="equal")
    ax.set_title(title, fontsize=10)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)


def _figure_of(ax, **size):
    """The figure and axes to draw on: a new one, or the one that `ax` belongs to."""
    if ax is not None:
        return ax.figure, ax
    fig, axes = figure(**size)
    return fig, axes[0]


def _array(values):
    """Lists, arrays and torch tensors (on any device) as a numpy array."""
    import numpy as np

    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
