"""The wavelet transform of a batch beside a loop of PyWavelets over its images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pywt
import torch

from benchmarks.throughput.comparison import Comparison, Sides, on_cpu
from benchmarks.throughput.table import device_here
from wavedp.wavelet.transform import PERIODIC, decompose, reconstruct

BATCH, SIDE, LEVELS = 256, 64, 3
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
            rows.append(Comparison("transform", case, BATCH, bound, on_cpu(limit), turns=9))
    return rows


def forward(wavelet: str, folder: Path) -> Sides:
    """Images to scales."""
    del folder
    images = torch.rand(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    here, arrays = images.to(device_here()), images.numpy()
    return Sides(
        lambda: decompose(here, LEVELS, wavelet),
        lambda: [pywt.wavedec2(image, wavelet, PERIODIC, LEVELS) for image in arrays],
    )


def backward(wavelet: str, folder: Path) -> Sides:
    """Scales to images."""
    del folder
    images = torch.rand(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    scales = decompose(images.to(device_here()), LEVELS, wavelet)
    each = [pywt.wavedec2(image, wavelet, PERIODIC, LEVELS) for image in images.numpy()]
    return Sides(
        lambda: reconstruct(scales, wavelet),
        lambda: [pywt.waverec2(coefficients, wavelet, PERIODIC) for coefficients in each],
    )
