"""Room on disk and in memory, estimated before a run starts.

Decoded images are memory-mapped (:mod:`wavedp.data.cache`), and so are samples
(:mod:`benchmarks.samples`): the system drops their pages when it needs memory, so they count on
disk only. In memory are what a method maps from private records, captions, and rows of features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import hardware
from benchmarks.batches import SIZE
from benchmarks.config import Cell, load_choice, make
from benchmarks.protocol import Protocol
from benchmarks.weights import path_of
from wavedp.data.schema import Dataset

BASE_MB = 1000
"""Python, torch, networks and a micro-batch of the embedded methods; not those of larger ones."""
RESULTS_MB = 200
"""Records, ledgers, pictures and the page."""
MAPPED_KB = 16
"""Of one private record: tokens and text embeddings, or a latent of 4 x 32 x 32 floats."""
CAPTIONS_KB = 1
"""Of one record, as Python holds its texts."""
ROW_KB = 32
"""Of one sample or reference image: 2048 features as float32 and, while they are compared, twice
as float64 or in a distance matrix."""
SEEN_KB = 12
"""Of one private record, where a metric reads them: 3072 floats."""


class Room(NamedTuple):
    """Megabytes (2^20 bytes): on the disk of the caches, and in memory."""

    disk_mb: float
    memory_mb: float


def room_for(
    dataset: Dataset, evaluation_records: int, samples: int, cells: int, private_metrics: int
) -> Room:
    """What the cells of one data set need, with nothing cached yet.

    Args:
        evaluation_records: as declared.
        samples: images that one cell draws.
        cells: how many are still to be drawn.
        private_metrics: how many metrics keep features of private records.
    """
    private = dataset.private_records
    records = private + evaluation_records
    image_kb = 3 * dataset.resolution**2 / 2**10
    disk = (records + samples * cells) * image_kb + private * MAPPED_KB
    memory = (
        private * (MAPPED_KB + SEEN_KB * private_metrics)
        + records * CAPTIONS_KB
        + (samples + evaluation_records) * ROW_KB
        + 4 * SIZE * image_kb  # a batch, as floats
    )
    return Room(disk / 2**10, BASE_MB + memory / 2**10)


def check_room(
    grid: Sequence[Cell],
    todo: Sequence[Cell],
    datasets: Mapping[str, Dataset],
    protocol: Protocol,
    names: Sequence[str],
) -> None:
    """Refuse to start a grid without room for its caches, samples, records and the run itself.

    Args:
        grid, todo: all cells, and those that are still to be drawn.
        datasets: by name; nothing of them is read.
        names: the metrics.

    Raises:
        UserError: too little free disk or memory.
    """
    config = grid[0].config
    cache = Path(config.cache_dir)
    private_metrics = sum(make(load_choice("metric", n)).reads == "private" for n in names)
    disk, memory = 0.0, 0.0
    for name, dataset in datasets.items():
        mine = [cell.config.dataset for cell in grid if cell.config.dataset.name == name]
        held = mine[0].get("evaluation_records", 0)
        if not all(isinstance(n, int) for n in (held, dataset.private_records, dataset.resolution)):
            continue  # the data set's own check has a sentence for it
        samples = protocol.count(config.suite.samples, held)
        cells = sum(cell.config.dataset.name == name for cell in todo)
        needed = room_for(dataset, held, samples, cells, private_metrics)
        disk += max(needed.disk_mb - cached_mb(cache, dataset), 0)
        disk += sum(weights_mb(cell) for cell in todo if cell.config.dataset.name == name)
        memory = max(memory, needed.memory_mb)
    hardware.check_room(Path(config.results_dir), RESULTS_MB, memory)
    hardware.check_room(cache, RESULTS_MB + disk, memory)


def weights_mb(cell: Cell) -> float:
    """What the finetuned weights of a cell take at most, if they are kept: as much as the public
    ones. Those of parts that begin with private records are small."""
    if not cell.config.keep_weights or cell.row not in ("private", "non_private"):
        return 0.0
    files = [path_of(name) for name in cell.config.method.weights.values()]
    return sum(file.stat().st_size for file in files if file.exists()) / 2**20


def cached_mb(cache: Path, dataset: Dataset) -> float:
    """What the cache holds of a data set's decoded images, at the names that the sets give them."""
    label = f"{dataset.name}-{dataset.version}-{dataset.resolution}px-"
    files = (path for path in cache.glob("*/**/*.npy") if path.name.startswith(label))
    # Blocks, not length: a file that is being built may be longer than what is on disk.
    return sum(path.stat().st_blocks for path in files) * 512 / 2**20
