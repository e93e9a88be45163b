"""The speed of preparing data and of scoring, beside bare Pillow and bare networks.

    python -m benchmarks.throughput.data              # what is missing from this machine's table
    python -m benchmarks.throughput.data --fresh      # all of it again, a few minutes

Writes ``results/throughput/data-<hardware>.csv``. A row that needs what is not here says so.

Exit code: 1 if the harness takes longer than a row allows, else 0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.throughput import distances, networks, photographs
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
    "turns",
    "clock",
    "note",
    "status",
    "reason",
)


def planned() -> list[Comparison]:
    """The rows of a table."""
    return [*photographs.planned(), *networks.planned(), *distances.planned()]


def open_table(device: str, folder: Path = RESULTS, fresh: bool = False) -> Table:
    """The machine's table."""
    rows = [row_of(comparison, device, "not measured yet") for comparison in planned()]
    machine = Machine.here(device)
    return Table(folder / f"data-{machine.hardware}.csv", machine, KEY, COLUMNS, rows, fresh)


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


def too_slow(comparison: Comparison, found: Compared | str) -> bool:
    """Whether the harness takes longer than it may."""
    if isinstance(found, str) or found.ratio is None or comparison.at_most is None:
        return False
    return found.ratio > comparison.at_most


def main() -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description="Speed of preparing data and of scoring.")
    parser.add_argument("--fresh", action="store_true", help="measure every row again")
    parser.add_argument("--folder", type=Path, default=RESULTS)
    options = parser.parse_args()
    device, slow = device_here(), 0
    table = open_table(device, options.folder, options.fresh)
    for comparison in planned():
        if table.has(row_of(comparison, device, "")):
            continue
        found = try_to_compare(comparison, device)
        table.show(table.put(row_of(comparison, device, found)))
        slow += too_slow(comparison, found)
    print(f"\n{table.path}" + (f"\n{slow} rows take longer than they may." if slow else ""))
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
