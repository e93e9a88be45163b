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
    label,
    metrics_of,
    number,
    plus_minus,
    row_label,
)
from benchmarks.report.frame import aggregate, frame, select

COST_TITLES = {"sample_images_per_s": "images/s", "train_seconds": "train s"}
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
                top = scores.min() if metric.direction == "lower" else scores.max()
                found |= {(index, metric.name) for index in scores.index[scores == top]}
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
    cells = [_cell(row, metric.name, failed, (index, metric.name) in best) for metric in metrics]
    cells += [Cell(number(row[name], 3), row[name]) for name in COST_TITLES]
    marks = f" {REPRODUCIBLE}" if _reproducible(records, row, epsilon) else ""
    marks += f" {INCOMPLETE}" if row["failed"] and not failed else ""
    return Line(
        method=label(row["method"]),
        row=row["row"],
        epsilon=epsilon,
        title=row_label(row["row"], epsilon) + marks,
        cells=tuple(cells),
        failed=bool(failed),
        seeds=_seeds(int(row["seeds"]), int(row["failed"])),
    )


def _cell(row: Any, name: str, failed: bool, best: bool) -> Cell:
    if failed:
        return Cell("failed")
    mean, half = row[name], row[f"{name}_half"]
    return Cell(plus_minus(mean, half), mean, half, best)


def _reproducible(records: Sequence[Record], row: Any, epsilon: float | None) -> bool:
    return any(
        record.privacy.reproducible_noise
        for record in records
        if (record.method, record.row, record.privacy.epsilon_target)
        == (row["method"], row["row"], epsilon)
    )


def _seeds(done: int, failed: int) -> str:
    return f"{failed} of {done + failed} failed" if failed else str(done)


def failure(record: Record) -> str:
    """One failed cell in one sentence."""
    where = f"{label(record.method)}, {row_label(record.row, record.privacy.epsilon_target)}"
    return f"{where}, seed {record.seed}: {clean(record.reason or 'no reason was recorded')}"
