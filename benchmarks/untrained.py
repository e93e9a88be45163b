"""Cells with random weights: ``python -m benchmarks.run suite=paper_coco untrained=true``.

It shows that the networks of a method can be made from its config, take gradients under DP on a
data set and draw an image, without the weights that they would begin with: published networks are
drawn at random in their published sizes (:mod:`wavedp.nn.untrained`). Each cell takes two steps of
two records and draws one image, which is thrown away with the weights. Nothing is scored, and
nothing goes to the results: records have the status ``untrained``, lie in the cache, and are
refused by every table. Where memory is short, ``untrained={t5: {num_layers: 2}}`` makes a published
network smaller. One process does it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.markup import escape

from benchmarks import hardware, ranks
from benchmarks.cell import (
    checkpoints_of,
    failed_record,
    finetune,
    identity_of,
    ledger_of,
    make_generator,
    privacy_of,
    reason_of,
    record_of,
    seed_everything,
    start_anew,
)
from benchmarks.config import Cell
from benchmarks.console import console, track
from benchmarks.record import Record, save
from benchmarks.stopping import stop_if_asked
from wavedp.data.schema import Dataset
from wavedp.dp.errors import UserError


def run(grid: Sequence[Cell], datasets: dict[str, Dataset]) -> int:
    """Take all cells the whole way; returns the exit code.

    Raises:
        UserError: the data are missing or damaged, or ``torchrun`` started several processes.
    """
    if ranks.started() > 1:
        raise UserError(
            "untrained=true takes every cell once, with one process: start it without torchrun, by "
            "`python -m benchmarks.run`."
        )
    for dataset in datasets.values():
        dataset.check(track)
    folder = folder_of(grid[0])
    failures = 0
    for number, cell in enumerate(grid, 1):
        stop_if_asked()
        start = time.perf_counter()
        gc.collect()  # networks of the cell before lie in cycles of references
        start_anew(cell, folder)
        try:
            record = run_cell(cell, datasets[cell.config.dataset.name], folder)
            outcome = f"untrained, {record.privacy.steps or 'no'} steps and one image"
        except Exception as error:  # as in benchmarks.run: the others go on
            record = failed_record(cell, datasets[cell.config.dataset.name], error, folder)
            outcome = f"[red]failed[/red]: {escape(reason_of(error, cell))}"
            failures += 1
        save(record, folder / "records")
        checkpoints_of(cell, ledger_of(folder, record.cell)).remove()
        seconds = time.perf_counter() - start
        console.print(
            f"[{number}/{len(grid)}] {cell.label}: {outcome} ({seconds:.0f} s)", soft_wrap=True
        )
    console.print(
        f"{len(grid)} cells, {failures} failed. Random weights: nothing was measured, and no table "
        f"takes these records: {folder / 'records'}",
        soft_wrap=True,
    )
    return 1 if failures else 0


def folder_of(cell: Cell) -> Path:
    """Where records and ledgers of such runs go: the cache, never the results."""
    return Path(cell.config.cache_dir) / "untrained" / str(cell.config.suite.name)


def run_cell(cell: Cell, dataset: Dataset, folder: Path) -> Record:
    """Two steps and one image, and their record.

    Raises:
        UserError: the parts do not fit each other, or not the data set.
    """
    name, device = identity_of(cell), hardware.pick_device(cell.config.hardware.device)
    prompt = dataset.evaluation().captions[0][0]
    seed_everything(cell.seed)
    generator = make_generator(cell)
    generator.check([prompt])
    assert isinstance(generator, torch.nn.Module)
    generator.to(device)
    trainer = finetune(cell, generator, dataset, ledger_of(folder, name), device)
    image = torch.cat(list(generator.generate([prompt], cell.seed)))
    shape = (1, 3, dataset.resolution, dataset.resolution)
    if image.shape != shape or image.dtype != torch.uint8:
        raise UserError(
            f"Method {cell.config.method.name} drew {image.dtype} {tuple(image.shape)} for one "
            f"caption instead of uint8 {shape}."
        )
    privacy = privacy_of(cell, dataset, trainer)
    return record_of(cell, dataset, {}, status="untrained", privacy=privacy)
