"""Gaussian noise from an explicit generator, always drawn in float32."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import torch
from torch import Tensor


class GaussianNoise:
    """Adds N(0, std^2) to sums.

    Args:
        std: standard deviation (sigma times C), 0 for none.
        seed: by default 63 bits from the operating system. A given seed makes the noise
            reproducible and therefore removable: fine for experiments, not for a release,
            and the record of the run says so.
    """

    def __init__(self, std: float, device: torch.device, seed: int | None = None) -> None:
        self.std = std
        self._generator = torch.Generator(device)
        self._generator.manual_seed(secrets.randbits(63) if seed is None else seed)

    def add_to(self, sums: Mapping[str, Tensor]) -> None:
        """Add fresh noise to every tensor in place."""
        if self.std == 0:
            return
        for total in sums.values():
            total += self.std * torch.randn(
                total.shape, generator=self._generator, device=total.device, dtype=torch.float32
            )
