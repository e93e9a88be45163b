"""Run a suite: ``python -m benchmarks.run suite=quick``.

Everything that can be wrong is checked before the first cell starts. A cell that fails is
recorded as failed and the others go on; a cell that is already recorded is not run again, and gains
the metrics that it lacks from its kept samples. Run again by ``force=true``, a cell that fails
leaves its good record, samples and picture as they are. Several processes may run one grid into one
results folder: each cell is run by one of them.
"""

from __future__ import annotations

import gc
import json
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape

from benchmarks import dry_run, hardware, needs, ranks, untrained, workers
from benchmarks.cell import (
    checkpoints_of,
    failed_record,
    finetune,
    finetuned_of,
    identity_of,
    images_of,
    ledger_of,
    make_generator,
    make_plan,
    reason_of,
    run_cell,
    samples_of,
    seed_everything,
    start_anew,
)
from benchmarks.claims import Claim, Stamp, alone
from benchmarks.config import Cell, cells, make
from benchmarks.console import console, run_command, track
from benchmarks.evaluation import Evaluation, make_evaluation
from benchmarks.protocol import metrics_of, protocol_of
from benchmarks.record import Record, load, load_folder, save
from benchmarks.report import make_report
from benchmarks.report.marks import score_line
from benchmarks.rescoring import GONE, LOST, check_prompts, finished, lacking, rescore
from benchmarks.room import check_room
from benchmarks.samples import STRIP, save_strip
from benchmarks.scorer import Scorer, check_metrics
from benchmarks.turn import Turn, taken
from benchmarks.written import write
from wavedp.data.schema import Dataset
from wavedp.dp.errors import UserError

WRITTEN = ("records", "ledgers", "samples", "locks")
"""Parts of a results folder that a run writes."""


def main(overrides: list[str]) -> int:
    """Run the suite that the Hydra overrides describe; returns the exit code."""
    grid = cells(overrides)
    config = grid[0].config
    workers.check(config)
    if threads := workers.threads(config):
        torch.set_num_threads(threads)
    if grid[0].untrained and not config.dry_run:
        return untrained.run(grid, datasets_of(grid))
    lacks = needs.lacking(grid)
    if config.dry_run and lacks:
        datasets = check_configs(grid)
        dry_run.show(grid, {}, results_folder(grid[0], datasets), lacks)
        return 0
    if len(lacks) > 1:
        raise UserError(
            f"{len(lacks)} things that this suite needs are not on this machine, the first is "
            f"{lacks[0].what}: {lacks[0].remedy}; dry_run=true lists them all."
        )
    datasets, evaluations = check(grid)
    folder = results_folder(grid[0], datasets)
    if config.dry_run:
        dry_run.show(grid, evaluations, folder)
        return 0
    with ranks.joined() as world:
        if not world.leads:
            return _follow(grid, datasets, folder)
        before = workers.before(folder)
        left = _count_left(grid, evaluations, folder)
        forced = alone(folder) if config.force else nullcontext()
        with forced, workers.helped(overrides, config, before, left):
            return _lead(grid, datasets, evaluations, folder, before)


def _lead(
    grid: list[Cell],
    datasets: dict[str, Dataset],
    evaluations: dict[str, Evaluation],
    folder: Path,
    before: Mapping[str, Stamp],
) -> int:
    """Run all cells and make the report, which a helper leaves to others; returns the exit code."""
    start = time.perf_counter()
    with ranks.led():
        failures = sum(
            _run_dataset(grid, name, dataset, evaluations[name], folder, before)
            for name, dataset in datasets.items()
        )
    if workers.helping():
        return 0
    make_report(folder, console)
    console.print(
        f"{len(grid)} cells, {failures} failed, {time.perf_counter() - start:.0f} s. "
        f"Report: {folder / 'report.html'}"
    )
    return 1 if failures else 0


def _follow(grid: list[Cell], datasets: dict[str, Dataset], folder: Path) -> int:
    """Take part in the finetuning of every cell that the first rank runs."""
    known = {identity_of(cell): cell for cell in grid}
    for name in ranks.called():
        cell = known[name]
        seed_everything(cell.seed)
        device = hardware.pick_device(cell.config.hardware.device)
        generator = make_generator(cell)
        assert isinstance(generator, torch.nn.Module)
        dataset = datasets[cell.config.dataset.name]
        try:
            finetune(cell, generator.to(device), dataset, ledger_of(folder, name), device)
        except KeyboardInterrupt:
            return 0  # the first rank tells, and has the exit code; torchrun would end it for ours
        except Exception as error:  # its text may quote a value of a private record
            where = _save_traceback(cell, name)
            raise UserError(f"{reason_of(error, cell)} (traceback: {where})") from None
    return 0


def check(grid: list[Cell]) -> tuple[dict[str, Dataset], dict[str, Evaluation]]:
    """Everything that a cell needs, before any cell runs.

    Returns:
        The data sets by the names of their configs, and their evaluation sides.

    Raises:
        UserError: the first thing that is missing or does not fit.
    """
    config = grid[0].config
    hardware.pick_device(config.hardware.device)
    datasets = check_configs(grid)
    protocol = protocol_of(config.suite)
    names = metrics_of(config.suite, protocol)
    folder = results_folder(grid[0], datasets)
    for part in WRITTEN:
        hardware.check_writable(folder / part, "results_dir")
    hardware.check_writable(Path(config.cache_dir), "cache_dir")
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
    return datasets, evaluations


def check_configs(grid: list[Cell]) -> dict[str, Dataset]:
    """What can be wrong without data and weights; the data sets by the names of their configs.

    Raises:
        UserError: the first thing that does not fit.
    """
    protocol = protocol_of(grid[0].config.suite)
    check_metrics(metrics_of(grid[0].config.suite, protocol))
    for cell in grid:
        protocol.check(cell.config.dataset)
    return datasets_of(grid)


def datasets_of(grid: list[Cell]) -> dict[str, Dataset]:
    """The data sets of a grid by the names of their configs; nothing of them is read.

    Raises:
        UserError: one is a public corpus, or has a setting that does not fit.
    """
    found = {cell.config.dataset.name: cell.config.dataset for cell in grid}
    return {name: with_private_side(make(dataset)) for name, dataset in found.items()}


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


def _count_left(grid: list[Cell], evaluations: dict[str, Evaluation], folder: Path) -> int:
    """How many cells are to be run, or scored again."""
    suite = grid[0].config.suite
    names = metrics_of(suite, protocol_of(suite))
    left = 0
    for cell in grid:
        record = finished(cell, folder)
        evaluation = evaluations[cell.config.dataset.name]
        left += record is None or bool(lacking(cell, record, names, evaluation))
    return left


def _run_dataset(
    grid: list[Cell],
    name: str,
    dataset: Dataset,
    evaluation: Evaluation,
    folder: Path,
    before: Mapping[str, Stamp],
) -> int:
    """Run or rescore the cells of one data set; returns how many failed."""
    mine = [(cell, finished(cell, folder)) for cell in grid if cell.config.dataset.name == name]
    todo = [cell for cell, record in mine if record is None]
    # What failed before comes last: it may fail again, and end the run of several ranks.
    todo.sort(key=lambda cell: (folder / "records" / f"{identity_of(cell)}.json").exists())
    done = [(cell, record) for cell, record in mine if record is not None]
    if done:
        console.print(f"{name}: {len(done)} of {len(mine)} cells are already recorded")
    for cell, record in done:
        _finish(cell, record, evaluation, folder)
    config = mine[0][0].config
    protocol, device = protocol_of(config.suite), hardware.pick_device(config.hardware.device)
    names = metrics_of(config.suite, protocol)
    short = [(cell, record) for cell, record in done if lacking(cell, record, names, evaluation)]
    if not todo and not short:
        return 0
    kept = [pair for pair in short if samples_of(pair[0], pair[1].cell).file.exists()]
    # What no cell needs now is not opened: statistics of a large reference take their time.
    asked = {metric for pair in kept for metric in lacking(*pair, names, evaluation)}
    needed = [metric for metric in names if todo or metric in asked]
    scorer = Scorer.make(dataset, needed, config.suite.samples, protocol, device)
    failures = _rescore(short, names, scorer, folder, device)
    if todo:
        _save_prompts(scorer, name, folder)
    turns = [Turn(n, cell, _claim(cell, folder, before)) for n, cell in enumerate(todo, 1)]
    return failures + _run_cells(turns, dataset, scorer, folder)


def _run_cells(turns: list[Turn], dataset: Dataset, scorer: Scorer, folder: Path) -> int:
    """Run cells, but for those that another process runs; returns how many failed, with those."""
    failures = 0
    for turn in taken(turns):
        place = f"[{turn.number}/{len(turns)}]"
        if record := turn.claim.settled() or finished(turn.cell, folder):
            failures += record.status != "ok"
            told = f"{place} {turn.cell.label}: {_outcome(record)} (another process)"
            console.print(told, soft_wrap=True)
        else:
            failures += not _run_one(turn.cell, place, dataset, scorer, folder)
    return failures


def _outcome(record: Record) -> str:
    return score_line(record) if record.status == "ok" else _failure(record)


def _failure(record: Record) -> str:
    return f"[red]failed[/red]: {escape(str(record.reason))}"


def _claim(cell: Cell, folder: Path, before: Mapping[str, Stamp] | None = None) -> Claim:
    return Claim(folder, Path(cell.config.cache_dir), identity_of(cell), before)


def _run_one(cell: Cell, place: str, dataset: Dataset, scorer: Scorer, folder: Path) -> bool:
    """Run a cell and keep what comes of it; False if it failed."""
    start = time.perf_counter()
    gc.collect()  # networks of the cell before lie in cycles of references
    try:
        if cell.config.force:
            start_anew(cell, folder)
        record = run_cell(cell, dataset, scorer, folder)
        _keep(cell, record, folder)
        failed, outcome = False, score_line(record)
    except Exception as error:  # a failed cell must not take the grid with it
        failed = True
        outcome = _failed(cell, failed_record(cell, dataset, error, folder), folder)
        if isinstance(error, ranks.Scattered):
            console.print(f"{place} {cell.label}: {outcome}", soft_wrap=True)
            raise
    seconds = time.perf_counter() - start
    console.print(f"{place} {cell.label}: {outcome} ({seconds:.0f} s)", soft_wrap=True)
    return not failed


def _keep(cell: Cell, record: Record, folder: Path) -> None:
    """Keep what a cell that succeeded gives.

    In this order: where it is cut short, the picture that is there matches none of the samples, and
    no record is ever scored by those of another run.
    """
    samples = samples_of(cell, record.cell)
    samples.show(folder / str(record.samples))
    save(record, folder / "records")
    samples.keep()
    if record.finetuned:
        finetuned_of(cell, record.cell).keep()
    checkpoints_of(cell, ledger_of(folder, record.cell)).remove()


def _finish(cell: Cell, record: Record, evaluation: Evaluation, folder: Path) -> None:
    """Do what a process left to do that was killed as soon as it had saved a record.

    Its samples are there and cannot be had again. Does nothing while another process has the cell.
    """
    samples, weights = samples_of(cell, record.cell), finetuned_of(cell, record.cell)
    checkpoints = checkpoints_of(cell, ledger_of(folder, record.cell))
    if not (samples.unsettled or weights.unsettled or checkpoints.started):
        return
    with _claim(cell, folder).taken() as mine:
        if mine:
            samples.finish(images_of(cell.row, evaluation), folder / str(record.samples))
            weights.finish(record.finetuned)
            checkpoints.remove()


def _failed(cell: Cell, record: Record, folder: Path) -> str:
    """Keep what is known of a cell that failed, and return what is to be said of it.

    The record of an earlier run that succeeded stays in its place, and this one goes beside the
    traceback. Called where the error is handled.
    """
    traceback_file = _save_traceback(cell, record.cell)
    samples_of(cell, record.cell).discard()
    finetuned_of(cell, record.cell).discard()
    said = f"{_failure(record)} (traceback: {traceback_file})"
    good = folder / "records" / f"{record.cell}.json"
    if not (good.exists() and load(good).status == "ok"):
        save(record, good.parent)
        return said
    save(record, traceback_file.parent)
    # Nothing goes on from it: the next run is forced, too, and begins anew.
    checkpoints_of(cell, ledger_of(folder, record.cell)).remove()
    said += "; the record, samples and picture of the run before stay"
    if record.privacy.epsilon_spent:
        ledger = ledger_of(folder, record.cell)
        said += (
            f"; this attempt spent epsilon {record.privacy.epsilon_spent:.4g} ({ledger}), which "
            f"composes with what the runs before it spent ({ledger.stem}.1.jsonl and so on)"
        )
    return said


def _rescore(
    short: list[tuple[Cell, Record]],
    names: Sequence[str],
    scorer: Scorer,
    folder: Path,
    device: torch.device,
) -> int:
    """Give finished cells the metrics that they lack; returns how many failed."""
    failures, gone = 0, []
    turns = [Turn(n, cell, _claim(cell, folder)) for n, (cell, _) in enumerate(short, 1)]
    for turn in taken(turns):
        cell, record = short[turn.number - 1]
        try:
            known = finished(cell, folder) or record  # another process may have scored it
            new = rescore(cell, known, names, scorer, folder, device)
            if new != known:
                save(new, folder / "records")
        except Exception as error:  # as a failed cell; the record stays what it was
            reason = escape(reason_of(error, cell))
            where = _save_traceback(cell, record.cell)
            console.print(
                f"{cell.label}: [red]not rescored[/red]: {reason} (traceback: {where})",
                soft_wrap=True,
            )
            failures += 1
            continue
        gained = {k: score for k, score in new.metrics.items() if score != record.metrics.get(k)}
        if gained:
            line = score_line(new.model_copy(update={"metrics": gained}))
            console.print(f"{cell.label}: rescored, {line}", soft_wrap=True)
        gone += [cell.label] if any(n.reason in LOST for n in new.not_computed.values()) else []
    if gone:
        what = "1 cell" if len(gone) == 1 else f"{len(gone)} cells"
        console.print(f"{what} not rescored, the first is {gone[0]}: {GONE}.", soft_wrap=True)
    return failures


def _save_prompts(scorer: Scorer, name: str, folder: Path) -> None:
    """The shared prompts and the real images they describe, for the sample grids."""
    samples = folder / "samples"
    prompts = list(scorer.evaluation.prompts[:STRIP])
    write(samples / f"prompts-{name}.json", json.dumps(prompts, indent=1) + "\n")
    images = scorer.evaluation.real(slice(0, STRIP))
    save_strip(images.numpy(), samples / f"real-{name}.png")


def _save_traceback(cell: Cell, name: str) -> Path:
    """Write down the error that is being handled, for its owner only: where it lies.

    Its text may quote a value of a private record, so it is no part of the results.
    """
    path = Path(cell.config.cache_dir) / "failures" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    return write(path, traceback.format_exc(), for_owner=True)


if __name__ == "__main__":
    run_command(main)
