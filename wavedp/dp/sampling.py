"""Which records take part in a step: logical batches, cut into micro-batches.

A logical batch is an array of rows, drawn anew at every step. It is processed in micro-batches.
Padded, these have one shape and a mask says which rows count: fixed shapes keep compiled steps
compiled. Where nothing is compiled, the last one is shorter instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from wavedp.dp.randomness import Stream


@dataclass(frozen=True)
class MicroBatch:
    """``index``: int64 ``[m]`` rows to fetch; ``mask``: bool ``[m]``, False for padding."""

    index: Tensor
    mask: Tensor


def micro_batches(index: np.ndarray, size: int, pad: bool) -> list[MicroBatch]:
    """Cut a logical batch into parts of ``size``; ``pad`` fills the last by repeating a row.

    An empty index gives an empty list: the step is then noise alone.
    There is no cap: as many micro-batches as the draw needs.
    """
    result = []
    for start in range(0, len(index), size):
        part = index[start : start + size]
        rows = np.full(size if pad else len(part), part[0], dtype=np.int64)
        rows[: len(part)] = part
        mask = np.arange(len(rows)) < len(part)
        result.append(MicroBatch(torch.from_numpy(rows), torch.from_numpy(mask)))
    return result


class Batches(Protocol):
    """Logical batches by the number of their step."""

    def at(self, step: int) -> np.ndarray:
        """Distinct rows, int64 ``[batch]``."""


@dataclass(frozen=True)
class PoissonBatches:
    """Every record joins independently with probability q.

    Drawn as a binomial count and a uniform subset of that size, which is the same
    distribution, exact in float64 for any q, and costs O(batch) instead of O(records).
    """

    size: int
    probability: float
    stream: Stream

    def at(self, step: int) -> np.ndarray:
        generator = self.stream.generator(step)
        count = generator.binomial(self.size, self.probability)
        return generator.choice(self.size, count, replace=False)


@dataclass(frozen=True)
class ShuffledBatches:
    """Epochs over a fresh permutation, the incomplete rest of an epoch dropped.

    Not for private plans: accounting it as Poisson sampling would understate epsilon.
    """

    size: int
    batch: int
    stream: Stream

    def at(self, step: int) -> np.ndarray:
        batch = min(self.batch, self.size)
        epoch, place = divmod(step, self.size // batch)
        return self._order(epoch)[place * batch : (place + 1) * batch]

    @lru_cache(maxsize=1)  # noqa: B019 - one permutation, freed with the next
    def _order(self, epoch: int) -> np.ndarray:
        return self.stream.generator(epoch).permutation(self.size)
