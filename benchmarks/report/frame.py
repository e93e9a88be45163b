"""Records as a table: one row per cell, the summary file, and the means over seeds."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from benchmarks.record import Record
from benchmarks.report.marks import read_by

ROW_ORDER = ("pretrained", "private", "non_private", "oracle")
"""The order of rows within a method: from no private record to all of them."""

GROUP = ["dataset", "method", "row", "epsilon_target"]
"""What one line of a comparison is; seeds within it are averaged."""

LEADING = [
    *GROUP,
    "epsilon_spent",
    "delta",
    "sampling_probability",
    "noise_multiplier",
    "steps",
]
COST = ["train_examples_per_s", "train_seconds", "sample_images_per_s", "peak_memory_mb"]
READ = "evaluation_not_private"
"""Which scores of a cell read real images that no epsilon covers, and which images."""

TRAILING = ["seed", "status", "cell", "reason", "accountant", "relation", READ]

_INTEGERS = ("steps", "n_samples", "seed")
_TEXT = ("dataset", "method", "row", "status", "cell", "reason", "accountant", "relation", READ)
CONFIDENCE = 0.95


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
    """One row per cell: what it is, what it spent, how it scored, what it cost.

    ``epsilon_target`` is 0 for the pretrained row, inf for the non-private one and empty for
    the oracle. ``n_samples`` is the fewest generated images behind any score of the cell.
    """
    ordered = sorted(records, key=sort_key)
    names = metric_names(ordered)
    columns = [*LEADING, *names, "n_samples", *COST, *TRAILING]
    table = pd.DataFrame([_row(record, names) for record in ordered], columns=columns)
    types: dict[str, Any] = dict.fromkeys(set(columns) - set(_TEXT), "float64")
    types |= dict.fromkeys(_INTEGERS, "Int64") | dict.fromkeys(_TEXT, "object")
    return table.astype(types)


def _row(record: Record, names: Sequence[str]) -> dict[str, Any]:
    privacy, scores = record.privacy, record.metrics
    values: dict[str, Any] = {name: getattr(privacy, name) for name in LEADING[3:]}
    values |= {name: scores[name].value if name in scores else None for name in names}
    values |= {name: getattr(record.cost, name) for name in COST}
    values |= {name: getattr(privacy, name) for name in ("accountant", "relation")}
    for name in ("dataset", "method", "row", "seed", "status", "cell", "reason"):
        values[name] = getattr(record, name)
    values[READ] = read_by(record)
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
    table = frame(records)
    temporary = path.with_suffix(f".tmp{os.getpid()}")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.columns)
        for values in table.itertuples(index=False):
            writer.writerow([_csv(value) for value in values])
    os.replace(temporary, path)
    return path


def _csv(value: Any) -> str:
    if value is None or value is pd.NA:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def aggregate(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, one row per dataset, method, row and target epsilon.

    For every metric and cost ``x`` there is ``x``, the mean over the cells that succeeded, and
    ``x_half``, the half-width of its 95% t-interval (empty with fewer than two seeds). The
    privacy columns keep what the cells have in common: the largest ``epsilon_spent``, and
    ``delta``, ``relation`` and ``accountant`` where all cells agree (empty where they differ).
    ``seeds`` counts the cells that succeeded, ``failed`` the others.
    """
    names = [*metric_columns(table), *COST]
    groups = table.groupby(GROUP, sort=False, dropna=False)
    rows = [_aggregate_group(group, names) for _, group in groups]
    halves = [column for name in names for column in (name, f"{name}_half")]
    shared = ["epsilon_spent", "delta", "relation", "accountant"]
    return pd.DataFrame(rows, columns=[*GROUP, *shared, "seeds", "failed", *halves])


def _aggregate_group(group: pd.DataFrame, names: Sequence[str]) -> dict[str, Any]:
    done = group[group["status"] == "ok"]
    result: dict[str, Any] = {name: group[name].iloc[0] for name in GROUP}
    result["epsilon_spent"] = done["epsilon_spent"].max() if len(done) else math.nan
    for name in ("delta", "relation", "accountant"):
        known = group[name].dropna().unique()
        result[name] = known[0] if len(known) == 1 else None
    result |= {"seeds": len(done), "failed": len(group) - len(done)}
    for name in names:
        result[name], result[f"{name}_half"] = mean_and_half_width(done[name].dropna().tolist())
    return result


def mean_and_half_width(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the half-width of its 95% t-interval; NaN where there is none."""
    n = len(values)
    if n == 0:
        return math.nan, math.nan
    mean = math.fsum(values) / n
    if n == 1 or not math.isfinite(mean):
        return mean, math.nan
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    return mean, quantile * math.sqrt(variance / n)


def select(
    records: Iterable[Record], keep: Callable[[Record], bool] = lambda record: True
) -> list[Record]:
    """The records that ``keep`` accepts, in the one order."""
    return sorted(filter(keep, records), key=sort_key)
