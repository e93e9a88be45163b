"""Gaussian noise from a stream that is given explicitly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavedp.dp.randomness import Stream

CHUNK = 2**16
"""Numbers at a time, which stay in a processor's cache."""


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
        on_processor: list[np.ndarray] = []
        on_gpu: dict[torch.device, torch.Generator] = {}
        for total in sums.values():
            if total.device.type == "cpu":
                on_processor += np.split(total.view(-1).numpy(), range(CHUNK, total.numel(), CHUNK))
                continue
            if total.device not in on_gpu:
                on_gpu[total.device] = self.stream.torch_generator(step, total.device)
            drawn = torch.randn(
                total.shape,
                generator=on_gpu[total.device],
                device=total.device,
                dtype=torch.float64,
            )
            total.copy_(self._rounded(drawn.mul_(self.std).add_(total)))
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(
                pool.map(partial(self._add_to_chunk, step), range(len(on_processor)), on_processor)
            )

    def _add_to_chunk(self, step: int, number: int, total: np.ndarray) -> None:
        """Each chunk has a generator of its own, so threads do not change the noise."""
        drawn = self.stream.generator(step, number).standard_normal(len(total))
        drawn *= self.std
        drawn += total
        total[:] = self._rounded(drawn)

    def _rounded(self, noisy: Any) -> Any:
        """To the grid, in place: numbers as large as this one have a last bit worth it."""
        large = 1.5 * 2.0**52 * 2.0 ** (math.floor(math.log2(self.std)) - 30)
        noisy += large
        noisy -= large
        return noisy
