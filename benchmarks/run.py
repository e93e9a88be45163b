"""Run a suite: ``python -m benchmarks.run suite=quick``.

Everything that can be wrong is checked before the first cell starts. A cell that fails is
recorded as failed and the others go on; a cell that is already recorded is not run again, and gains
the metrics that it lacks from its kept samples.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import hardware
from benchmarks.cell import (
    checkpoints_of,
    failed_record,
    identity_of,
    make_generator,
    make_plan,
    reason_of,
    run_cell,
    samples_of,
)
from benchmarks.config import Cell, cells, make
from benchmarks.console import console, run_command, track
from benchmarks.evaluation import Evaluation, make_evaluation
from benchmarks.protocol import metrics_of, protocol_of
from benchmarks.record import Record, load_folder, save
from benchmarks.report import make_report
from benchmarks.report.marks import score_line
from benchmarks.rescoring import GONE, check_prompts, finished, lacking, rescore
from benchmarks.room import check_room
from benchmarks.samples import STRIP, save_strip
from benchmarks.scorer import Scorer, check_metrics
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
    names = metrics_of(config.suite, protocol)
    check_metrics(names)
    for cell in grid:
        protocol.check(cell.config.dataset)
        if cell.config.dataset.name not in datasets:
            datasets[cell.config.dataset.name] = with_private_side(make(cell.config.dataset))
    folder = results_folder(grid[0], datasets)
    todo = [cell for cell in grid if finished(cell, folder) is None]
    check_room(grid, todo, datasets, protocol, names)
    for dataset in datasets.values():
        dataset.check(track)
    evaluations = {
        name: make_evaluation(dataset, config.suite.samples, protocol)
        for name, dataset in datasets.items()
    }
    for cell in {(c.config.method.name, c.config.dataset.name): c for c in grid}.values():
        make_generator(cell).check(evaluations[cell.config.dataset.name].prompts)
    for index in track(range(len(grid)), "checking budgets"):
        make_plan(grid[index])
    _check_table(grid, evaluations, folder)
    return datasets


def _check_table(grid: list[Cell], evaluations: dict[str, Evaluation], folder: Path) -> None:
    """What this run adds to a results folder was scored on the prompts of what is there.

    Raises:
        UserError: it would not be.
    """
    config = grid[0].config
    again = [identity_of(cell) for cell in grid] if config.force else []
    records = [r for r in load_folder(folder / "records") if r.status == "ok"]
    for name, evaluation in evaluations.items():
        kept = [r for r in records if r.dataset == name and r.cell not in again]
        check_prompts(kept, evaluation, folder)


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
    """Run or rescore the cells of one data set; returns how many failed."""
    mine = [(cell, finished(cell, folder)) for cell in grid if cell.config.dataset.name == name]
    todo = [cell for cell, record in mine if record is None]
    done = [(cell, record) for cell, record in mine if record is not None]
    if done:
        console.print(f"{name}: {len(done)} of {len(mine)} cells are already recorded")
    config = mine[0][0].config
    protocol, device = protocol_of(config.suite), hardware.pick_device(config.hardware.device)
    names = metrics_of(config.suite, protocol)
    short = [(cell, record) for cell, record in done if lacking(cell, record, names)]
    if not todo and not short:
        return 0
    kept = [pair for pair in short if samples_of(pair[0], pair[1].cell).file.exists()]
    # What no cell needs now is not opened: statistics of a large reference take their time.
    needed = [n for n in names if todo or any(lacking(*pair, [n]) for pair in kept)]
    scorer = Scorer.make(dataset, needed, config.suite.samples, protocol, device)
    failures = _rescore(short, names, scorer, folder, device)
    if todo:
        _save_prompts(scorer, name, folder)
    return failures + _run_cells(todo, dataset, scorer, folder)


def _run_cells(todo: list[Cell], dataset: Dataset, scorer: Scorer, folder: Path) -> int:
    failures = 0
    for number, cell in enumerate(todo, 1):
        start = time.perf_counter()
        if cell.config.force:
            checkpoints_of(cell, identity_of(cell)).remove()
        try:
            record = run_cell(cell, dataset, scorer, folder)
            outcome = score_line(record)
        except Exception as error:  # a failed cell must not take the grid with it
            record = failed_record(cell, dataset, error, folder)
            outcome = f"[red]failed[/red]: {record.reason}"
            failures += 1
            _save_traceback(record.cell, folder)
        save(record, folder / "records")
        if record.status == "ok":
            # Now, and not before: a record never finds the samples of a run that did not finish.
            samples_of(cell, record.cell).keep()
            checkpoints_of(cell, record.cell).remove()
        else:
            samples_of(cell, record.cell).discard()
        seconds = time.perf_counter() - start
        console.print(f"[{number}/{len(todo)}] {cell.label}: {outcome} ({seconds:.0f} s)")
    return failures


def _rescore(
    short: list[tuple[Cell, Record]],
    names: Sequence[str],
    scorer: Scorer,
    folder: Path,
    device: torch.device,
) -> int:
    """Give finished cells the metrics that they lack; returns how many failed."""
    failures, gone = 0, []
    for cell, record in short:
        try:
            new = rescore(cell, record, names, scorer, folder, device)
        except Exception as error:  # as a failed cell; the record stays what it was
            console.print(f"{cell.label}: [red]not rescored[/red]: {reason_of(error)}")
            _save_traceback(record.cell, folder)
            failures += 1
            continue
        if new != record:
            save(new, folder / "records")
        gained = {k: score for k, score in new.metrics.items() if k not in record.metrics}
        if gained:
            line = score_line(new.model_copy(update={"metrics": gained}))
            console.print(f"{cell.label}: rescored, {line}", soft_wrap=True)
        gone += [cell.label] if any(n.reason == GONE for n in new.not_computed.values()) else []
    if gone:
        what = "1 cell" if len(gone) == 1 else f"{len(gone)} cells"
        console.print(f"{what} not rescored, the first is {gone[0]}: {GONE}.", soft_wrap=True)
    return failures


def _save_prompts(scorer: Scorer, name: str, folder: Path) -> None:
    """The shared prompts and the real images they describe, for the sample grids."""
    samples = folder / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    prompts = list(scorer.evaluation.prompts[:STRIP])
    (samples / f"prompts-{name}.json").write_text(json.dumps(prompts, indent=1) + "\n")
    images = scorer.evaluation.real(slice(0, STRIP))
    save_strip(images.numpy(), samples / f"real-{name}.png")


def _save_traceback(cell: str, folder: Path) -> None:
    path = folder / "failures" / f"{cell}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(traceback.format_exc())


if __name__ == "__main__":
    run_command(main)
