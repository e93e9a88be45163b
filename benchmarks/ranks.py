"""Several GPUs for one cell: ``torchrun --nproc-per-node 8 -m benchmarks.run suite=...``.

All ranks finetune together. Everything else, from claiming a cell to its record, is the first
rank's work, for which the others wait.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed

from wavedp.dp.distributed import World

PATIENCE = timedelta(days=7)
"""Of ranks that wait while the first one samples and scores."""


@contextmanager
def joined() -> Iterator[World]:
    """The ranks that ``torchrun`` started, until the end of the run; one without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield World.current()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield World.current()
    finally:
        torch.distributed.destroy_process_group()


def call(cell: str | None) -> None:
    """By the first rank: all finetune this cell now; None ends the run."""
    World.current().agreed(cell)


def called() -> Iterator[str]:
    """By the other ranks: the cells that they are called to, until the end of the run."""
    while (cell := World.current().agreed(None)) is not None:
        yield cell
