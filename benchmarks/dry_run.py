"""What a run would do: ``python -m benchmarks.run suite=embedded dry_run=true``.

All checks are made as before a run, plans are calibrated, and nothing is trained, drawn or written
but caches. Times are those of records of the same method, row and resolution on such a device,
in proportion to the records seen and the images drawn; where there are none, the table says so.

Data and weights need not be there: what is missing is named with the way to get it, and the plans,
which follow from the configs, are shown all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from benchmarks import gpu_hours, hardware
from benchmarks.cell import images_of, make_plan
from benchmarks.config import Cell
from benchmarks.evaluation import Evaluation
from benchmarks.needs import Lack, lacking_metrics
from benchmarks.protocol import protocol_of
from benchmarks.record import Record, load
from benchmarks.report.facts import label, row_label
from benchmarks.rescoring import finished
from benchmarks.throughput.counts import read
from wavedp.dp.errors import UserError
from wavedp.dp.plan import DPPlan, Plan

NOTHING = "–"


@dataclass
class Line:
    """Cells that differ by their seed alone.

    Attributes:
        cells: all of them.
        recorded: how many of them are not run again.
        plan: None for rows that touch no private record.
        images: that each of them draws.
        seconds: that one of them takes; None where no record tells.
    """

    cells: list[Cell]
    recorded: int
    plan: Plan | None
    images: int
    seconds: float | None

    @property
    def left(self) -> int:
        """Cells that would be run."""
        return len(self.cells) - self.recorded


def show(
    grid: Sequence[Cell],
    evaluations: Mapping[str, Evaluation],
    folder: Path,
    lacks: Sequence[Lack] = (),
) -> None:
    """Print what would be run, on standard output.

    Args:
        evaluations: by data set, as they were checked; empty where something is missing.
        folder: the suite's results folder.
        lacks: what is missing.
    """
    found = list(lines(grid, evaluations, folder))
    columns = ("cells", "sigma", "q", "steps", "time")
    table = grid_table(columns, [(line.cells[0], _texts(line)) for line in found])
    console = Console(highlight=False)
    console.print(table)
    left = sum(line.left for line in found)
    known = sum(line.left * line.seconds for line in found if line.seconds is not None)
    unknown = sum(line.left for line in found if line.seconds is None)
    beside = f", and {unknown} that no record tells the time of" if unknown else ""
    console.print(
        f"\n{len(grid)} cells, {left} of them to be run: {shown_time(known)}{beside}.",
        soft_wrap=True,
    )
    console.print(f"Results: {folder}", soft_wrap=True)
    _show_hours(found, console)
    _show_lacks("Missing here, and nothing is trained without it:", lacks, console)
    unscored = lacking_metrics(grid[0].config)
    _show_lacks("Missing here; metrics that need it are not computed:", unscored, console)


def _show_hours(found: Sequence[Line], console: Console) -> None:
    """What the cells without records would take on a GPU, as far as that is known."""
    works = read()
    known = gpu_hours.speed(works)
    todo = [line for line in found if line.left and line.seconds is None]
    cells = [(line.cells[0], line.plan, line.images, line.left) for line in todo]
    usual = {cell.choice: cell for cell, *_ in cells if known.record(cell) is not None}
    usual = {choice: cell for choice, cell in usual.items() if gpu_hours.as_configured(cell)}
    cells = [entry for entry in cells if entry[0].choice in usual]
    shares = list(gpu_hours.shares(cells, known, works))
    if not shares:
        return
    table = _table(("hours on one GPU",), ("finetuning", "drawing", "memory"))
    names = {line.cells[0].choice: line.cells[0].config.method.name for line in todo}
    for share in shares:
        memory = "?" if share.memory is None else f"{share.memory:.0f} GiB"
        row = f"  {label(names[share.choice])}", _hours(share.training), _hours(share.drawing)
        table.add_row(*row, memory)
    sums = [sum(s.training for s in shares), sum(s.drawing for s in shares)]
    total = f"all: {_hours(sum(sums))}"
    table.add_row(total, *map(_hours, sums), "")
    console.print()
    console.print(table)
    console.print(known.told)
    if others := sorted(names.keys() - usual.keys()):
        console.print(f"Not in it, as nobody has measured these sizes: {', '.join(others)}.")
    console.print(
        "Memory is weights, sums and optimizer; a micro-batch comes on top. Encoding, captions "
        "and scoring are not in it."
    )


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours < 10 else f"{hours:,.0f} h"


def _show_lacks(title: str, lacks: Sequence[Lack], console: Console) -> None:
    """Two lines each; those to copy are not wrapped."""
    if lacks:
        console.print(f"\n{title}")
    for lack in lacks:
        console.print(Padding(Text(lack.what), (0, 0, 0, 2)))
        console.print(f"      {lack.remedy}", markup=False, soft_wrap=True)


def lines(
    grid: Sequence[Cell], evaluations: Mapping[str, Evaluation], folder: Path
) -> Iterator[Line]:
    """The cells of a grid, seeds together, in the order in which they are run."""
    known = _records(folder.parent, _device(grid[0]))
    groups: dict[tuple[str, str, str, float | None], list[Cell]] = {}
    for cell in grid:
        config = cell.config
        key = (config.dataset.name, config.method.name, cell.row, cell.epsilon)
        groups.setdefault(key, []).append(cell)
    for (dataset, method, row, _), cells in groups.items():
        plan = make_plan(cells[0])
        recorded = sum(_recorded(cell, folder) for cell in cells)
        record = known.get((method, row, cells[0].config.dataset.resolution))
        images = _images(cells[0], evaluations.get(dataset))
        seconds = _seconds(record, plan, images) if record else None
        yield Line(cells, recorded, plan, images, seconds)


def _device(cell: Cell) -> str | None:
    """What the grid would run on; None where this machine has no such device."""
    try:
        return hardware.describe(hardware.pick_device(cell.config.hardware.device)).device
    except UserError:
        return None


def _recorded(cell: Cell, folder: Path) -> bool:
    with suppress(UserError):  # without its weights a cell has no name, and no record
        return finished(cell, folder) is not None
    return False


def _images(cell: Cell, evaluation: Evaluation | None) -> int:
    """How many a cell draws; as declared where the data are not there."""
    if evaluation is not None:
        return images_of(cell.row, evaluation)
    config = cell.config
    return protocol_of(config.suite).count(config.suite.samples, config.dataset.evaluation_records)


def _records(results: Path, device: str | None) -> dict[tuple[str, str, int], Record]:
    """The newest record of each method, row and resolution on a device, of any suite."""
    found: dict[tuple[str, str, int], Record] = {}
    for path in sorted(results.glob("*/records/*.json")):
        try:
            record = load(path)
        except UserError:
            continue  # of another version, or damaged: the suite that it is in says so
        if record.status != "ok" or record.hardware.device != device:
            continue
        key = record.method, record.row, record.resolution
        if key not in found or found[key].provenance.created < record.provenance.created:
            found[key] = record
    return found


def _seconds(record: Record, plan: Plan | None, images: int) -> float | None:
    """What a cell takes, by what another took; None where that was not measured."""
    cost = record.cost
    drawing = cost.score_seconds or 0.0
    if cost.sample_images_per_s:
        drawing += images / cost.sample_images_per_s
    if plan is None:
        return drawing
    if not cost.train_examples_per_s:
        return None
    return drawing + plan.steps * plan.expected_batch / cost.train_examples_per_s


def grid_table(columns: Sequence[str], rows: Iterable[tuple[Cell, Sequence[str]]]) -> Table:
    """A table of a grid, by data set: what one of the cells of a line is, and the line's texts."""
    table = _table(("method", "row"), columns)
    for dataset, mine in groupby(rows, key=lambda row: row[0].config.dataset.name):
        table.add_row(f"[bold]{label(dataset)}[/bold]")
        for cell, texts in mine:
            epsilon = math.inf if cell.row == "non_private" else cell.epsilon
            name = f"  {label(cell.config.method.name)}"
            table.add_row(name, row_label(cell.row, epsilon), *texts)
    return table


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    """Without lines; names to the left, numbers to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in (*left, *right):
        table.add_column(column, justify="left" if column in left else "right")
    return table


def _texts(line: Line) -> list[str]:
    plan = line.plan
    sigma, rate = NOTHING, NOTHING
    if isinstance(plan, DPPlan):
        sigma, rate = f"{plan.noise_multiplier:.3g}", f"{plan.expected_batch / plan.records:.3g}"
    time = "?" if line.seconds is None else shown_time(line.left * line.seconds)
    return [
        f"{line.left} of {len(line.cells)}",
        sigma,
        rate,
        str(plan.steps) if plan else NOTHING,
        time if line.left else "recorded",
    ]


def shown_time(seconds: float) -> str:
    """Seconds, minutes or hours, for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
