"""Records as lines and as a table: one row per cell, the summary file, the means over seeds."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from scipy import stats

from benchmarks.record import Record
from benchmarks.report.marks import read_by
from benchmarks.report.setup import Setups, evaluation
from benchmarks.written import write

ROW_ORDER = ("pretrained", "private", "non_private", "oracle")
"""The order of rows within a method: from no private record to all of them."""

GROUP = ["dataset", "method", "row", "epsilon_target", "setup"]
"""What one line of a comparison is, as a :class:`LineKey`; seeds within it are averaged."""

PRIVACY = ["epsilon_spent", "delta", "sampling_probability", "noise_multiplier", "steps"]
LEADING = [*GROUP, *PRIVACY]
SHARED = ["delta", "relation", "accountant", "evaluated"]
"""What the cells of a line should have in common, beside their setup."""
COST = ["train_examples_per_s", "train_seconds", "sample_images_per_s", "peak_memory_mb"]
READ = "evaluation_not_private"
"""Which scores of a cell read real images that no epsilon covers, and which images."""

OWN = ["dataset", "method", "row", "seed", "status", "cell", "reason"]
TRAILING = [*OWN[3:], "accountant", "relation", "evaluated", READ]

_INTEGERS = ("steps", "n_samples", "seed")
_TEXT = tuple(sorted({*GROUP, *TRAILING} - {"epsilon_target", "seed"}))
CONFIDENCE = 0.95
"""Of every interval in the report, over seeds and over samples."""


class LineKey(NamedTuple):
    """What the records of one line have in common; see :data:`GROUP`."""

    dataset: str
    method: str
    row: str
    epsilon: float | None
    setup: str
    suffix: str
    """Tells the setups of a method apart, as `` (a)``; empty where it has one."""


def line_of(record: Record, setups: Setups) -> LineKey:
    """The line that a record belongs to, among those of its data set."""
    return LineKey(
        dataset=record.dataset,
        method=record.method,
        row=record.row,
        epsilon=record.privacy.epsilon_target,
        setup=setups.of(record),
        suffix=setups.suffix(record),
    )


def lines(records: Iterable[Record]) -> dict[LineKey, list[Record]]:
    """The records by line, both in the one order; within a budget the older setup comes first.

    Args:
        records: all of the data sets concerned, see :class:`~benchmarks.report.setup.Setups`.
    """
    ordered = select(records)
    setups = Setups(ordered)
    found: dict[LineKey, list[Record]] = {}
    for record in ordered:
        found.setdefault(line_of(record, setups), []).append(record)
    keys = sorted(found, key=lambda key: (sort_key(found[key][0])[:4], key.suffix))
    return {key: found[key] for key in keys}


def sort_key(record: Record) -> tuple[Any, ...]:
    """The one order of records: dataset, method, row, rising epsilon, seed, cell."""
    epsilon = record.privacy.epsilon_target
    return (
        record.dataset,
        record.method,
        ROW_ORDER.index(record.row),
        math.inf if epsilon is None else epsilon,
        record.seed,
        record.cell,
    )


def metric_names(records: Iterable[Record]) -> list[str]:
    """Every metric, computed or not, in the order in which the sorted records first name them."""
    ordered = sorted(records, key=sort_key)
    return list(dict.fromkeys(name for r in ordered for name in [*r.metrics, *r.not_computed]))


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per cell, in the order of :func:`lines`: what it is, spent, scored and cost.

    ``epsilon_target`` is 0 for the pretrained row, inf for the non-private one and empty for
    the oracle. ``n_samples`` is the fewest generated images behind any score of the cell.
    """
    groups = lines(records)
    names = metric_names(record for cells in groups.values() for record in cells)
    columns = [*LEADING, *names, "n_samples", *COST, *TRAILING]
    rows = [_row(record, key, names) for key, cells in groups.items() for record in cells]
    table = pd.DataFrame(rows, columns=columns)
    types: dict[str, Any] = dict.fromkeys(set(columns) - set(_TEXT), "float64")
    types |= dict.fromkeys(_INTEGERS, "Int64") | dict.fromkeys(_TEXT, "object")
    return table.astype(types)


def _row(record: Record, key: LineKey, names: Sequence[str]) -> dict[str, Any]:
    privacy, scores = record.privacy, record.metrics
    values: dict[str, Any] = {"epsilon_target": key.epsilon, "setup": key.setup}
    values |= {name: getattr(privacy, name) for name in (*PRIVACY, "accountant", "relation")}
    values |= {name: scores[name].value if name in scores else None for name in names}
    values |= {name: getattr(record.cost, name) for name in COST}
    values |= {name: getattr(record, name) for name in OWN}
    values |= {"evaluated": evaluation(record), READ: read_by(record)}
    values["n_samples"] = min((score.n_samples for score in scores.values()), default=None)
    return values


def metric_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a :func:`frame` that are metrics."""
    columns = list(table.columns)
    return columns[columns.index("steps") + 1 : columns.index("n_samples")]


def write_summary(records: Iterable[Record], path: Path) -> Path:
    """Write the frame as CSV, the same bytes for the same records, and return ``path``.

    Numbers have six significant digits; an infinite epsilon is ``inf``, a missing value empty.
    """
    return write(path, csv_text(frame(records)))


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV, the same text for the same numbers; see :func:`write_summary`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    for values in table.itertuples(index=False):
        writer.writerow([_csv(value) for value in values])
    return text.getvalue()


def _csv(value: Any) -> str:
    if value is None or value is pd.NA:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def aggregate(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, one row per line, in the order of :func:`lines`.

    For every metric and cost ``x`` there is ``x``, the mean over the seeds that succeeded, and
    ``x_half``, the half-width of its 95% t-interval (empty with fewer than two seeds). The
    other columns keep what the cells have in common: the largest ``epsilon_spent``, and those of
    ``SHARED`` where all cells agree (empty where they differ). ``seeds`` counts the seeds that
    succeeded, ``failed`` those that only failed.
    """
    names = [*metric_columns(table), *COST]
    groups = table.groupby(GROUP, sort=False, dropna=False)
    rows = [_aggregate_group(group, names) for _, group in groups]
    halves = [column for name in names for column in (name, f"{name}_half")]
    columns = [*GROUP, "epsilon_spent", *SHARED, "seeds", "failed", *halves]
    return pd.DataFrame(rows, columns=columns)


def _aggregate_group(group: pd.DataFrame, names: Sequence[str]) -> dict[str, Any]:
    done = group[group["status"] == "ok"]
    result: dict[str, Any] = {name: group[name].iloc[0] for name in GROUP}
    result["epsilon_spent"] = done["epsilon_spent"].max() if len(done) else math.nan
    for name in SHARED:
        known = group[name].dropna().unique()
        result[name] = known[0] if len(known) == 1 else None
    seeds = set(done["seed"])
    result |= {"seeds": len(seeds), "failed": len(set(group["seed"]) - seeds)}
    for name in names:
        values = seed_means(zip(done["seed"], done[name], strict=True))
        result[name], result[f"{name}_half"] = mean_and_half_width(values)
    return result


def seed_means(scores: Iterable[tuple[int, float]]) -> list[float]:
    """The values of :func:`by_seed` alone."""
    return list(by_seed(scores).values())


def by_seed(scores: Iterable[tuple[int, float]]) -> dict[int, float]:
    """One value per seed, from pairs of a seed and a score; NaN counts as none.

    A seed can have more than one record, with other noise each; they are no further seeds.
    """
    found: dict[int, list[float]] = {}
    for seed, score in scores:
        if not math.isnan(score):
            found.setdefault(seed, []).append(score)
    return {seed: math.fsum(values) / len(values) for seed, values in found.items()}


def mean_and_half_width(
    values: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The mean and the half-width of its t-interval; NaN where there is none."""
    n = len(values)
    if n == 0:
        return math.nan, math.nan
    mean = math.fsum(values) / n
    if n == 1 or not math.isfinite(mean):
        return mean, math.nan
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    quantile = float(stats.t.ppf((1 + confidence) / 2, n - 1))
    return mean, quantile * math.sqrt(variance / n)


def half_width_of(standard_error: float, confidence: float = CONFIDENCE) -> float:
    """The half-width of the interval over samples, which are many."""
    return float(stats.norm.ppf((1 + confidence) / 2)) * standard_error


def select(
    records: Iterable[Record], keep: Callable[[Record], bool] = lambda record: True
) -> list[Record]:
    """The records that ``keep`` accepts, in the one order."""
    return sorted(filter(keep, records), key=sort_key)
