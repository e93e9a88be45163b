"""Samples beside the private records they are nearest to: for the eyes of the data's owner.

    python -m benchmarks.neighbours suite=real64 dataset.root=/data/mmcelebahq64

The page has the samples of every finished cell that come nearest to a private record, each with
the nearest records. It **shows private images**: it lies in a folder of the user's cache that
opens for its owner only, and no epsilon covers it. The distances, over all samples, are scores of
the suite's ``memorisation`` metric, whose feature space is taken here, too.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.batches import Batches
from benchmarks.cell import images_of, samples_of
from benchmarks.config import Cell, cells, load_choice, make
from benchmarks.console import console, run_command, track
from benchmarks.evaluation import Evaluation, make_evaluation
from benchmarks.features import FeatureSpace
from benchmarks.hardware import pick_device
from benchmarks.metrics.memorisation import BLOCK, Memorisation
from benchmarks.private_view import for_evaluation
from benchmarks.protocol import metrics_of, protocol_of
from benchmarks.report.facts import label, row_label
from benchmarks.report.html import data_uri, environment
from benchmarks.rescoring import finished
from benchmarks.run import datasets_of, results_folder
from benchmarks.samples import side_by_side
from benchmarks.written import write
from wavedp.dp.errors import UserError
from wavedp.dp.private import PrivateRecords
from wavedp.dp.store import private_folder

TEMPLATE = "neighbours.html.j2"
SHOWN = 12
"""Samples per cell, those nearest to a private record first."""
BESIDE = 3
"""Private records beside each."""

Tile = dict[str, str | float]
"""A picture, as the address of an image inside the page, and the distance below it."""


def main(overrides: list[str]) -> int:
    """Write the page of the suite that the overrides name; returns the exit code."""
    grid = cells(overrides)
    config, datasets = grid[0].config, datasets_of(grid)
    if len(datasets) > 1:
        raise UserError(f"A page has one data set: add dataset={next(iter(datasets))}.")
    space = _space(grid[0])
    [dataset] = datasets.values()
    dataset.check(track)
    evaluation = make_evaluation(dataset, config.suite.samples, protocol_of(config.suite))
    folder = results_folder(grid[0], datasets)
    drawn = list(_drawn(grid, evaluation, folder))
    if not drawn:
        raise UserError(
            f"No finished cell of {folder} has samples in {config.cache_dir}: run the suite first."
        )
    private = dataset.private()
    parts: list[np.ndarray] = []
    for_evaluation(private, lambda images: parts.append(space(images)))
    records = torch.from_numpy(np.concatenate(parts))
    unseen, _ = nearest_of(space.of_records(evaluation.reference), records)
    found = []
    for index in track(range(len(drawn)), "comparing"):
        title, images = drawn[index]
        features = np.concatenate([space(batch) for batch in Batches(images)])
        distances, rows = nearest_of(features, records)
        first = distances.argsort()[:SHOWN]
        found.append((title, images[first], distances[first], rows[first]))
    pictures = _pictures(private, {int(row) for *_, rows in found for row in rows.flat})
    shown = [
        {
            "title": title,
            "tiles": [_tile(*own, pictures) for own in zip(images, distances, rows, strict=True)],
        }
        for title, images, distances, rows in found
    ]
    path = private_folder(Path(config.cache_dir) / "neighbours") / f"{folder.name}.html"
    page = environment().get_template(TEMPLATE)
    text = page.render(
        suite=label(folder.name),
        space=space.label,
        cells=shown,
        beside=BESIDE,
        unseen=float(np.median(unseen)),
        side=2 * dataset.resolution,
    )
    write(path, text, for_owner=True)
    console.print(f"{path} shows private images: it is for their owner.", soft_wrap=True)
    return 0


def nearest_of(features: np.ndarray, records: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Of each row of ``[n, d]`` the distance to its nearest record, ``[n]``, and the rows of the
    :data:`BESIDE` nearest of ``[m, d]``, nearest first."""
    found = [
        torch.cdist(part, records, compute_mode="donot_use_mm_for_euclid_dist").topk(
            min(BESIDE, len(records)), largest=False
        )
        for part in torch.from_numpy(features).split(BLOCK)
    ]
    distances = torch.cat([nearest.values[:, 0] for nearest in found])
    return distances.numpy(), torch.cat([nearest.indices for nearest in found]).numpy()


def _space(cell: Cell) -> FeatureSpace:
    """The feature space of the suite's metric of memorisation, ready to be used.

    Raises:
        UserError: it has none, or its weights are missing.
    """
    suite = cell.config.suite
    for name in metrics_of(suite, protocol_of(suite)):
        metric = make(load_choice("metric", name))
        if isinstance(metric, Memorisation):
            metric.open(pick_device(cell.config.hardware.device))
            return metric.space
    raise UserError(
        f"Suite {suite.name} has no metric of memorisation: add suite.metrics=[memorisation]."
    )


def _drawn(
    grid: Sequence[Cell], evaluation: Evaluation, folder: Path
) -> Iterator[tuple[str, np.ndarray]]:
    """The samples of each finished cell that draws some, as far as they are kept."""
    for cell in grid:
        record = None if cell.row == "oracle" else finished(cell, folder)
        if record is not None and record.samples is not None:
            kept, strip = samples_of(cell, record.cell), folder / record.samples
            images = kept.open(images_of(cell.row, evaluation), strip)
            if images is not None:
                row = row_label(cell.row, cell.epsilon)
                yield f"{label(cell.config.method.name)}, {row}, seed {cell.seed}", images


def _pictures(private: PrivateRecords, wanted: set[int]) -> dict[int, np.ndarray]:
    """Some private images, by their rows."""
    found: dict[int, np.ndarray] = {}
    start = 0

    def see(images: Tensor) -> None:
        nonlocal start
        for row in wanted.intersection(range(start, start + len(images))):
            found[row] = images[row - start].numpy()
        start += len(images)

    for_evaluation(private, see)
    return found


def _tile(
    image: np.ndarray, distance: float, rows: np.ndarray, pictures: dict[int, np.ndarray]
) -> Tile:
    beside = np.stack([image, *(pictures[int(row)] for row in rows)])
    buffer = io.BytesIO()
    Image.fromarray(side_by_side(beside)).save(buffer, "PNG")
    return {"picture": data_uri(buffer.getvalue()), "distance": float(distance)}


if __name__ == "__main__":
    run_command(main)
