"""Gaussian noise from a stream that is given explicitly."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from wavedp.dp.randomness import Stream

CHUNK = 2**15
"""Numbers at a time, so that they stay in the processor's cache."""


class GaussianNoise:
    """Adds N(0, std^2) to sums.

    Drawn and added in float64, whatever the model computes in: half-precision noise has too few
    values. The noisy sum is then rounded to multiples of about a billionth of the noise, because
    the lowest bits of the numbers that noise can take would tell the sum (Mironov 2012).

    Args:
        std: standard deviation (sigma times the sensitivity), 0 for none.
        stream: by default fresh from the operating system.
    """

    def __init__(self, std: float, stream: Stream | None = None) -> None:
        self.std = std
        self.stream = stream or Stream.fresh(None, "noise")

    def add_to(self, sums: Mapping[str, Tensor], step: int) -> None:
        """Add the step's noise to every tensor in place; every step has its own."""
        if self.std == 0:
            return
        # Numbers of this size have a last bit worth the grid: adding one rounds to the grid.
        rounder = 1.5 * 2.0**52 * 2.0 ** (math.floor(math.log2(self.std)) - 30)
        on_processor = self.stream.generator(step)
        on_gpu: dict[torch.device, torch.Generator] = {}
        for total in sums.values():
            if total.device.type == "cpu":
                self._add_on_processor(total.view(-1).numpy(), on_processor, rounder)
                continue
            if total.device not in on_gpu:
                on_gpu[total.device] = self.stream.torch_generator(step, total.device)
            drawn = torch.randn(
                total.shape,
                generator=on_gpu[total.device],
                device=total.device,
                dtype=torch.float64,
            )
            total.copy_(drawn.mul_(self.std).add_(total).add_(rounder).sub_(rounder))

    def _add_on_processor(
        self, total: np.ndarray, generator: np.random.Generator, rounder: float
    ) -> None:
        buffer = np.empty(min(len(total), CHUNK))
        for start in range(0, len(total), CHUNK):
            part = total[start : start + CHUNK]
            drawn = buffer[: len(part)]
            generator.standard_normal(out=drawn)
            drawn *= self.std
            drawn += part
            drawn += rounder
            drawn -= rounder
            part[:] = drawn
