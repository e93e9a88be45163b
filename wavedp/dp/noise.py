"""Gaussian noise, drawn in float32 from a stream that is given explicitly."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from wavedp.dp.randomness import Stream


class GaussianNoise:
    """Adds N(0, std^2) to sums.

    The noise is float32 whatever the model computes in: half-precision noise has too few values.
    As in other libraries, the samples are floating-point numbers, with what Mironov (2012) says
    about their lowest bits.

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
        on_processor = self.stream.generator(step)
        on_gpu: dict[torch.device, torch.Generator] = {}
        for total in sums.values():
            if total.device.type == "cpu":
                drawn = on_processor.standard_normal(total.shape, dtype=np.float32)
                total.add_(torch.as_tensor(drawn), alpha=self.std)
                continue
            if total.device not in on_gpu:
                on_gpu[total.device] = self.stream.torch_generator(step, total.device)
            drawn_there = torch.randn(
                total.shape,
                generator=on_gpu[total.device],
                device=total.device,
                dtype=torch.float32,
            )
            total.add_(drawn_there, alpha=self.std)
