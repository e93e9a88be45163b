"""Where in the wavelet spectrum samples differ from real images, band by band."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from benchmarks.record import Record
from benchmarks.report.comparison import most_rivals
from benchmarks.report.facts import Metric, joined, metrics_of, row_label
from benchmarks.report.frame import aggregate, frame, select
from benchmarks.report.marks import EXPLANATION, FLOOR_TITLE
from benchmarks.report.plots.plot import Plot, over_seeds, plot_of
from benchmarks.report.plots.style import (
    MUTED,
    Look,
    legend,
    looks,
    panels,
    plot_title,
    style,
    title_colour,
)

BAND = re.compile(r"(?P<quantity>\w+)_(?P<band>ll|d(?P<level>\d+))")
"""As ``benchmarks.metrics.spectral`` names its parts: ``energy_ll``, ``energy_d3`` to ``d1``."""
DODGE = 0.06


def band_figure(records: Sequence[Record], dataset: str) -> Plot | None:
    """Every quantity that was taken of each band, coarse to fine; None where none was.

    A point per setup and band, all at the budget and on the prompts that most methods share.
    """
    mine = select(records, lambda record: record.dataset == dataset)
    families = _families(metrics_of(mine))
    if not families:
        return None
    means = aggregate(frame(mine))
    names = [metric.name for bands in families.values() for metric in bands.values()]
    group, curves = most_rivals(means[means[names].notna().all(axis=1)]), looks(records, dataset)
    if group is None:
        return None
    points = _points(group, families, curves)
    budget = row_label("private", group["epsilon_target"].iloc[0])
    with style():
        figure, axes = panels(1, len(families), (6.0 * len(families) + 0.4, 4.9))
        for ax, (quantity, bands) in zip(axes, families.items(), strict=True):
            _draw(ax, points[points["quantity"] == quantity], bands, list(curves.values()))
        legend(figure, axes, EXPLANATION)
        caption = f"At {budget}. {over_seeds(points['seeds'])}. Grey: what real images score. "
        return plot_of(figure, points, _alt(families, budget), f"{caption}{EXPLANATION}.")


def _families(metrics: Sequence[Metric]) -> dict[str, dict[str, Metric]]:
    """The metrics of bands by quantity, then by band from LL to the finest details."""
    found: dict[str, list[tuple[float, str, Metric]]] = {}
    for metric in metrics:
        if match := BAND.fullmatch(metric.name):
            level = float(match["level"] or math.inf)
            found.setdefault(match["quantity"], []).append((-level, match["band"], metric))
    return {
        quantity: {band: metric for _, band, metric in sorted(bands, key=lambda item: item[0])}
        for quantity, bands in found.items()
    }


def _points(
    group: pd.DataFrame,
    families: Mapping[str, Mapping[str, Metric]],
    curves: dict[tuple[str, str], Look],
) -> pd.DataFrame:
    """What is plotted: a row per quantity, setup and band, and one per floor."""
    columns = ["quantity", "band", "name", "epsilon", "seeds", "mean", "half_width"]
    rows: list[list[object]] = []
    for quantity, bands in families.items():
        for band, metric in bands.items():
            for _, row in group.iterrows():
                name = curves[row["method"], row["setup"]].name
                scores = [row[metric.name], row[f"{metric.name}_half"]]
                rows.append([quantity, band, name, row["epsilon_target"], row["seeds"], *scores])
            if metric.floor is not None:
                rows.append([quantity, band, FLOOR_TITLE, math.nan, 0, metric.floor, math.nan])
    return pd.DataFrame(rows, columns=columns)


def _draw(
    ax: Axes, points: pd.DataFrame, bands: Mapping[str, Metric], curves: Sequence[Look]
) -> None:
    for place, curve in enumerate(curves):
        mine = points[points["name"] == curve.name]
        if len(mine):
            shift = (place - (len(curves) - 1) / 2) * DODGE
            ax.errorbar(
                [number + shift for number in range(len(mine))],
                mine["mean"],
                yerr=mine["half_width"].fillna(0.0),
                linestyle=curve.stroke,
                linewidth=2.0,
                **curve.point,
            )
    floor = points[points["name"] == FLOOR_TITLE]
    if len(floor):
        ax.plot(range(len(floor)), floor["mean"], color=MUTED, linewidth=1.6, label=FLOOR_TITLE)
    ax.set_xticks(range(len(bands)), [band.upper() for band in bands])
    ax.set_xlabel("band, coarse to fine")
    metric = next(iter(bands.values()))
    ax.set_title(_without_band(plot_title(metric)), color=title_colour(metric))
    ax.yaxis.set_major_locator(MaxNLocator(6))
    ax.grid(False, axis="x")
    sns.despine(ax=ax, left=True)


def _without_band(shown: str) -> str:
    """``spectral_fd†`` of ``spectral_fd_d3†``: the name begins a text, the mark stays."""
    return BAND.sub(r"\g<quantity>", shown, count=1)


def _alt(families: Mapping[str, Mapping[str, Metric]], budget: str) -> str:
    names = [_without_band(next(iter(bands.values())).shown) for bands in families.values()]
    return (
        f"Line plots of {joined(names)} against the wavelet band, by method, at {budget}. "
        "The comparison has the numbers."
    )
