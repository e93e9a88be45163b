"""A table of comparisons: which rows, in which file, and the command that fills it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.throughput.attempt import attempt
from benchmarks.throughput.comparison import Compared, Comparison, compare
from benchmarks.throughput.table import (
    MEASURED,
    MISSING,
    RESULTS,
    Machine,
    Row,
    Table,
    device_here,
)

KEY = ("work", "case", "samples")
COLUMNS = (
    *KEY,
    "samples_per_s",
    "seconds",
    "bare_seconds",
    "time_ratio",
    "at_most",
    "time_low",
    "time_high",
    "peak_mb",
    "turns",
    "clock",
    "note",
    "status",
    "reason",
)


@dataclass(frozen=True)
class Sheet:
    """Attributes:
    name: of the file, ``results/throughput/<name>-<hardware>.csv``.
    planned: its rows.
    """

    name: str
    planned: Callable[[], Sequence[Comparison]]

    def open(self, device: str, folder: Path = RESULTS, fresh: bool = False) -> Table:
        """The machine's table."""
        rows = [row_of(comparison, device, "not measured yet") for comparison in self.planned()]
        machine = Machine.here(device)
        path = folder / f"{self.name}-{machine.hardware}.csv"
        return Table(path, machine, KEY, COLUMNS, rows, fresh)

    def main(self, description: str, arguments: Sequence[str] | None = None) -> int:
        """Measure what is missing from this machine's table; 1 if a row is slower than it may.

        Args:
            arguments: of the command line; None takes those of this process.
        """
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--fresh", action="store_true", help="measure every row again")
        parser.add_argument("--folder", type=Path, default=RESULTS)
        options = parser.parse_args(arguments)
        device = device_here()
        table = self.open(device, options.folder, options.fresh)
        for comparison in self.planned():
            if not table.has(row_of(comparison, device, "")):
                found = try_to_compare(comparison, device)
                table.show(table.put(row_of(comparison, device, found)))
        slow = sum(too_slow(row) for row in table.rows)
        print(f"\n{table.path}" + (f"\n{slow} rows take longer than they may." if slow else ""))
        return 1 if slow else 0


def row_of(comparison: Comparison, device: str, found: Compared | str) -> Row:
    """A row with what was measured, or why it was not."""
    row = {
        "work": comparison.work,
        "case": comparison.case,
        "samples": str(comparison.samples),
        "at_most": _figure(comparison.at_most),
        "turns": str(comparison.turns),
        "clock": "wall" if device == "cuda" else "processor",
    }
    if isinstance(found, str):
        row |= {"status": MISSING, "reason": found}
    else:
        row |= {
            "seconds": f"{found.seconds:.4g}",
            "bare_seconds": "" if found.bare_seconds is None else f"{found.bare_seconds:.4g}",
            "time_ratio": _figure(found.ratio),
            "time_low": _figure(found.low),
            "time_high": _figure(found.high),
            "peak_mb": "" if found.peak is None else f"{found.peak / 2**20:.4g}",
            "note": found.note,
            "status": MEASURED,
        }
        # A score is of all samples at once: so many per second would mean nothing.
        if comparison.work != "score":
            row["samples_per_s"] = f"{comparison.samples / found.seconds:.4g}"
    return {column: row.get(column, "") for column in COLUMNS}


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def try_to_compare(comparison: Comparison, device: str) -> Compared | str:
    """The row, or in one line why there is none."""
    with TemporaryDirectory(prefix="wavedp-throughput-") as folder:
        return attempt(lambda: compare(comparison, Path(folder), device))


def too_slow(row: Row) -> bool:
    """Whether it takes longer, beside the bare work, than it may."""
    limited = row["time_ratio"] and row["at_most"]
    return bool(limited) and float(row["time_ratio"]) > float(row["at_most"])
