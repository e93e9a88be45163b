"""Intervals over samples within a seed, and over seeds by bootstrap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from benchmarks.bootstrap import interval_over_seeds
from benchmarks.record import Record
from benchmarks.report.comparison import NORMAL
from benchmarks.report.facts import Metric, metrics_of, number, row_label
from benchmarks.report.frame import select


@dataclass(frozen=True)
class Interval:
    """One metric of one line of a comparison; texts are ``low to high``."""

    dataset: str
    method: str
    title: str
    metric: str
    """As it is shown, with its mark."""
    mean: float
    samples: str
    seeds: str
    count: int


def intervals(records: Sequence[Record]) -> list[Interval]:
    """Every score with a recorded standard error; empty for older records.

    Over samples: 95 % around the mean, with the mean of the seeds' standard errors. Over seeds:
    see :func:`benchmarks.bootstrap.interval_over_seeds`; a dash for one seed.
    """
    found = []
    for _, group in groupby(select(records), key=_line):
        cells = list(group)
        found += [
            _interval(cells, metric) for metric in metrics_of(cells) if _errors(cells, metric)
        ]
    return found


def _line(record: Record) -> tuple[str, str, str, str]:
    return record.dataset, record.method, record.row, str(record.privacy.epsilon_target)


def _errors(records: Sequence[Record], metric: Metric) -> list[float]:
    scores = [r.metrics[metric.name] for r in records if metric.name in r.metrics]
    return [score.standard_error for score in scores if score.standard_error is not None]


def _interval(records: Sequence[Record], metric: Metric) -> Interval:
    values = [r.metrics[metric.name].value for r in records if metric.name in r.metrics]
    errors = _errors(records, metric)
    mean = math.fsum(values) / len(values)
    half = NORMAL * math.fsum(errors) / len(errors)
    over_seeds = "–"
    if len(values) > 1 and len(errors) == len(values):
        over_seeds = _text(*interval_over_seeds(values, errors))
    first = records[0]
    return Interval(
        dataset=first.dataset,
        method=first.method,
        title=row_label(first.row, first.privacy.epsilon_target),
        metric=metric.shown,
        mean=mean,
        samples=_text(mean - half, mean + half),
        seeds=over_seeds,
        count=len(values),
    )


def _text(low: float, high: float) -> str:
    return f"{number(low)} to {number(high)}"
