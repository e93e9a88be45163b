"""Images of a mapped array as tensors, a batch at a time: what is scored need not be in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

SIZE = 500
"""Images per batch: 100 MB at 256 px."""


class Batches:
    """Some rows of an array ``[n, 3, H, W]``, in order, as uint8 batches ``[b, 3, H, W]``.

    Args:
        images: possibly memory-mapped; a batch is read when its turn comes, every time anew.
        rows: which rows, also more than once; all of them if it is None.
        size: images per batch.
    """

    def __init__(
        self, images: np.ndarray, rows: Sequence[int] | None = None, size: int = SIZE
    ) -> None:
        self._images, self._size = images, size
        self._rows = range(len(images)) if rows is None else rows

    def __len__(self) -> int:
        return -(-len(self._rows) // self._size)

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self._rows), self._size):
            yield read(self._images, self._rows[start : start + self._size])


def read(images: np.ndarray, rows: Sequence[int]) -> Tensor:
    """A copy of these rows, uint8 ``[b, 3, H, W]``."""
    return torch.from_numpy(np.asarray(images[np.asarray(rows, dtype=np.int64)]))
