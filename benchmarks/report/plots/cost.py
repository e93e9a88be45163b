"""What quality costs: the first metric against the seconds of a private training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from benchmarks.record import Record
from benchmarks.report.comparison import most_rivals
from benchmarks.report.facts import Metric, joined, metrics_of, row_label
from benchmarks.report.frame import aggregate, frame, lines, select
from benchmarks.report.marks import EXPLANATION
from benchmarks.report.plots.plot import Plot, over_seeds, plot_of
from benchmarks.report.plots.style import (
    MUTED,
    Look,
    legend,
    looks,
    panels,
    plain,
    plot_title,
    style,
    title_colour,
    wide,
)

SECONDS = "train_seconds"
FRONT = "Pareto front"


def cost_figure(records: Sequence[Record], dataset: str) -> Plot | None:
    """The first metric against seconds of training, a point per setup, and the Pareto front.

    All points have one budget and one set of prompts: those that most methods share, of equals the
    largest epsilon. None where fewer than two setups have a score and a time.
    """
    mine = select(records, lambda record: record.dataset == dataset)
    metrics = metrics_of(mine)
    if not metrics:
        return None
    metric, means = metrics[0], aggregate(frame(mine))
    timed = means[means[metric.name].notna() & (means[SECONDS] > 0)]
    group, curves = most_rivals(timed), looks(records, dataset)
    if group is None or len(group) < 2:
        return None
    points = _points(group, metric, curves)
    budget = row_label("private", points["epsilon"].iloc[0])
    with style():
        figure, axes = panels(1, 1, (9.0, 5.4))
        _draw(axes[0], points, metric, list(curves.values()))
        axes[0].set_title(f"{plot_title(metric)}, {budget}", color=title_colour(metric))
        legend(figure, axes, EXPLANATION)
        alt = (
            f"Scatter plot of {metric.shown} against seconds of private training at {budget}, one "
            "point per method. The comparison has the numbers."
        )
        missing = _missing(mine, curves, points)
        shown = f"{metric.shown} at {budget}. {over_seeds(points['seeds'])}"
        front = f"Dashed: the {FRONT}, whose points no other beats in both"
        return plot_of(figure, points, alt, ". ".join([shown, front, *missing, EXPLANATION]) + ".")


def _points(
    group: pd.DataFrame, metric: Metric, curves: dict[tuple[str, str], Look]
) -> pd.DataFrame:
    """What is plotted, the fastest first."""
    names = [curves[key].name for key in zip(group["method"], group["setup"], strict=True)]
    points = pd.DataFrame(
        {
            "name": names,
            "epsilon": group["epsilon_target"].to_numpy(),
            "seeds": group["seeds"].to_numpy(),
            "seconds": group[SECONDS].to_numpy(),
            "seconds_half_width": group[f"{SECONDS}_half"].to_numpy(),
            "metric": metric.name,
            "score": group[metric.name].to_numpy(),
            "score_half_width": group[f"{metric.name}_half"].to_numpy(),
        }
    ).sort_values(["seconds", "name"], ignore_index=True)
    return points.assign(front=pareto(points["seconds"], points["score"].map(metric.cost)))


def pareto(seconds: Sequence[float] | pd.Series, costs: Sequence[float] | pd.Series) -> list[bool]:
    """Whether no other point is as good in both (lower is better) and better in one."""
    found = list(zip(seconds, costs, strict=True))
    return [
        not any(x <= mine[0] and y <= mine[1] and (x, y) != mine for x, y in found)
        for mine in found
    ]


def _draw(ax: Axes, points: pd.DataFrame, metric: Metric, curves: Sequence[Look]) -> None:
    logarithmic = wide(points["score"])
    rows: dict[str, Any] = {row["name"]: row for _, row in points.iterrows()}
    for curve in curves:
        if (point := rows.get(curve.name)) is not None:
            ax.errorbar(
                [point["seconds"]],
                [point["score"]],
                xerr=_interval(point["seconds"], point["seconds_half_width"], True),
                yerr=_interval(point["score"], point["score_half_width"], logarithmic),
                linestyle="none",
                **curve.point,
            )
    ax.set_xscale("log")
    ax.set_xlabel("seconds of private training, logarithmic")
    if logarithmic:
        ax.set_yscale("log")
        plain(ax.yaxis)
        ax.set_ylabel("logarithmic")
    else:
        ax.yaxis.set_major_locator(MaxNLocator(6))
    ax.margins(x=0.08, y=0.12)
    plain(ax.xaxis)
    _draw_front(ax, points[points["front"]], metric)
    sns.despine(ax=ax, left=True)


def _interval(value: float, half: float, logarithmic: bool) -> list[list[float]]:
    """Reach below and above; a logarithmic axis has no place for what would pass zero."""
    half = 0.0 if math.isnan(half) else half
    return [[min(half, 0.9 * value) if logarithmic else half], [half]]


def _draw_front(ax: Axes, front: pd.DataFrame, metric: Metric) -> None:
    """The border of what is reached: steps, as a method needs its time for any of its score."""
    right, (bottom, top) = ax.get_xlim()[1], ax.get_ylim()
    worst = bottom if metric.better(top, bottom) else top
    ax.plot(
        [front["seconds"].iloc[0], *front["seconds"], right],
        [worst, *front["score"], front["score"].iloc[-1]],
        drawstyle="steps-post",
        color=MUTED,
        linewidth=1.6,
        linestyle=(0, (4, 3)),
        zorder=1,
        label=FRONT,
    )
    ax.set_xlim(right=right)
    ax.set_ylim(bottom, top)


def _missing(
    records: Sequence[Record], curves: dict[tuple[str, str], Look], points: pd.DataFrame
) -> list[str]:
    """The private setups that have no point."""
    setups = [(key.method, key.setup) for key in lines(records) if key.row == "private"]
    names = {curves[setup].name for setup in setups} - set(points["name"])
    if not names:
        return []
    return [
        f"Without a score and a time at this budget and on these prompts: {joined(sorted(names))}"
    ]
