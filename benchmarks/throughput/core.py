"""The speed and memory of the core beside ordinary training and beside Opacus.

    python -m benchmarks.throughput.core              # what is missing from this machine's table
    python -m benchmarks.throughput.core --fresh      # all of it again
    python -m benchmarks.throughput.core --minutes 8  # as many rows as fit

Writes ``results/throughput/core-<hardware>.csv``. Needs torch and numpy only; a row that needs
more (a GPU, Opacus, memory) says so in the table. Where there is a GPU its cases are measured,
otherwise those of the CPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.throughput.attempt import attempt
from benchmarks.throughput.cases import CPU, ENGINES, GPU, Case
from benchmarks.throughput.measure import Effort, Measured, baseline, measure
from benchmarks.throughput.table import (
    MEASURED,
    MISSING,
    RESULTS,
    Machine,
    Row,
    Table,
    device_here,
)

KEY = ("model", "engine", "batch", "tokens", "dtype", "compiled")
COLUMNS = (
    *KEY,
    "time_ratio",
    "memory_ratio",
    "examples_per_s",
    "time_low",
    "time_high",
    "micro_batch",
    "status",
    "reason",
)
OURS = ENGINES[:2]
"""What the core is judged by: measured first and longest."""


def effort(device: str, engine: str) -> Effort:
    """How long a row is measured: a whole table takes under ten minutes."""
    if device == "cuda":
        return Effort(pairs=10, least=5, seconds=6.0, steps=2)
    if engine in OURS:
        return Effort(pairs=15, least=5, seconds=20.0)
    return Effort(pairs=7, least=3, seconds=6.0)


def planned(device: str) -> list[tuple[Case, str]]:
    """The rows that a machine measures."""
    cases = GPU if device == "cuda" else CPU
    return [(case, engine) for case in cases for engine in case.engines]


def open_table(device: str, folder: Path = RESULTS, fresh: bool = False) -> Table:
    """The machine's table; without a GPU it has the rows of one, too, to say what is missing."""
    rows = [row_of(*row, "not measured yet") for row in planned(device)]
    if device == "cpu":
        rows += [row_of(*row, "no GPU here") for row in planned("cuda")]
    machine = Machine.here(device)
    return Table(folder / f"core-{machine.hardware}.csv", machine, KEY, COLUMNS, rows, fresh)


def row_of(case: Case, engine: str, found: Measured | str) -> Row:
    """A row with what was measured, or why it was not."""
    row = {
        "model": case.model,
        "engine": engine,
        "batch": str(case.batch),
        "tokens": str(case.tokens),
        "dtype": case.dtype,
        "compiled": str(case.compiled).lower(),
        "micro_batch": str(case.micro_batch),
    }
    if isinstance(found, str):
        row |= {"status": MISSING, "reason": found}
    else:
        row |= {
            "time_ratio": f"{found.time_ratio:.3f}",
            "time_low": f"{found.low:.3f}",
            "time_high": f"{found.high:.3f}",
            "memory_ratio": f"{found.memory_ratio:.3f}",
            "examples_per_s": f"{found.examples_per_s:.4g}",
            "status": MEASURED,
        }
    return {column: row.get(column, "") for column in COLUMNS}


def by_importance(rows: Sequence[tuple[Case, str]]) -> list[tuple[Case, str]]:
    """Our own engines first, so that a short run has what the core is judged by.

    Cases stay together within each part, because their engines share one ordinary side.
    """
    return [r for r in rows if r[1] in OURS] + [r for r in rows if r[1] not in OURS]


def try_to_measure(case: Case, engine: str, how: Effort) -> Measured | str:
    """The row, or in one line why there is none."""
    return attempt(lambda: measure(case, engine, how))


def fill(table: Table, device: str, minutes: float) -> None:
    """Measure what the table lacks until the time is up."""
    end = time.monotonic() + 60 * minutes
    for case, engine in by_importance(planned(device)):
        if table.has(row_of(case, engine, "")):
            continue
        if time.monotonic() > end:
            table.put(row_of(case, engine, "out of time"))
            continue
        found = try_to_measure(case, engine, effort(device, engine))
        table.show(table.put(row_of(case, engine, found)))
    baseline.cache_clear()


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description="Speed and memory of the DP core.")
    parser.add_argument("--fresh", action="store_true", help="measure every row again")
    parser.add_argument("--minutes", type=float, default=60.0, help="start no row after that")
    parser.add_argument("--folder", type=Path, default=RESULTS)
    options = parser.parse_args()
    device = device_here()
    table = open_table(device, options.folder, options.fresh)
    fill(table, device, options.minutes)
    print(f"\n{table.path}")


if __name__ == "__main__":
    main()
