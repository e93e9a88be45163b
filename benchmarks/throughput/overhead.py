"""What a cell takes beside its work: start, checks, loading, records and the report.

    python -m benchmarks.throughput.overhead           # what is missing from this machine's table
    python -m benchmarks.throughput.overhead --fresh   # all of it again, a few minutes

Writes ``results/throughput/overhead-<hardware>.csv``. A turn is one private cell of the suite
quick, run by ``python -m benchmarks.run`` in a process of its own, with the data, accounting and
statistics of an earlier one in the cache. ``start`` is the time from the start of the process until
its first step is charged, that step included. ``rest`` is the time of the process less training,
sampling and scoring, as its record has them, and ``of_ten_minutes`` what part it is of a cell of
ten minutes, whose work is longer and whose rest is the same. Both are seen from outside, to 10 ms.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.record import load
from benchmarks.throughput.attempt import attempt
from benchmarks.throughput.table import (
    MEASURED,
    MISSING,
    RESULTS,
    Machine,
    Row,
    Table,
    device_here,
)
from benchmarks.watch import charged, seconds_of
from wavedp.dp.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CASE = "dp_wavelet, toyfaces"
CELL = (
    *("suite=quick", "method=dp_wavelet", "dataset=toyfaces", "suite.grid.row=[private]"),
    *("privacy.epsilon=[10]", "seed=0"),
)
TURNS = 5
LOOK = 0.01
"""Seconds between two looks at the ledger."""
TEN_MINUTES = 600.0
KEY = ("work", "case")
COLUMNS = (*KEY, "seconds", "low", "high", "of_ten_minutes", "turns", "status", "reason")


@dataclass(frozen=True)
class Turn:
    """One cell.

    Attributes:
        start: seconds until its first step was charged.
        rest: seconds beside training, sampling and scoring.
    """

    start: float
    rest: float


def turn(cell: Sequence[str], folder: Path, cache: Path) -> Turn:
    """Run a cell in a process of its own.

    Args:
        cell: overrides that name one cell, which is trained.
        folder: for its results; empty.
        cache: of the user, and of the accounting.

    Raises:
        UserError: it failed.
    """
    places = [f"results_dir={folder}", f"cache_dir={cache}"]
    command = [sys.executable, "-m", "benchmarks.run", *cell, *places]
    environment = os.environ | {"WAVEDP_CACHE": str(cache / "wavedp")}
    folder.mkdir(parents=True)
    start: float | None = None
    with (folder / "said.txt").open("w+b") as said:
        begun = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said)
        while process.poll() is None:
            if start is None and any(charged(path) for path in folder.glob("*/ledgers/*.jsonl")):
                start = time.perf_counter() - begun
            time.sleep(LOOK)
        whole = time.perf_counter() - begun
        said.seek(0)
        text = said.read().decode(errors="replace")
    records = [load(path) for path in folder.glob("*/records/*.json")]
    work = seconds_of(records[0]) if len(records) == 1 else None
    if process.returncode or start is None or work is None:
        last = text.strip().rpartition("\n")[2]  # an error is one line
        raise UserError(f"benchmarks.run ended with code {process.returncode}: {last}")
    return Turn(start, whole - work)


def measured(cell: Sequence[str] = CELL, turns: int = TURNS) -> list[Turn]:
    """Turns of a cell, after one that fills the cache and is not counted."""
    with TemporaryDirectory(prefix="wavedp-overhead-") as folder:
        place = Path(folder)
        found = [turn(cell, place / str(n), place / "cache") for n in range(turns + 1)]
    return found[1:]


def row_of(work: str, found: Sequence[Turn] | str) -> Row:
    """A row with what was measured, or why it was not.

    Args:
        work: ``start`` or ``rest``.
    """
    row = {"work": work, "case": CASE, "turns": str(TURNS)}
    if isinstance(found, str):
        row |= {"status": MISSING, "reason": found}
    else:
        seconds = [getattr(one, work) for one in found]
        row |= {
            "seconds": f"{median(seconds):.2f}",
            "low": f"{min(seconds):.2f}",
            "high": f"{max(seconds):.2f}",
            "turns": str(len(seconds)),
            "status": MEASURED,
        }
        if work == "rest":
            row["of_ten_minutes"] = f"{median(seconds) / TEN_MINUTES:.4f}"
    return {column: row.get(column, "") for column in COLUMNS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what this machine's table lacks; 1 if that failed.

    Args:
        arguments: of the command line; None takes those of this process.
    """
    parser = argparse.ArgumentParser(description="What a cell takes beside its work.")
    parser.add_argument("--fresh", action="store_true", help="measure again")
    parser.add_argument("--folder", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    planned = [row_of(work, "not measured yet") for work in ("start", "rest")]
    machine = Machine.here(device_here())
    path = options.folder / f"overhead-{machine.hardware}.csv"
    table = Table(path, machine, KEY, COLUMNS, planned, options.fresh)
    if not all(table.has(row) for row in planned):
        found = attempt(measured)
        for row in planned:
            table.show(table.put(row_of(row["work"], found)))
    print(f"\n{table.path}")
    return 0 if all(table.has(row) for row in planned) else 1


if __name__ == "__main__":
    sys.exit(main())
