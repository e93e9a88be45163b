"""Decode a data set: ``python -m benchmarks.prepare dataset=coco2017 dataset.root=/data/coco``.

Checks the data set, decodes and resizes its images on all cores into a memory-mapped cache with
checksums, and verifies what is already there. A run that was stopped goes on where it was. Nothing
decodes an image after that. What is kept of private images is in a folder that only its owner can
open; mapped records (tokens, text embeddings) are kept beside it when a method first makes them.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks import hardware
from benchmarks.config import compose, make
from benchmarks.console import console, run_command, track
from wavedp.data.photos import PRIVATE, PhotoFolder

_MEMORY_MB = 300


def main(overrides: list[str]) -> int:
    """Prepare the data set that the overrides name; returns the exit code."""
    config = compose(overrides)
    dataset: Any = make(config.dataset)
    if isinstance(dataset, PhotoFolder):
        dataset.checked_root()
    sides = declared(dataset)
    folder = Path(config.cache_dir)
    needed = sum(sides.values()) * 3 * dataset.resolution**2 / 2**20
    hardware.check_room(folder, needed - _megabytes(folder), _MEMORY_MB)
    start = time.perf_counter()
    dataset.check(track)
    seconds = time.perf_counter() - start
    counts = ", ".join(f"{count:,} {side}" for side, count in sides.items())
    console.print(
        f"{dataset.name} {dataset.version}: {counts} images of {dataset.resolution} px are ready "
        f"and verified ({seconds:.1f} s)."
    )
    if PRIVATE in sides and isinstance(dataset, PhotoFolder):
        place = dataset.cache_dir / "photos" / PRIVATE
        console.print(f"Private images are in {place}, which only you can open: do not share it.")
    return 0


def declared(dataset: Any) -> dict[str, int]:
    """By side, how many records a data set declares."""
    if isinstance(dataset, PhotoFolder):
        return dataset.declared
    return {PRIVATE: dataset.private_records, "evaluation": dataset.evaluation_records}


def _megabytes(folder: Path) -> float:
    """What the folder takes on disk; a file that is being built may be larger than that."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_blocks for path in files) * 512 / 2**20


if __name__ == "__main__":
    run_command(main)
