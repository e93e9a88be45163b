"""How far a grid is: ``python -m benchmarks.watch suite=embedded``, beside the runs of that suite.

    python -m benchmarks.watch suite=embedded          # until all cells are done, or Ctrl-C
    python -m benchmarks.watch suite=embedded --once   # as it is now

The overrides are those of the run. It reads the results folder alone, from any process and any
machine that sees it: records say what is done and failed, locks what runs, ledgers how many steps
were charged. It writes nothing and holds nobody up. Times are those of finished records of the same
data set, method and row; where there is none, it says so.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from benchmarks.cell import identity_of, ledger_of
from benchmarks.claims import held
from benchmarks.config import Cell, cells
from benchmarks.console import run_command
from benchmarks.dry_run import NOTHING, grid_table, shown_time
from benchmarks.record import Record, load
from benchmarks.run import datasets_of, results_folder

PAUSE = 2.0
"""Seconds between two looks."""
ONCE = "--once"


@dataclass
class Line:
    """Cells that differ by their seed alone, as they are now.

    Attributes:
        cell: the first of them.
        done, failed, running, waiting: how many are; a cell that runs again after it failed runs.
        charged: of those that run, the steps that their ledgers hold.
        seconds: that a finished one took; None where no record tells.
    """

    cell: Cell
    done: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    charged: list[int] = field(default_factory=list)
    seconds: float | None = None

    @property
    def steps(self) -> int | None:
        """Of a cell's finetuning; None for rows without."""
        if self.cell.row not in ("private", "non_private"):
            return None
        return int(self.cell.method.finetuning.steps)

    @property
    def work(self) -> float | None:
        """Seconds of one process that are left; None where no record tells."""
        if not self.running + self.waiting:
            return 0.0
        if self.seconds is None:
            return None
        part = sum(count / self.steps for count in self.charged) if self.steps else 0.0
        return self.seconds * (self.waiting + self.running - min(part, self.running))


def main(arguments: list[str]) -> int:
    """Show how far the grid is; returns 1 if a cell failed, else 0.

    Raises:
        UserError: as :func:`benchmarks.config.cells`, or a record cannot be read.
    """
    grid = cells([word for word in arguments if word != ONCE])
    watched = Watched(grid, results_folder(grid[0], datasets_of(grid)))
    console = Console(highlight=False)
    if ONCE in arguments:
        found = watched.lines()
        console.print(shown(found, watched.folder))
    else:
        found = _follow(watched, console)
    return 1 if any(line.failed for line in found) else 0


def _follow(watched: Watched, console: Console) -> list[Line]:
    """Look again and again until nothing is left to be done, or Ctrl-C."""
    found = watched.lines()
    # Here nothing has to come to a safe place first.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with (
        suppress(KeyboardInterrupt),
        Live(shown(found, watched.folder), console=console, auto_refresh=False) as live,
    ):
        while any(line.running or line.waiting for line in found):
            time.sleep(PAUSE)
            found = watched.lines()
            live.update(shown(found, watched.folder), refresh=True)
    return found


class Watched:
    """A grid and what its results folder says of it.

    Args:
        grid: its cells.
        folder: the suite's results folder, which need not exist yet.
    """

    def __init__(self, grid: Sequence[Cell], folder: Path) -> None:
        self.folder = folder
        self._cells = [(cell, identity_of(cell)) for cell in grid]
        self._read: dict[Path, tuple[tuple[int, int], Record]] = {}

    def lines(self) -> list[Line]:
        """The grid now, seeds together, in the order in which its cells are run."""
        groups: dict[tuple[str, str, str, float | None], Line] = {}
        took: dict[tuple[str, str, str], list[float]] = {}
        for cell, name in self._cells:
            config = cell.config
            kind = (config.dataset.name, config.method.name, cell.row)
            line = groups.setdefault((*kind, cell.epsilon), Line(cell))
            # Looked for first: a cell whose record is saved in between counts as done.
            runs = held(self.folder, name)
            record = self._record(name)
            if record is not None and record.status == "ok":
                line.done += 1
                if (seconds := seconds_of(record)) is not None:
                    took.setdefault(kind, []).append(seconds)
            elif runs:
                line.running += 1
                line.charged.append(charged(ledger_of(self.folder, name)))
            elif record is not None:
                line.failed += 1
            else:
                line.waiting += 1
        for (dataset, method, row, _), line in groups.items():
            known = took.get((dataset, method, row))
            line.seconds = median(known) if known else None
        return list(groups.values())

    def _record(self, name: str) -> Record | None:
        """The cell's record, read again only when its file is another one."""
        path = self.folder / "records" / f"{name}.json"
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        mark = found.st_mtime_ns, found.st_ino
        if path not in self._read or self._read[path][0] != mark:
            self._read[path] = mark, load(path)
        return self._read[path][1]


def seconds_of(record: Record) -> float | None:
    """What a finished cell took to train, draw and score; None where that was not measured."""
    cost, privacy = record.cost, record.privacy
    training = cost.train_seconds or 0.0
    if privacy.steps and cost.train_seconds is None:  # it was interrupted
        if not (cost.train_examples_per_s and privacy.expected_batch):
            return None
        training = privacy.steps * privacy.expected_batch / cost.train_examples_per_s
    return training + (cost.sample_seconds or 0.0) + (cost.score_seconds or 0.0)


def charged(ledger: Path) -> int:
    """Queries in a ledger: its lines but for the first, which states the budget."""
    try:
        return max(0, ledger.read_bytes().count(b"\n") - 1)
    except FileNotFoundError:
        return 0


def shown(lines: Sequence[Line], folder: Path) -> RenderableType:
    """A table of the lines, and the sums below it."""
    columns = ("done", "running", "failed", "to do", "left")
    table = grid_table(columns, [(line.cell, _texts(line)) for line in lines])
    return Group(table, Text(f"\n{summary(lines)}\nResults: {folder}"))


def _texts(line: Line) -> list[str]:
    total = line.done + line.running + line.failed + line.waiting
    running = str(line.running or NOTHING)
    if line.steps and line.charged:
        running += f" (step {'; '.join(map(str, line.charged))} of {line.steps})"
    left = shown_time(line.work) if line.work else NOTHING
    return [
        f"{line.done} of {total}",
        running,
        f"[red]{line.failed}[/red]" if line.failed else NOTHING,
        str(line.waiting or NOTHING),
        "?" if line.work is None else left,
    ]


def summary(lines: Sequence[Line]) -> str:
    """The sums of all lines, in a sentence."""

    def count(what: Callable[[Line], int]) -> int:
        return sum(what(line) for line in lines)

    done, failed = count(lambda line: line.done), count(lambda line: line.failed)
    running, waiting = count(lambda line: line.running), count(lambda line: line.waiting)
    total = done + failed + running + waiting
    said = f"{done} of {total} cells done, {running} running, {failed} failed, {waiting} to do."
    if not running + waiting:
        return said
    known = sum(line.work or 0.0 for line in lines)
    unknown = count(lambda line: line.running + line.waiting if line.work is None else 0)
    beside = f", and {unknown} cells that no record tells the time of" if unknown else ""
    by = f" by {running} processes" if running > 1 else ""
    return f"{said} Time left{by}: {shown_time(known / max(1, running))}{beside}."


if __name__ == "__main__":
    run_command(main)
