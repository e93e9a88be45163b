"""Which records take part in a step: batches as micro-batches of fixed shape.

A logical batch is a list of :class:`MicroBatch`. All have the same length; the last one is
padded and the mask says which rows count. Fixed shapes keep compiled steps compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class MicroBatch:
    """``index``: int64 ``[m]`` rows to fetch; ``mask``: bool ``[m]``, False for padding."""

    index: Tensor
    mask: Tensor


class Batches(Protocol):
    """An endless stream of logical batches."""

    def __iter__(self) -> Iterator[list[MicroBatch]]: ...


def micro_batches(index: np.ndarray, size: int) -> list[MicroBatch]:
    """Cut ``index`` into rows of ``size``, padding the last one by repeating row 0.

    An empty index gives an empty list: the step is then noise alone.
    There is no cap: as many micro-batches as the draw needs.
    """
    result = []
    for start in range(0, len(index), size):
        part = index[start : start + size]
        rows = np.full(size, part[0], dtype=np.int64)
        rows[: len(part)] = part
        mask = np.arange(size) < len(part)
        result.append(MicroBatch(torch.from_numpy(rows), torch.from_numpy(mask)))
    return result


@dataclass(frozen=True)
class PoissonBatches:
    """Every record joins independently with probability q.

    Drawn as a binomial count and a uniform subset of that size, which is the same
    distribution, exact in float64 for any q, and costs O(batch) instead of O(records).
    """

    size: int
    probability: float
    micro_batch: int
    generator: np.random.Generator

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        while True:
            count = self.generator.binomial(self.size, self.probability)
            index = self.generator.choice(self.size, count, replace=False)
            yield micro_batches(index, self.micro_batch)


@dataclass(frozen=True)
class ShuffledBatches:
    """Epochs over a fresh permutation, the incomplete rest of an epoch dropped.

    Not for private plans: accounting it as Poisson sampling would understate epsilon.
    """

    size: int
    batch: int
    micro_batch: int
    generator: np.random.Generator

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        batch = min(self.batch, self.size)
        while True:
            order = self.generator.permutation(self.size)
            for start in range(0, self.size - batch + 1, batch):
                yield micro_batches(order[start : start + batch], self.micro_batch)
