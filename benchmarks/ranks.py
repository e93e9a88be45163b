"""Several GPUs for one cell: ``torchrun --nproc-per-node 8 -m benchmarks.run suite=...``.

All ranks finetune together. Everything else, from claiming a cell to its record, is the first
rank's work, for which the others wait. So it is the first rank that listens to signals: in the
middle of finetuning all leave after the same step, elsewhere it calls the others to the end.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed

from benchmarks.stopping import SIGNALS
from wavedp.dp.distributed import World
from wavedp.dp.errors import UserError, one_line

PATIENCE = timedelta(days=7)
"""Of ranks that wait while the first one samples and scores."""


def started() -> int:
    """How many ranks ``torchrun`` started; one without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined() -> Iterator[World]:
    """The ranks that ``torchrun`` started, until the end of the run; one without it."""
    if started() < 2:
        yield World.current()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, timeout=PATIENCE)
    world = World.current()
    if not world.leads:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    try:
        yield world
    finally:
        torch.distributed.destroy_process_group()


def call(cell: str | None) -> None:
    """By the first rank: all finetune this cell now; None ends the run."""
    World.current().agreed(cell)


def called() -> Iterator[str]:
    """By the other ranks: the cells that they are called to, until the end of the run."""
    while (cell := World.current().agreed(None)) is not None:
        yield cell


@contextmanager
def led() -> Iterator[None]:
    """The first rank's part of the run; however it ends, the others are called to the end.

    Only where all ranks left or failed together, nobody waits for a call.
    """
    try:
        yield
    except (Scattered, Left):
        raise
    except BaseException:
        call(None)
        raise
    call(None)


class Left(KeyboardInterrupt):
    """What all ranks did together was stopped."""


class Scattered(UserError):
    """What several ranks did together failed, and they stand in different places of it."""


@contextmanager
def together() -> Iterator[None]:
    """What is done in it is done by all ranks.

    Raises:
        Scattered: it failed, and there are several.
        Left: it was stopped.
    """
    try:
        yield
    except KeyboardInterrupt as stopped:
        raise Left from stopped
    except Exception as error:
        if World.current().size == 1:
            raise
        told = one_line(error) if isinstance(error, UserError) else type(error).__name__
        raise Scattered(
            f"{told}. The ranks stand in different places of this cell, so the run ends; the same "
            "command goes on with the others."
        ) from error
