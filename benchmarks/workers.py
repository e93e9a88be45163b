"""Several processes of one machine for one grid: ``benchmarks.run ... hardware.workers=2``.

The others run the same command: each cell is run by whoever is free (:mod:`benchmarks.claims`). On
a CPU two processes with half of the cores each are faster than one with all of them, whose small
networks leave much of a second core idle. What the others say goes to files, and the first tells of
their cells.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from omegaconf import DictConfig

from benchmarks import ranks
from benchmarks.console import console
from benchmarks.hardware import pick_device
from wavedp.dp.errors import UserError

AUTO = "auto"
MOST = 4
"""Processes on a CPU: each takes some 2 GB."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
ENDED, STOPPED = (0, 1), 130
"""Exit codes of a run whose cells are done or failed, and of one that was told to stop."""


def check(config: DictConfig) -> None:
    """Refuse what several processes cannot do.

    Raises:
        UserError: their number is none, or each of them would do all of it.
    """
    workers = config.hardware.workers
    if workers != AUTO and (not isinstance(workers, int) or workers < 1):
        raise UserError(f"hardware.workers must be {AUTO}, 1 or more, got {workers}.")
    if count(config) > 1 and (config.force or ranks.started() > 1):
        why = "force=true" if config.force else "torchrun"
        raise UserError(
            f"hardware.workers={workers} does not go with {why}: set hardware.workers=1."
        )


def count(config: DictConfig) -> int:
    """How many processes: one per GPU or, where there is none, per core, as far as memory goes."""
    workers = config.hardware.workers
    if workers != AUTO:
        return int(workers)
    if pick_device(config.hardware.device).type == "cuda":
        return torch.cuda.device_count()
    return min(MOST, os.cpu_count() or 1)


def threads(config: DictConfig) -> int | None:
    """How many threads this process has; None leaves it to torch."""
    given, workers = config.hardware.threads, count(config)
    if given or workers == 1:
        return given or None
    return max(1, (os.cpu_count() or 1) // workers)


@contextmanager
def helped(overrides: Sequence[str], config: DictConfig) -> Iterator[None]:
    """Within it, other processes take cells of the same grid.

    They end by themselves when no cell is left. Where the block is left by an exception they are
    told to stop, which they do after the step that runs, as this process does.

    Args:
        overrides: of this process.
    """
    own = ["hardware.workers=1", f"hardware.threads={threads(config) or 'null'}"]
    command = [sys.executable, "-m", "benchmarks.run", *overrides, *own]
    said = Path(config.cache_dir) / "workers"
    helpers = [
        _started(command, worker, said / f"{worker}.log") for worker in range(1, count(config))
    ]
    if helpers:
        console.print(f"{1 + len(helpers)} processes; what the others say: {said}")
    try:
        yield
    except BaseException:
        for helper in helpers:
            helper.terminate()
        raise
    finally:
        for worker, helper in enumerate(helpers, 1):
            if helper.wait() not in (*ENDED, STOPPED):
                log = f"{said / str(worker)}.log"
                console.print(f"a process ended with code {helper.returncode}: {log}")


def _started(command: Sequence[str], worker: int, log: Path) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as said:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=os.environ | own_gpu(worker),
            start_new_session=True,  # Ctrl-C reaches the first alone, which hands it on once
        )


def own_gpu(worker: int | None) -> dict[str, str]:
    """What lets a worker see one GPU of several; nothing where there are no others.

    The first of them is worker 0, and the one beyond the last GPU begins again at the first. A
    launcher that gives each job its GPUs, as SLURM's does, leaves one to see, and this nothing to
    do.
    """
    visible = os.environ.get(VISIBLE)
    count = torch.cuda.device_count() if visible is None else 0
    names = [str(n) for n in range(count)] if visible is None else visible.split(",")
    if worker is None or len(names) < 2:
        return {}
    return {VISIBLE: names[worker % len(names)]}
