"""How figures look: one type, one palette, and one colour and marker per method."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.record import Record
from benchmarks.report.facts import Metric, label
from benchmarks.report.frame import lines, select
from benchmarks.report.marks import NOT_PRIVATE

INK, MUTED, RULE, ALARM = "#1f2328", "#6b7280", "#d9dce1", "#a3261b"
COLOURS = (
    *("#0173b2", "#de8f05", "#029e73", "#c8452d", "#cc78bc"),
    *("#7a4a1e", "#56b4e9", "#4b2e83", "#8a9a17", "#3d3d3d"),
)
"""Ten that colour-blind readers tell apart with the markers, dark enough on white."""
MARKERS = "osD^vX<P>p"
STROKES = ("-", (0, (6, 2)), (0, (3, 1, 1, 1)), (0, (1, 1)))
"""For the setups of one method, which share its colour and marker."""

LEGEND_COLUMNS, LEGEND_ROW = 3, 0.27
"""The height of a row in inches."""
WIDE = 30.0
"""Largest over smallest value from which an axis is logarithmic."""
STEPS = ((WIDE, (1.0, 2.0, 3.0, 5.0)), (WIDE**2, (1.0, 3.0)), (math.inf, (1.0,)))
"""What is written on a logarithmic axis between powers of ten, by how far it reaches."""

ORACLE = f"oracle{NOT_PRIVATE}"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 14,
    "axes.titlesize": 15,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "grid.color": "#eceef1",
    "legend.frameon": False,
    "figure.constrained_layout.h_pad": 0.14,
    "figure.constrained_layout.w_pad": 0.14,
    "figure.dpi": 144,
}


@contextmanager
def style() -> Iterator[None]:
    """Everything drawn in the block looks like the rest of the report."""
    with sns.axes_style("whitegrid"), rc_context(STYLE):
        yield


def panels(rows: int, columns: int, size: tuple[float, float], **shared: Any) -> Any:
    """A figure of ``size`` inches, and its axes from left to right and from above."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **shared).flatten().tolist()


@dataclass(frozen=True)
class Look:
    """How one setup of a method is drawn in every figure of a suite."""

    name: str
    colour: Any
    marker: str
    stroke: Any
    first: bool
    """False for further setups of a method: their markers are hollow."""

    @property
    def point(self) -> dict[str, Any]:
        """Arguments of ``errorbar`` for a point with its intervals."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "markersize": 9,
            "markeredgewidth": 0.8 if self.first else 1.6,
            "markerfacecolor": self.colour if self.first else "white",
            "markeredgecolor": "white" if self.first else self.colour,
            "elinewidth": 1.6,
            "capsize": 4,
            "label": self.name,
        }


def looks(records: Sequence[Record], dataset: str) -> dict[tuple[str, str], Look]:
    """The looks of a dataset by method and setup, sorted.

    Args:
        records: all of the suite, as colours and markers are given to its methods in turn.
    """
    methods = sorted({record.method for record in records})
    mine = lines(select(records, lambda record: record.dataset == dataset))
    names = {(key.method, key.setup): label(key.method) + key.suffix for key in mine}
    found: dict[tuple[str, str], Look] = {}
    for (method, setup), name in sorted(names.items(), key=lambda item: (item[0][0], item[1])):
        place, before = methods.index(method), sum(other == method for other, _ in found)
        found[method, setup] = Look(
            name=name,
            colour=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            stroke=STROKES[before % len(STROKES)],
            first=before == 0,
        )
    return found


def wide(values: Iterable[float]) -> bool:
    """True for positive numbers of which the largest is so far off that small ones vanish."""
    known = [value for value in values if not math.isnan(value)]
    return bool(known) and min(known) > 0 and max(known) > WIDE * min(known)


def plain(axis: Axis) -> None:
    """Numbers instead of powers on a logarithmic axis."""
    low, high = axis.get_view_interval()
    between = next(steps for reach, steps in STEPS if high <= reach * low)
    axis.set_major_locator(LogLocator(subs=between))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())


def plot_title(metric: Metric) -> str:
    """The shown name and what is better; a mark in words begins a second line."""
    better = "nearer to 0" if metric.direction == "zero" else metric.direction
    shown = metric.shown.replace(" ", "\n", 1)
    return f"{shown}  ({better} is better)"


def title_colour(metric: Metric) -> str:
    """Of :func:`plot_title`: what reads private records stands out."""
    return ALARM if metric.reading == "private" else INK


def legend(figure: Figure, axes: Sequence[Axes], title: str = "") -> None:
    """One legend below all panels, for which the figure grows.

    Methods come first, then their oracles and other lines.
    """
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            entries[name] = handle
    points = {name for name, handle in entries.items() if isinstance(handle, ErrorbarContainer)}
    entries |= {name: entries[name][0] for name in points}
    names = sorted(entries, key=lambda name: (name not in points, not name.endswith(ORACLE)))
    rows = math.ceil(len(names) / LEGEND_COLUMNS)
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * (rows + bool(title)))
    found = figure.legend(
        [entries[name] for name in names],
        names,
        loc="outside lower center",
        ncols=min(len(names), LEGEND_COLUMNS),
        fontsize=13,
        title=title,
        title_fontsize=13,
    )
    found.get_title().set_color(MUTED)
