"""Memory: the peak so far, and the largest micro-batch that fits, tried with made-up records."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wavedp.dp.clipping import Engine

SHARE = 0.6
"""Of the memory that is free on a CPU; on a GPU the answer is tried out."""


def largest_micro_batch(
    engine: Engine, columns: Mapping[str, Any], device: torch.device, expected_batch: int
) -> int:
    """The largest that fits, and no larger than splits a logical batch evenly.

    Only shapes and types of the columns are looked at: records of zeros stand in for them.

    Args:
        engine: one that is not used afterwards; its sums are left as they are.
        columns: name to tensor, one row per record.
        expected_batch: E[batch]; more than four standard deviations above is hardly ever drawn.
    """
    drawn = expected_batch + math.ceil(4 * math.sqrt(expected_batch))
    find = _by_trying if device.type == "cuda" else _by_growth
    fits = min(find(engine, columns, device, drawn), drawn)
    return -(-drawn // -(-drawn // fits))


def _by_trying(engine: Engine, columns: Mapping[str, Any], device: torch.device, most: int) -> int:
    size = 1
    while size < most:
        try:
            _add_zeros(engine, columns, device, 2 * size)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        size *= 2
    return size


def _by_growth(engine: Engine, columns: Mapping[str, Any], device: torch.device, most: int) -> int:
    """Without an error to catch, from how the peak of the process grows with the batch."""
    size, before = 1, peak_bytes(device)
    while size < most:
        _add_zeros(engine, columns, device, size)
        grown = peak_bytes(device) - before
        if 2 * grown > SHARE * _free_bytes():
            break
        size *= 2
    return size


def _add_zeros(engine: Engine, columns: Mapping[str, Any], device: torch.device, size: int) -> None:
    batch: dict[str, Tensor] = {
        name: torch.zeros((size, *values.shape[1:]), dtype=values.dtype, device=device)
        for name, values in columns.items()
    }
    engine.add(batch, torch.ones(size, dtype=torch.bool, device=device))


def peak_bytes(device: torch.device) -> int:
    """The most memory so far: of the process on a CPU, of tensors on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
