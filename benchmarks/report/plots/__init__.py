"""Figures of a report, made from records: the same records give the same bytes.

One file per figure. Each is a function of the records of a suite and the name of a dataset, and
gives a :class:`~benchmarks.report.plots.plot.Plot`, or None where there is nothing to show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.record import Record
from benchmarks.report.plots.bands import band_figure
from benchmarks.report.plots.cost import cost_figure
from benchmarks.report.plots.epsilon import metric_figure
from benchmarks.report.plots.plot import Plot
from benchmarks.report.plots.throughput import throughput_figure
from benchmarks.report.plots.training import training_figure

__all__ = ["Plot", "plots_of"]

FIGURES: dict[str, Callable[[Sequence[Record], str], Plot | None]] = {
    "metrics": metric_figure,
    "cost": cost_figure,
    "bands": band_figure,
    "throughput": throughput_figure,
    "training": training_figure,
}
"""By the names under which they are written."""


def plots_of(records: Sequence[Record], dataset: str) -> dict[str, Plot]:
    """Every figure that there is something to show in, by its name in :data:`FIGURES`."""
    made = {name: figure(records, dataset) for name, figure in FIGURES.items()}
    return {name: plot for name, plot in made.items() if plot is not None}
