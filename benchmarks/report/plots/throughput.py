"""How fast methods are finetuned and sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from benchmarks.record import Record
from benchmarks.report.facts import number
from benchmarks.report.frame import frame, select
from benchmarks.report.plots.plot import Plot, counted, plot_of
from benchmarks.report.plots.style import MUTED, Look, looks, panels, style, wide

RATES = {
    "train_examples_per_s": "Finetuning, examples per second",
    "sample_images_per_s": "Sampling, images per second",
}
KINDS = {"private": ("private", 1.0), "non_private": ("without privacy", 0.35)}
"""What the rows are called, and how strong the colour of the method is."""


def throughput_figure(records: Sequence[Record], dataset: str) -> Plot | None:
    """Bars of finetuning and sampling rates per setup, private and not; None without rates."""
    mine = select(records, lambda record: record.dataset == dataset)
    bars = _bars(frame(mine), looks(records, dataset))
    shown = [rate for rate in RATES if rate in set(bars["rate"])]
    if not shown:
        return None
    curves = [look for look in looks(records, dataset).values() if look.name in set(bars["name"])]
    kinds = [kind for kind in KINDS if kind in set(bars["row"])]
    height = 1.7 + 0.34 * len(kinds) * len(curves) + 0.16 * len(curves)
    with style():
        figure, axes = panels(1, len(shown), (6.2 * len(shown), height), sharey=True)
        for ax, rate in zip(axes, shown, strict=True):
            _draw(ax, rate, bars[bars["rate"] == rate], curves, kinds)
        handles = [Patch(color=MUTED, alpha=KINDS[k][1], label=KINDS[k][0]) for k in kinds]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=13)
        alt = (
            "Bars of finetuning examples per second and sampling images per second, by method, "
            "private and without privacy."
        )
        return plot_of(figure, bars, alt, _caption(bars))


def _bars(table: pd.DataFrame, curves: dict[tuple[str, str], Look]) -> pd.DataFrame:
    """What is plotted: a row per rate, setup and kind of row, where it was recorded."""
    rows = []
    for rate in RATES:
        timed = table[table["row"].isin(KINDS) & table[rate].notna()]
        groups: Any = timed.groupby(["method", "setup", "row"])
        for (method, setup, row), cells in groups:
            name, seeds = curves[method, setup].name, cells["seed"].nunique()
            rows.append([rate, name, row, len(cells), seeds, cells[rate].mean()])
    return pd.DataFrame(rows, columns=["rate", "name", "row", "cells", "seeds", "mean"])


def _draw(
    ax: Axes, rate: str, bars: pd.DataFrame, curves: Sequence[Look], kinds: Sequence[str]
) -> None:
    rates = bars.set_index(["name", "row"])["mean"]
    thickness = 0.8 / len(kinds)
    for place, curve in enumerate(curves):
        for step, kind in enumerate(kinds):
            value = rates.get((curve.name, kind), 0.0)
            at = place + (step - (len(kinds) - 1) / 2) * thickness
            bar = ax.barh(
                at, value, thickness * 0.92, color=curve.colour, alpha=KINDS[kind][1], linewidth=0
            )
            text = [number(value, 3) if value else ""]
            ax.bar_label(bar, text, padding=5, fontsize=12)
    ax.set_yticks(range(len(curves)), [curve.name for curve in curves])
    logarithmic = wide(bars["mean"])
    if logarithmic:
        ax.set_xscale("log")
        ax.set_xlabel("logarithmic")
    ax.set_title(RATES[rate])
    ax.margins(x=0.18, y=0.02)
    ax.set_xlim(left=bars["mean"].min() / 3 if logarithmic else 0)
    if not ax.yaxis_inverted():  # shared between the panels
        ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_ticks([])
    ax.xaxis.set_ticks([], minor=True)
    ax.grid(False)
    sns.despine(ax=ax, left=True, bottom=True)


def _caption(bars: pd.DataFrame) -> str:
    return (
        f"Bars are means over what each method ran ({counted(bars['cells'], 'cell')}, "
        f"{counted(bars['seeds'], 'seed')}), its budgets taken together; no intervals are drawn."
    )
