"""Figures as PNG bytes, made from records: the same records give the same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.record import Record
from benchmarks.report.facts import Metric, epsilon_text, label, metrics_of, number
from benchmarks.report.frame import aggregate, frame, lines, select
from benchmarks.report.marks import EXPLANATION, FLOOR_TITLE, NOT_PRIVATE

INK, MUTED, RULE, ALARM = "#1f2328", "#6b7280", "#d9dce1", "#a3261b"
MARKERS = "osD^vPX*"
STROKES = ("-", (0, (6, 2)), (0, (3, 1, 1, 1)), (0, (1, 1)))
"""For the setups of one method, which share its colour."""
DODGE = 0.07
"""Shift between curves at the same budget, so that intervals do not hide each other."""

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
def _style() -> Iterator[None]:
    with sns.axes_style("whitegrid"), rc_context(STYLE):
        yield


def palette(records: Sequence[Record]) -> dict[str, Any]:
    """One colour-blind-safe colour per method, the same in every figure of a suite."""
    methods = sorted({record.method for record in records})
    return dict(zip(methods, sns.color_palette("colorblind", len(methods)), strict=True))


def metric_figure(records: Sequence[Record], dataset: str) -> bytes | None:
    """Every metric of a dataset against epsilon, a curve per setup; None without scores.

    Points are means over seeds with their 95% t-intervals. The oracle is a dashed line in the
    colour of its method, what real images score a grey one.
    """
    mine = select(records, lambda record: record.dataset == dataset)
    metrics = metrics_of(mine)
    if not metrics:
        return None
    columns = min(len(metrics), 2)
    rows = math.ceil(len(metrics) / columns)
    with _style():
        figure = Figure(figsize=(5.8 * columns + 0.4, 4.3 * rows + 0.9), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
        means, curves = aggregate(frame(mine)), _curves(mine, palette(records))
        for ax, metric in zip(axes, metrics, strict=False):
            _draw_metric(ax, metric, means, curves)
        for ax in axes[len(metrics) :]:
            ax.set_visible(False)
        # Explained here too, as the picture may be shown without the report's footer.
        _legend(figure, axes[: len(metrics)], EXPLANATION)
        return png(figure)


@dataclass(frozen=True)
class _Curve:
    """How one setup of a method is drawn."""

    name: str
    colour: Any
    marker: str
    stroke: Any
    shift: float


def _names(records: Sequence[Record]) -> dict[tuple[str, str], str]:
    """A shown name for every method and setup."""
    return {(key.method, key.setup): label(key.method) + key.suffix for key in lines(records)}


def _curves(records: Sequence[Record], colours: dict[str, Any]) -> dict[tuple[str, str], _Curve]:
    """The curves of a dataset, by method and setup."""
    names = dict(sorted(_names(records).items(), key=lambda item: (item[0][0], item[1])))
    methods = [method for method, _ in names]
    return {
        (method, setup): _Curve(
            name=name,
            colour=colours[method],
            marker=MARKERS[place % len(MARKERS)],
            stroke=STROKES[methods[:place].count(method) % len(STROKES)],
            shift=(place - (len(names) - 1) / 2) * DODGE,
        )
        for place, ((method, setup), name) in enumerate(names.items())
    }


def _draw_metric(
    ax: Axes, metric: Metric, means: pd.DataFrame, curves: dict[tuple[str, str], _Curve]
) -> None:
    budgets = means[means["row"] != "oracle"]["epsilon_target"].dropna()
    positions = {epsilon: place for place, epsilon in enumerate(sorted(set(budgets)))}
    for (method, setup), curve in curves.items():
        mine = means[(means["method"] == method) & (means["setup"] == setup)]
        _draw_curve(ax, metric.name, mine, positions, curve)
    if metric.floor is not None:
        ax.axhline(metric.floor, color=MUTED, linewidth=1.6, zorder=1, label=FLOOR_TITLE)
    names = ["pretrained" if e == 0 else f"ε = {epsilon_text(e)}" for e in positions]
    ax.set_xticks(list(positions.values()), names)
    ax.set_xlim(-0.4, max(len(positions), 1) - 0.6)
    private = metric.reading == "private"
    ax.set_title(plot_title(metric), color=ALARM if private else INK)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.grid(False, axis="x")
    sns.despine(ax=ax, left=True)


def plot_title(metric: Metric) -> str:
    """The shown name and what is better; a mark in words begins a second line."""
    better = "nearer to 0" if metric.direction == "zero" else metric.direction
    shown = metric.shown.replace(" ", "\n", 1)
    return f"{shown}  ({better} is better)"


def _draw_curve(
    ax: Axes, name: str, means: pd.DataFrame, positions: dict[float, int], curve: _Curve
) -> None:
    # A failed row stays in as a gap: the curve does not bridge it.
    points = means[means["row"] != "oracle"].sort_values("epsilon_target")
    if points[name].notna().any():
        ax.errorbar(
            [positions[epsilon] + curve.shift for epsilon in points["epsilon_target"]],
            points[name],
            yerr=points[f"{name}_half"].fillna(0.0),
            color=curve.colour,
            marker=curve.marker,
            markersize=8,
            linestyle=curve.stroke,
            linewidth=2.2,
            elinewidth=1.6,
            capsize=4,
            markeredgecolor="white",
            label=curve.name,
        )
    for value in means[means["row"] == "oracle"][name].dropna():
        title = f"{curve.name}, {ORACLE}"
        ax.axhline(value, color=curve.colour, linewidth=1.8, linestyle=(0, (4, 3)), label=title)


def _legend(figure: Figure, axes: Sequence[Axes], title: str = "") -> None:
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            entries[name] = handle[0] if isinstance(handle, ErrorbarContainer) else handle
    # Methods first, then their oracles; the floor last, as it belongs to no method.
    names = sorted(entries, key=lambda name: (name == FLOOR_TITLE, name.endswith(ORACLE)))
    legend = figure.legend(
        [entries[name] for name in names],
        names,
        loc="outside lower center",
        ncols=min(len(names), 3),
        fontsize=13,
        title=title,
        title_fontsize=13,
    )
    legend.get_title().set_color(MUTED)


THROUGHPUT = {
    "train_examples_per_s": "Finetuning, examples per second",
    "sample_images_per_s": "Sampling, images per second",
}
KINDS = {"private": "private", "non_private": "without privacy"}


def throughput_figure(records: Sequence[Record], dataset: str) -> bytes | None:
    """Bars of finetuning and sampling rates per setup, private and not; None without rates."""
    mine = select(records, lambda record: record.dataset == dataset)
    table, names = frame(mine), _names(mine)
    table = table[table["row"].isin(KINDS)]
    shown = [name for name in THROUGHPUT if table[name].notna().any()]
    if not shown:
        return None
    shown_names = [names[key] for key in zip(table["method"], table["setup"], strict=True)]
    bars = table.assign(method=shown_names, kind=table["row"].map(KINDS))
    height = 1.5 + 0.75 * bars["method"].nunique()
    with _style():
        figure = Figure(figsize=(6 * len(shown), height + 0.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(shown), squeeze=False, sharey=True).flatten().tolist()
        for ax, name in zip(axes, shown, strict=True):
            _draw_bars(ax, name, bars)
        _legend(figure, axes)
        return png(figure)


def _draw_bars(ax: Axes, name: str, bars: pd.DataFrame) -> None:
    kinds = [kind for kind in KINDS.values() if kind in set(bars["kind"])]
    sns.barplot(
        bars,
        x=name,
        y="method",
        hue="kind",
        hue_order=kinds,
        order=list(dict.fromkeys(bars["method"])),
        palette=dict(zip(KINDS.values(), ("#3b6ea5", "#c2cfde"), strict=True)),
        saturation=1,
        errorbar=None,
        ax=ax,
    )
    for container in ax.containers:
        ax.bar_label(container, fmt=_rate, padding=5, fontsize=13)  # type: ignore[arg-type]
    if ax.legend_ is not None:
        ax.legend_.remove()
    ax.set_title(THROUGHPUT[name])
    ax.set(xlabel="", ylabel="")
    ax.margins(x=0.18)
    ax.set_xlim(left=0)
    ax.tick_params(axis="y", length=0)
    ax.set_xticks([])
    ax.grid(False)
    sns.despine(ax=ax, left=True, bottom=True)


def _rate(value: float) -> str:
    return number(value, 3) if value else ""


def png(figure: Figure) -> bytes:
    """A figure as PNG, which depends on what it shows alone."""
    buffer = io.BytesIO()
    # No software or time in the metadata: the bytes depend on the records alone.
    figure.savefig(buffer, format="png", metadata={"Software": None}, facecolor="white")
    return buffer.getvalue()
