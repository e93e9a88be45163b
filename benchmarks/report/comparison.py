"""The comparison of one dataset: lines, cells, and which of them is the best of its budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.record import Record
from benchmarks.report.facts import (
    FEWER,
    INCOMPLETE,
    REPRODUCIBLE,
    Metric,
    clean,
    joined,
    label,
    line_label,
    metrics_of,
    number,
    plus_minus,
)
from benchmarks.report.frame import LineKey, aggregate, frame, half_width_of, lines, select

COST_TITLES = {"sample_images_per_s": "images/s", "train_seconds": "train s"}
OVERSPENT = 1e-3
"""Relative slack on the target, for the search that calibrates the noise."""


@dataclass(frozen=True)
class Cell:
    """One value: its text, the mean and half-widths behind it, and whether it is the best."""

    text: str
    value: float = math.nan
    half: float = math.nan
    """Over seeds."""
    over_samples: float = math.nan
    """Half-width over samples, where a single record has the score."""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """One setup of one method at one budget, averaged over seeds."""

    method: str
    name: str
    """The method, with what tells its setups apart."""
    row: str
    epsilon: float | None
    title: str
    cells: tuple[Cell, ...]
    failed: bool
    seeds: str
    """How many seeds succeeded, or how many of them failed."""
    rivals: int | None = None
    """Which group of :func:`rivals` it competes in; None if it competes with nobody."""
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
    group = {index: place for place, found in enumerate(rivals(means)) for index in found.index}
    groups = lines(mine)
    shown = [
        _line(key, cells, row, metrics, {name for i, name in best if i == index}, group.get(index))
        for (key, cells), (index, row) in zip(groups.items(), means.iterrows(), strict=True)
    ]
    floor = [Cell(number(metric.floor)) for metric in metrics] + [Cell("–")] * len(COST_TITLES)
    return Comparison(
        dataset=dataset,
        metrics=tuple(metrics),
        columns=(*(metric.title for metric in metrics), *COST_TITLES.values()),
        lines=tuple(shown),
        floor=tuple(floor) if any(metric.floor is not None for metric in metrics) else (),
        failures=tuple(
            failure(record, key)
            for key, cells in groups.items()
            for record in cells
            if record.status == "failed"
        ),
    )


def best_cells(means: pd.DataFrame, metrics: Sequence[Metric]) -> set[tuple[Any, str]]:
    """The best private cells, as (index, metric), each among its rivals.

    One line alone is not the best of anything. Ties are all best.
    """
    found: set[tuple[Any, str]] = set()
    for group in rivals(means):
        for metric in metrics:
            scores = group[metric.name].dropna()
            if len(scores) > 1:
                costs = scores.map(metric.cost)
                top = costs.index[costs == costs.min()]
                found |= {(index, metric.name) for index in top}
    return found


def rivals(means: pd.DataFrame) -> list[pd.DataFrame]:
    """Private lines by what they must share to be compared: the budget, and the prompts.

    A budget is a target epsilon with its delta and neighbouring relation. A line that spent
    more than its target is in no group.
    """
    private = means[(means["row"] == "private") & (means["seeds"] > 0)]
    within = private["epsilon_spent"].isna() | (
        private["epsilon_spent"] <= private["epsilon_target"] * (1 + OVERSPENT)
    )
    keys = ["epsilon_target", "delta", "relation", "evaluated"]
    return [group for _, group in private[within].groupby(keys, dropna=False)]


def most_rivals(means: pd.DataFrame) -> pd.DataFrame | None:
    """The group of :func:`rivals` with the most methods; of equals that of the largest epsilon."""
    groups = rivals(means)
    order = [(group["method"].nunique(), group["epsilon_target"].iloc[0]) for group in groups]
    return groups[order.index(max(order))] if groups else None


def _line(
    key: LineKey,
    records: Sequence[Record],
    row: Any,
    metrics: Sequence[Metric],
    best: set[str],
    group: int | None,
) -> Line:
    failed = row["seeds"] == 0
    cells = [_cell(row, metric.name, records, metric.name in best) for metric in metrics]
    cells += [Cell(number(row[name], 3), row[name]) for name in COST_TITLES]
    marks = f" {REPRODUCIBLE}" if any(r.privacy.reproducible_noise for r in records) else ""
    marks += f" {INCOMPLETE}" if row["failed"] and not failed else ""
    return Line(
        method=label(key.method),
        name=label(key.method) + key.suffix,
        row=key.row,
        epsilon=key.epsilon,
        title=line_label(key) + marks,
        cells=tuple(cells),
        failed=bool(failed),
        seeds=_seeds(int(row["seeds"]), int(row["failed"])),
        rivals=group,
        overlap=joined(sorted({r.provenance.overlap for r in records if r.provenance.overlap})),
    )


def _cell(row: Any, name: str, records: Sequence[Record], best: bool) -> Cell:
    """A score; ± is over seeds, or over samples where a single record has it."""
    if row["seeds"] == 0:
        return Cell("failed")
    mean, half = row[name], row[f"{name}_half"]
    if math.isnan(mean) and any(name in record.not_computed for record in records):
        return Cell("not computed")
    over_samples = half_over_samples(records, name)
    text = plus_minus(mean, over_samples if math.isnan(half) else half)
    mark = f" {FEWER}" if fewer(records, name) else ""
    return Cell(text + mark, mean, half, over_samples, best)


def fewer(records: Sequence[Record], name: str) -> bool:
    """True if some seeds of a line have the score and others succeeded without it."""
    having = {record.seed for record in records if name in record.metrics}
    return bool(having) and having < {r.seed for r in records if r.status == "ok"}


def half_over_samples(records: Sequence[Record], name: str) -> float:
    """Half-width of the 95 % interval over samples of the one record that has the score.

    NaN where there is more than one, or its standard error is not recorded.
    """
    scores = [record.metrics[name] for record in records if name in record.metrics]
    error = scores[0].standard_error if len(scores) == 1 else None
    return math.nan if error is None else half_width_of(error)


def _seeds(done: int, failed: int) -> str:
    return f"{failed} of {done + failed} failed" if failed else str(done)


def failure(record: Record, key: LineKey) -> str:
    """One failed cell in one sentence."""
    where = f"{label(key.method)}, {line_label(key)}"
    return f"{where}, seed {record.seed}: {clean(record.reason or 'no reason was recorded')}"
