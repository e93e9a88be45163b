"""Every metric against epsilon."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from benchmarks.record import Record
from benchmarks.report.facts import Metric, epsilon_text, metrics_of
from benchmarks.report.frame import aggregate, frame, select
from benchmarks.report.marks import EXPLANATION, FLOOR_TITLE
from benchmarks.report.plots.plot import Plot, over_seeds, plot_of
from benchmarks.report.plots.style import (
    MUTED,
    ORACLE,
    Look,
    legend,
    looks,
    panels,
    plot_title,
    style,
    title_colour,
)

DODGE, SPREAD = 0.07, 0.5
"""Shift between curves at the same budget, so that intervals do not hide each other; of all."""


def metric_figure(records: Sequence[Record], dataset: str) -> Plot | None:
    """Every metric of a dataset against epsilon, a curve per setup; None without scores.

    Points are means over seeds with their 95% t-intervals. The oracle is a dashed line in the
    colour of its method, what real images score a grey one.
    """
    mine = select(records, lambda record: record.dataset == dataset)
    metrics = metrics_of(mine)
    if not metrics:
        return None
    curves, means = looks(records, dataset), aggregate(frame(mine))
    points = _points(means, metrics, curves)
    columns = min(len(metrics), 2)
    rows = math.ceil(len(metrics) / columns)
    with style():
        figure, axes = panels(rows, columns, (5.8 * columns + 0.4, 4.3 * rows + 0.2))
        for ax, metric in zip(axes, metrics, strict=False):
            _draw_metric(ax, metric, points[points["metric"] == metric.name], curves)
        for ax in axes[len(metrics) :]:
            ax.set_visible(False)
        # Explained here too, as the picture may be shown without the report's footer.
        legend(figure, axes[: len(metrics)], EXPLANATION)
        return plot_of(figure, points, _alt(metrics), _caption(points))


def _points(
    means: pd.DataFrame, metrics: Sequence[Metric], curves: dict[tuple[str, str], Look]
) -> pd.DataFrame:
    """What is plotted: a row per metric, setup and budget, and one per floor."""
    columns = ["metric", "name", "row", "epsilon", "seeds", "mean", "half_width"]
    rows: list[list[object]] = []
    for metric in metrics:
        for (method, setup), curve in curves.items():
            mine = means[(means["method"] == method) & (means["setup"] == setup)]
            rows += [
                [metric.name, curve.name, *values]
                for values in mine[
                    ["row", "epsilon_target", "seeds", metric.name, f"{metric.name}_half"]
                ].itertuples(index=False)
            ]
        if metric.floor is not None:
            rows.append([metric.name, FLOOR_TITLE, "floor", math.nan, 0, metric.floor, math.nan])
    return pd.DataFrame(rows, columns=columns)


def _draw_metric(
    ax: Axes, metric: Metric, points: pd.DataFrame, curves: dict[tuple[str, str], Look]
) -> None:
    positions = {e: place for place, e in enumerate(sorted(set(points["epsilon"].dropna())))}
    dodge = min(DODGE, SPREAD / len(curves))
    for place, curve in enumerate(curves.values()):
        shift = (place - (len(curves) - 1) / 2) * dodge
        _draw_curve(ax, points[points["name"] == curve.name], positions, curve, shift)
    if metric.floor is not None:
        ax.axhline(metric.floor, color=MUTED, linewidth=1.6, zorder=1, label=FLOOR_TITLE)
    names = ["pretrained" if e == 0 else f"ε = {epsilon_text(e)}" for e in positions]
    ax.set_xticks(list(positions.values()), names)
    ax.set_xlim(-0.4, max(len(positions), 1) - 0.6)
    ax.set_title(plot_title(metric), color=title_colour(metric))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.grid(False, axis="x")
    sns.despine(ax=ax, left=True)


def _draw_curve(
    ax: Axes, points: pd.DataFrame, positions: dict[float, int], curve: Look, shift: float
) -> None:
    # A failed row stays in as a gap: the curve does not bridge it.
    budgets = points[points["row"] != "oracle"].sort_values("epsilon", kind="stable")
    if budgets["mean"].notna().any():
        ax.errorbar(
            [positions[epsilon] + shift for epsilon in budgets["epsilon"]],
            budgets["mean"],
            yerr=budgets["half_width"].fillna(0.0),
            linestyle=curve.stroke,
            linewidth=2.0,
            **curve.point,
        )
    for value in points[points["row"] == "oracle"]["mean"].dropna():
        title = f"{curve.name}, {ORACLE}"
        ax.axhline(value, color=curve.colour, linewidth=1.8, linestyle=(0, (4, 3)), label=title)


def _alt(metrics: Sequence[Metric]) -> str:
    names = ", ".join(metric.shown for metric in metrics)
    return f"Line plots of {names} against epsilon, by method. The comparison has the numbers."


def _caption(points: pd.DataFrame) -> str:
    parts = [over_seeds(points["seeds"])]
    if (points["row"] == "oracle").any():
        parts.append("Dashed: the oracle of each method")
    if (points["row"] == "floor").any():
        parts.append("Grey: what real images score")
    return ". ".join([*parts, EXPLANATION]) + "."
