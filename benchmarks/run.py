"""Run a suite: ``python -m benchmarks.run suite=quick``.

Everything that can be wrong is checked before the first cell starts. A cell that fails is
recorded as failed and the others go on; a cell that is already recorded is not run again.
"""

from __future__ import annotations

import json
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from benchmarks import hardware
from benchmarks.cell import (
    STRIP,
    checkpoints_of,
    failed_record,
    make_generator,
    make_plan,
    run_cell,
    save_strip,
)
from benchmarks.config import Cell, cells, make
from benchmarks.console import console, run_command, track
from benchmarks.protocol import metrics_of, protocol_of
from benchmarks.record import load, save
from benchmarks.report import make_report
from benchmarks.scorer import Scorer, check_metrics
from benchmarks.weights import digests
from wavedp.data.schema import Dataset
from wavedp.dp.errors import UserError


def main(overrides: list[str]) -> int:
    """Run the suite that the Hydra overrides describe; returns the exit code."""
    grid = cells(overrides)
    config = grid[0].config
    if config.hardware.threads:
        torch.set_num_threads(config.hardware.threads)
    datasets = check(grid)
    folder = results_folder(grid[0], datasets)
    start = time.perf_counter()
    failures = sum(_run_dataset(grid, name, dataset, folder) for name, dataset in datasets.items())
    make_report(folder, console)
    console.print(
        f"{len(grid)} cells, {failures} failed, {time.perf_counter() - start:.0f} s. "
        f"Report: {folder / 'report.html'}"
    )
    return 1 if failures else 0


def check(grid: list[Cell]) -> dict[str, Dataset]:
    """Everything that a cell needs, before any cell runs.

    Returns:
        The data sets by name.

    Raises:
        UserError: the first thing that is missing or does not fit.
    """
    datasets: dict[str, Dataset] = {}
    config = grid[0].config
    hardware.pick_device(config.hardware.device)
    protocol = protocol_of(config.suite)
    check_metrics(metrics_of(config.suite, protocol))
    for cell in grid:
        protocol.check(cell.config.dataset)
        if cell.config.dataset.name not in datasets:
            dataset = with_private_side(make(cell.config.dataset))
            images_mb = dataset.private_records * dataset.resolution**2 * 3 / 2**20
            for place in (config.results_dir, config.cache_dir):
                hardware.check_room(Path(place), 200 + 2 * images_mb, 1000 + 4 * images_mb)
            dataset.check(track)
            datasets[cell.config.dataset.name] = dataset
    for cell in {(c.config.method.name, c.config.dataset.name): c for c in grid}.values():
        digests(cell.config.method.weights)
        make_generator(cell)
    for index in track(range(len(grid)), "checking budgets"):
        make_plan(grid[index])
    return datasets


def with_private_side(dataset: Any) -> Dataset:
    """The data set.

    Raises:
        UserError: it is a public corpus.
    """
    if not isinstance(dataset, Dataset):
        raise UserError(
            f"{dataset.name} is a public corpus without a private side: methods pretrain on it "
            "(method.public), and a run needs a private data set."
        )
    return dataset


def results_folder(cell: Cell, datasets: dict[str, Dataset]) -> Path:
    """``results/<suite>``, or below ``results/local`` if a picture must not be passed on."""
    base = Path(cell.config.results_dir)
    if not all(dataset.redistributable for dataset in datasets.values()):
        base = base / "local"
        return base / f"{cell.config.suite.name}-{'-'.join(sorted(datasets))}"
    return base / str(cell.config.suite.name)


def _run_dataset(grid: list[Cell], name: str, dataset: Dataset, folder: Path) -> int:
    """Run the cells of one data set; returns how many failed."""
    mine = [cell for cell in grid if cell.config.dataset.name == name]
    todo = [cell for cell in mine if not _finished(cell, folder)]
    if len(todo) < len(mine):
        console.print(f"{name}: {len(mine) - len(todo)} of {len(mine)} cells are already recorded")
    if not todo:
        return 0
    suite = todo[0].config.suite
    protocol = protocol_of(suite)
    device = hardware.pick_device(todo[0].config.hardware.device)
    names = metrics_of(suite, protocol)
    scorer = Scorer.make(dataset, names, suite.samples, protocol, device)
    _save_prompts(scorer, name, folder)
    failures = 0
    for number, cell in enumerate(todo, 1):
        start = time.perf_counter()
        if cell.config.force:
            checkpoints_of(cell, cell.identity(digests(cell.config.method.weights))).remove()
        try:
            record = run_cell(cell, dataset, scorer, folder)
            outcome = ", ".join(f"{k} {m.value:.2f}" for k, m in record.metrics.items())
        except Exception as error:  # a failed cell must not take the grid with it
            record = failed_record(cell, dataset, error, folder)
            outcome = f"[red]failed[/red]: {record.reason}"
            failures += 1
            _save_traceback(record.cell, folder)
        save(record, folder / "records")
        if record.status == "ok":
            checkpoints_of(cell, record.cell).remove()
        seconds = time.perf_counter() - start
        console.print(f"[{number}/{len(todo)}] {cell.label}: {outcome} ({seconds:.0f} s)")
    return failures


def _finished(cell: Cell, folder: Path) -> bool:
    path = folder / "records" / f"{cell.identity(digests(cell.config.method.weights))}.json"
    return not cell.config.force and path.exists() and load(path).status == "ok"


def _save_prompts(scorer: Scorer, name: str, folder: Path) -> None:
    """The shared prompts and the real images they describe, for the sample grids."""
    samples = folder / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    prompts = list(scorer.evaluation.prompts[:STRIP])
    (samples / f"prompts-{name}.json").write_text(json.dumps(prompts, indent=1) + "\n")
    held = scorer.evaluation.held_out
    rows = scorer.evaluation.rows[: len(prompts)]
    images = torch.stack([torch.tensor(held.images[i]) for i in rows])
    save_strip(images, samples / f"real-{name}.png")


def _save_traceback(cell: str, folder: Path) -> None:
    path = folder / "failures" / f"{cell}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(traceback.format_exc())


if __name__ == "__main__":
    run_command(main)
