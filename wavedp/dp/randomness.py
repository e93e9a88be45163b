"""Random streams that any step can be drawn from, knowing a seed and the step.

A step's randomness depends on the stream's key and on the step's number alone, not on what was
drawn before. So a run that was killed replays a step with the identical noise and batch, without
generator states to save.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass(frozen=True)
class Stream:
    """Independent generators, one for each step.

    Attributes:
        key: 32 secret bytes; who knows them can take the noise away.
    """

    key: bytes = field(repr=False)

    @classmethod
    def fresh(cls, seed: int | None, name: str) -> Stream:
        """A stream from the operating system's randomness, or a reproducible one.

        A given seed makes noise removable: fine for experiments, not for a release.

        Args:
            seed: None for fresh randomness.
            name: streams of other names are independent, whatever the seed.
        """
        if seed is None:
            return cls(secrets.token_bytes(32))
        return cls(hashlib.blake2b(f"{name} {seed}".encode(), digest_size=32).digest())

    def _digest(self, step: int, purpose: str) -> int:
        text = f"{purpose} {step}".encode()
        return int.from_bytes(hashlib.blake2b(text, key=self.key, digest_size=16).digest())

    def generator(self, step: int, number: int = 0) -> np.random.Generator:
        """A generator of the step's on the processor: Philox under a key of 128 bits.

        Those of other numbers are independent of it.

        NumPy's and not torch's, which takes no more than 32 bits of a seed on a CPU: so few
        streams of noise could be tried one by one. Philox (Salmon et al. 2011) is a cipher with
        fewer rounds, not one that is proven to hide its key.
        """
        return np.random.Generator(np.random.Philox(key=self._digest(step, f"generator {number}")))

    def torch_generator(self, step: int, device: torch.device) -> torch.Generator:
        """The step's generator on a GPU (Philox), seeded with 63 bits; each GPU has its own."""
        return torch.Generator(device).manual_seed(self.seed(step, f"seed {device.index}"))

    def seed(self, step: int, purpose: str = "seed") -> int:
        """The step's seed for a generator that takes 63 bits."""
        return self._digest(step, purpose) >> 65

    def tag(self, step: int) -> str:
        """A name of the step's randomness that tells nothing about it."""
        return f"{self._digest(step, 'tag'):032x}"
