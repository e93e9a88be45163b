"""The embedded text encoder, which needs no download and no training."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_WORD = re.compile(r"[a-z0-9]+")


class HashedText:
    """Random features of words and word pairs: frozen, public, the same on every machine.

    Each word, and each pair of neighbouring words ("red hat" apart from "red", "hat"), has a
    fixed Gaussian vector derived from its BLAKE2 hash; a caption is their scaled sum. Nothing
    is learned, so no vocabulary is computed from any data, private or public.

    Args:
        slots: length L of the sequence a caption becomes.
        width: size of each slot's vector.
    """

    def __init__(self, slots: int = 4, width: int = 96) -> None:
        self.slots = slots
        self.width = width

    @property
    def key(self) -> str:
        """See :class:`~wavedp.nn.text.TextEncoder`."""
        return f"HashedText 1 {self.slots}x{self.width}"

    def too_long(self, captions: Sequence[str]) -> int | None:
        """See :class:`~wavedp.nn.text.TextEncoder`: nothing is too long."""
        del captions
        return None

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Captions to float32 ``[n, slots, width]`` of about unit variance.

        An empty caption gives zeros, which is also the null text of classifier-free guidance.
        """
        rows = np.zeros((len(captions), self.slots * self.width), dtype=np.float32)
        for row, caption in zip(rows, captions, strict=True):
            row[:] = self._encode(caption)
        return torch.from_numpy(rows).view(-1, self.slots, self.width)

    def _encode(self, caption: str) -> np.ndarray:
        words = _WORD.findall(caption.lower())
        pairs = [f"{a} {b}" for a, b in itertools.pairwise(words)]
        if not words:
            return np.zeros(self.slots * self.width, dtype=np.float32)
        total = np.sum([_feature(f, self.slots * self.width) for f in words + pairs], axis=0)
        return np.asarray(total / np.sqrt(len(words) + len(pairs)), dtype=np.float32)


@lru_cache(maxsize=65536)
def _feature(text: str, size: int) -> np.ndarray:
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    return np.random.default_rng(seed).standard_normal(size, dtype=np.float32)
