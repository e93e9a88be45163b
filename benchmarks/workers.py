"""Several processes of one machine for one grid: ``benchmarks.run ... hardware.workers=2``.

The others run the same command, and each cell is run by whoever is free (:mod:`benchmarks.claims`).
On a CPU two processes with half of the cores each are faster than one with all of them, whose small
networks leave much of a second core idle. The first process tells of all cells, makes the report
and has the exit code. What the others say goes to files, which stay where one of them went wrong.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.markup import escape

from benchmarks import ranks, stopping
from benchmarks.claims import Stamp, stamps_of
from benchmarks.console import console
from benchmarks.hardware import pick_device
from benchmarks.written import write
from wavedp.dp.errors import UserError

AUTO = "auto"
MOST = 4
"""Processes on a CPU that ``auto`` takes at most: each needs some 2 GB."""
BEFORE = "WAVEDP_GRID_BEFORE"
"""A helper is told by it where it reads which records were there when its grid began."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
PAUSE = 0.2
"""Seconds between two looks at a helper that is waited for."""


def check(config: DictConfig) -> None:
    """Refuse what several processes cannot do.

    Raises:
        UserError: their number is none, or each of them would do all of it, or use one GPU.
    """
    workers = config.hardware.workers
    number = isinstance(workers, int) and not isinstance(workers, bool) and workers >= 1
    if not (number or workers == AUTO):
        raise UserError(f"hardware.workers must be {AUTO}, 1 or more, got {workers}.")
    if count(config) == 1 or config.dry_run:
        return
    device = str(config.hardware.device)
    why = _alone(config) or (f"hardware.device={device}" if ":" in device else "")
    if why:
        raise UserError(f"hardware.workers={workers} does not go with {why}: set it to 1.")


def count(config: DictConfig) -> int:
    """How many processes: one per GPU or, where there is none, per core or ``hardware.threads``."""
    workers = config.hardware.workers
    if workers != AUTO:
        return int(workers)
    if _alone(config) or config.dry_run:
        return 1
    if pick_device(config.hardware.device).type == "cuda":
        return torch.cuda.device_count()
    return min(MOST, max(1, _cores() // (config.hardware.threads or 1)))


def threads(config: DictConfig) -> int | None:
    """How many threads this process has; None leaves it to torch."""
    given, workers = config.hardware.threads, count(config)
    if given or workers == 1:
        return given or None
    return max(1, _cores() // workers)


def _alone(config: DictConfig) -> str:
    """What makes every process do all of it; empty where they can share it."""
    if config.force:
        return "force=true"
    if config.untrained:
        return "untrained"
    return "torchrun" if ranks.started() > 1 else ""


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def helping() -> bool:
    """Whether this process helps with the grid of another one."""
    return BEFORE in os.environ


def before(folder: Path) -> dict[str, Stamp]:
    """The records that were there when the grid began, of this process or the one that it helps.

    Args:
        folder: the suite's results folder.
    """
    if not helping():
        return stamps_of(folder)
    told = json.loads(Path(os.environ[BEFORE]).read_text())
    return {cell: (written, place) for cell, (written, place) in told.items()}


@contextmanager
def helped(
    overrides: Sequence[str], config: DictConfig, before: Mapping[str, Stamp], cells: int
) -> Iterator[None]:
    """Within it, other processes take cells of the same grid.

    They end when no cell is left. Where the block is left by an exception, or somebody wants this
    process to stop while it waits for them, they stop after the step that runs; if this process
    dies, too.

    Args:
        overrides: of this process.
        before: the records that were there when the grid began.
        cells: how many there are to be run.
    """
    others = 0 if helping() else min(count(config), cells) - 1
    if others < 1:
        yield
        return
    place = Path(config.cache_dir) / "workers"
    name = f"{config.suite.name}-{os.getpid()}"
    told = write(place / f"{name}.json", json.dumps(before))
    place.chmod(0o700)  # a traceback may quote a value of a private record
    helpers: list[Helper] = []
    try:
        for worker in range(1, others + 1):
            helpers.append(Helper(overrides, worker, place / f"{name}-{worker}.log", told))
        console.print(f"{1 + others} processes share the grid")
        yield
    except BaseException:
        for helper in helpers:
            helper.stop()
        raise
    finally:
        for helper in helpers:
            helper.wait()
        told.unlink(missing_ok=True)


class Helper:
    """Another process of the same command.

    Args:
        overrides: of the command.
        worker: its number, from 1.
        log: for what it says.
        before: see :data:`BEFORE`.
    """

    def __init__(self, overrides: Sequence[str], worker: int, log: Path, before: Path) -> None:
        self._log, self._stopped = log, False
        own = {BEFORE: str(before), stopping.LEADER: str(os.getpid())}
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.run", *overrides],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=os.environ | own_gpu(worker) | own,
                start_new_session=True,  # Ctrl-C reaches the first alone, which hands it on
            )

    def stop(self) -> None:
        """Tell it to stop after the step that runs; told twice, at once."""
        self._stopped = True
        self._process.terminate()

    def wait(self) -> None:
        """Until it has ended; tells of one that went wrong."""
        while self._process.poll() is None:
            try:
                if stopping.asked() and not self._stopped:
                    self.stop()
                self._process.wait(PAUSE)
            except subprocess.TimeoutExpired:
                continue
            except KeyboardInterrupt:
                self.stop()
        if self._process.returncode and not self._stopped:
            ended = f"a process ended with code {self._process.returncode}: {self._log}"
            console.print(escape(ended), soft_wrap=True)
        else:
            self._log.unlink(missing_ok=True)


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
