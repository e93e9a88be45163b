"""Preparing photographs beside a bare loop of Pillow's decode and resize, on one thread each.

The bare loop opens, converts, crops and resizes, and keeps nothing; preparing also stamps, checks,
stores and records checksums. The Makefile's settings of the memory allocator are part of the
figure: without them threads give memory back after every image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.throughput.comparison import Comparison, Sides
from wavedp.data.cache import ImageCache, Picture
from wavedp.data.stored import File

PILLOWS_SPEED = 0.9
"""Of this share of the bare speed preparing must not fall short."""
SETS = ((640, 480, 256, 128), (512, 512, 256, 128), (64, 64, 64, 4096))
"""Width, height, side to make, and how many: all take about half a second."""


def planned() -> list[Comparison]:
    """One row per size."""
    rows = []
    for width, height, side, count in SETS:
        make = partial(sides, width=width, height=height, side=side, count=count)
        # A thumbnail takes Pillow a tenth of a millisecond, and opening and storing it as much.
        limit = 1 / PILLOWS_SPEED if side == 256 else None
        case = f"JPEG {width}x{height} to {side} px"
        rows.append(Comparison("prepare", case, count, make, limit, turns=15))
    return rows


def sides(folder: Path, width: int, height: int, side: int, count: int) -> Sides:
    """Files of that size, and both ways to make square images of them."""
    files = write(folder / "photographs", width, height, count)
    cache = ImageCache(
        folder / "cache" / "x.npy",
        [Picture(file.name, File(file)) for file in files],
        root=folder,
        resolution=side,
        private=False,
        workers=1,
    )

    def prepare() -> None:
        cache.discard()
        cache.images()

    return Sides(prepare, lambda: bare(files, side))


def write(folder: Path, width: int, height: int, count: int) -> list[Path]:
    """JPEG files with roughly the spectrum of photographs."""
    folder.mkdir()
    draws = np.random.default_rng(0)
    for number in range(count):
        coarse = draws.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        fine = draws.normal(0, 8, (height, width, 1))
        pixels = np.clip(np.asarray(smooth) + fine, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=90)
    return sorted(folder.iterdir())


def bare(files: Sequence[Path], resolution: int) -> None:
    """The least that Pillow can be asked to do."""
    for file in files:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        square.resize((resolution, resolution), Image.Resampling.LANCZOS)
