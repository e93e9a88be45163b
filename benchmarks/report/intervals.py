"""Intervals over samples within a seed, and over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.record import Record
from benchmarks.report.facts import Metric, line_label, metrics_of, number
from benchmarks.report.frame import (
    LineKey,
    half_width_of,
    lines,
    mean_and_half_width,
    seed_means,
)


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
    the t-interval of the tables; a dash for one seed.
    """
    return [
        _interval(key, cells, metric)
        for key, cells in lines(records).items()
        for metric in metrics_of(cells)
        if _errors(cells, metric)
    ]


def _errors(records: Sequence[Record], metric: Metric) -> list[float]:
    scores = [r.metrics[metric.name] for r in records if metric.name in r.metrics]
    return [score.standard_error for score in scores if score.standard_error is not None]


def _interval(key: LineKey, records: Sequence[Record], metric: Metric) -> Interval:
    scored = [(r.seed, r.metrics[metric.name].value) for r in records if metric.name in r.metrics]
    values = seed_means(scored)
    errors = _errors(records, metric)
    mean, half = mean_and_half_width(values)
    return Interval(
        dataset=key.dataset,
        method=key.method,
        title=line_label(key),
        metric=metric.shown,
        mean=mean,
        samples=_text(mean, half_width_of(math.fsum(errors) / len(errors))),
        seeds=_text(mean, half),
        count=len(values),
    )


def _text(mean: float, half: float) -> str:
    return "–" if math.isnan(half) else f"{number(mean - half)} to {number(mean + half)}"
