"""The comparison of one dataset: lines, cells, and which of them is the best of its budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.record import Record
from benchmarks.report.facts import (
    INCOMPLETE,
    REPRODUCIBLE,
    Metric,
    clean,
    joined,
    label,
    metrics_of,
    number,
    plus_minus,
    row_label,
)
from benchmarks.report.frame import aggregate, frame, select

COST_TITLES = {"sample_images_per_s": "images/s", "train_seconds": "train s"}
NORMAL = 1.959964
"""The 97.5 % quantile of the normal distribution."""
OVERSPENT = 1e-3
"""Relative slack on the target, for the search that calibrates the noise."""


@dataclass(frozen=True)
class Cell:
    """One value: its text, the mean and half-width behind it, and whether it is the best."""

    text: str
    value: float = math.nan
    half: float = math.nan
    best: bool = False


@dataclass(frozen=True)
class Line:
    """One method at one budget, averaged over seeds."""

    method: str
    row: str
    epsilon: float | None
    title: str
    cells: tuple[Cell, ...]
    failed: bool
    seeds: str
    """How many seeds succeeded, or how many of them failed."""
    overlap: str = ""
    """Whether public weights behind it saw private images; empty where it is not recorded."""


@dataclass(frozen=True)
class Comparison:
    """Everything a table of one dataset shows."""

    dataset: str
    metrics: tuple[Metric, ...]
    columns: tuple[str, ...]
    """Titles of the cells of a line: the metrics, then the costs."""
    lines: tuple[Line, ...]
    floor: tuple[Cell, ...]
    """What real images score; empty if no metric has a floor."""
    failures: tuple[str, ...]

    @property
    def shows_overlap(self) -> bool:
        """True if any line says whether pretraining saw private images."""
        return any(line.overlap for line in self.lines)


def compare(records: Sequence[Record], dataset: str) -> Comparison:
    """The comparison of one dataset, from records."""
    mine = select(records, lambda record: record.dataset == dataset)
    metrics = metrics_of(mine)
    means = aggregate(frame(mine))
    best = best_cells(means, metrics)
    lines = [_line(index, row, metrics, best, mine) for index, row in means.iterrows()]
    floor = [Cell(number(metric.floor)) for metric in metrics] + [Cell("–")] * len(COST_TITLES)
    return Comparison(
        dataset=dataset,
        metrics=tuple(metrics),
        columns=(*(metric.title for metric in metrics), *COST_TITLES.values()),
        lines=tuple(lines),
        floor=tuple(floor) if any(metric.floor is not None for metric in metrics) else (),
        failures=tuple(failure(record) for record in mine if record.status == "failed"),
    )


def best_cells(means: pd.DataFrame, metrics: Sequence[Metric]) -> set[tuple[Any, str]]:
    """The best private cells, as (index, metric), among cells of the same budget only.

    A budget is a target epsilon with its delta and neighbouring relation. A line that spent
    more than its target competes with nobody, and one line alone is not the best of anything.
    Ties are all best.
    """
    private = means[(means["row"] == "private") & (means["seeds"] > 0)]
    within = private["epsilon_spent"].isna() | (
        private["epsilon_spent"] <= private["epsilon_target"] * (1 + OVERSPENT)
    )
    budgets = private[within].groupby(["epsilon_target", "delta", "relation"], dropna=False)
    found: set[tuple[Any, str]] = set()
    for _, group in budgets:
        for metric in metrics:
            scores = group[metric.name].dropna()
            if len(scores) > 1:
                costs = scores.map(metric.cost)
                top = costs.index[costs == costs.min()]
                found |= {(index, metric.name) for index in top}
    return found


def _line(
    index: Any,
    row: Any,
    metrics: Sequence[Metric],
    best: set[tuple[Any, str]],
    records: Sequence[Record],
) -> Line:
    epsilon = None if math.isnan(row["epsilon_target"]) else float(row["epsilon_target"])
    failed = row["seeds"] == 0
    mine = [record for record in records if _belongs(record, row, epsilon)]
    cells = [_cell(row, metric.name, mine, (index, metric.name) in best) for metric in metrics]
    cells += [Cell(number(row[name], 3), row[name]) for name in COST_TITLES]
    marks = f" {REPRODUCIBLE}" if any(r.privacy.reproducible_noise for r in mine) else ""
    marks += f" {INCOMPLETE}" if row["failed"] and not failed else ""
    return Line(
        method=label(row["method"]),
        row=row["row"],
        epsilon=epsilon,
        title=row_label(row["row"], epsilon) + marks,
        cells=tuple(cells),
        failed=bool(failed),
        seeds=_seeds(int(row["seeds"]), int(row["failed"])),
        overlap=joined(sorted({r.provenance.overlap for r in mine if r.provenance.overlap})),
    )


def _cell(row: Any, name: str, records: Sequence[Record], best: bool) -> Cell:
    """A score; ± is over seeds, or over samples where a single seed has it."""
    if row["seeds"] == 0:
        return Cell("failed")
    mean, half = row[name], row[f"{name}_half"]
    if math.isnan(mean) and any(name in record.not_computed for record in records):
        return Cell("not computed")
    shown = half_over_samples(records, name) if math.isnan(half) else half
    return Cell(plus_minus(mean, shown), mean, half, best)


def half_over_samples(records: Sequence[Record], name: str) -> float:
    """Half-width of the 95 % interval over samples of the one record that has the score.

    NaN where there is more than one, or its standard error is not recorded.
    """
    scores = [record.metrics[name] for record in records if name in record.metrics]
    error = scores[0].standard_error if len(scores) == 1 else None
    return math.nan if error is None else NORMAL * error


def _belongs(record: Record, row: Any, epsilon: float | None) -> bool:
    return (record.method, record.row, record.privacy.epsilon_target) == (
        row["method"],
        row["row"],
        epsilon,
    )


def _seeds(done: int, failed: int) -> str:
    return f"{failed} of {done + failed} failed" if failed else str(done)


def failure(record: Record) -> str:
    """One failed cell in one sentence."""
    where = f"{label(record.method)}, {row_label(record.row, record.privacy.epsilon_target)}"
    return f"{where}, seed {record.seed}: {clean(record.reason or 'no reason was recorded')}"
