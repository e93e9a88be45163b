"""The wavelet transform of a batch beside a loop of PyWavelets over its images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pywt
import torch

from benchmarks.throughput.comparison import Comparison, Sides, on_cpu
from benchmarks.throughput.table import device_here
from wavedp.wavelet.transform import PERIODIC, decompose, reconstruct

BATCH, SIDE, LEVELS = 256, 64, 3
IN_A_ROW = 5
"""Batches that one turn takes: throughput, not the first call after other work."""
HAAR, OTHERS = 1 / 5, 1 / 2
"""What the ratio of the times must not exceed on a CPU."""


def planned() -> list[Comparison]:
    """A row per wavelet and direction."""
    rows = []
    for wavelet in ("haar", "db2", "db4", "sym4", "coif1", "bior2.2"):
        limit = HAAR if wavelet == "haar" else OTHERS
        for name, make in (("decompose", forward), ("reconstruct", backward)):
            case = f"{name}, {wavelet}, {LEVELS} levels, {SIDE} px"
            bound = partial(make, wavelet)
            count = IN_A_ROW * BATCH
            rows.append(Comparison("transform", case, count, bound, on_cpu(limit), turns=9))
    return rows


def in_a_row(work: Callable[[], object]) -> Callable[[], object]:
    """The same work several times, each result dropped before the next."""

    def run() -> None:
        for _ in range(IN_A_ROW):
            work()

    return run


def forward(wavelet: str, folder: Path) -> Sides:
    """Images to scales."""
    del folder
    images = torch.rand(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    here, arrays = images.to(device_here()), images.numpy()
    return Sides(
        in_a_row(lambda: decompose(here, LEVELS, wavelet)),
        in_a_row(lambda: [pywt.wavedec2(image, wavelet, PERIODIC, LEVELS) for image in arrays]),
    )


def backward(wavelet: str, folder: Path) -> Sides:
    """Scales to images."""
    del folder
    images = torch.rand(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    scales = decompose(images.to(device_here()), LEVELS, wavelet)
    each = [pywt.wavedec2(image, wavelet, PERIODIC, LEVELS) for image in images.numpy()]
    return Sides(
        in_a_row(lambda: reconstruct(scales, wavelet)),
        in_a_row(lambda: [pywt.waverec2(each_one, wavelet, PERIODIC) for each_one in each]),
    )
