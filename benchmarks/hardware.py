"""The machine: device, threads, memory and disk, and a meter for peak memory."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path

import psutil
import torch

from benchmarks.provenance import processor
from benchmarks.record import Hardware
from wavedp.dp.errors import UserError


def pick_device(name: str) -> torch.device:
    """``auto`` is a GPU where there is one, else the CPU.

    Raises:
        UserError: the named device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            "hardware.device=cuda, but torch sees no GPU here; use hardware.device=cpu."
        )
    return torch.device(name)


def describe(device: torch.device) -> Hardware:
    """The machine as a record keeps it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Hardware(
        device=name,
        processor=processor(),
        threads=torch.get_num_threads(),
        memory_gb=round(psutil.virtual_memory().total / 2**30, 1),
    )


def check_room(folder: Path, disk_mb: float, memory_mb: float) -> None:
    """Refuse to start without room for caches, records and the run itself.

    Raises:
        UserError: too little free disk or memory.
    """
    free = shutil.disk_usage(existing_parent(folder)).free / 2**20
    if free < disk_mb:
        raise UserError(
            f"{folder} has {free:.0f} MB free and the run needs about {disk_mb:.0f} MB; "
            "free some or set results_dir and cache_dir to another disk."
        )
    available = psutil.virtual_memory().available / 2**20
    if available < memory_mb:
        raise UserError(
            f"{available:.0f} MB of memory are available and the run needs about "
            f"{memory_mb:.0f} MB; close other programs, or use fewer records and samples."
        )


def check_writable(folder: Path, setting: str) -> None:
    """Refuse to start where a folder can neither be made nor written.

    Args:
        setting: what names the folder, for the error.

    Raises:
        UserError: it cannot.
    """
    place = existing_parent(folder)
    if not place.is_dir():
        raise UserError(
            f"{place} is a file, and a folder is needed there: set {setting} elsewhere."
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(
            f"{place} cannot be written by you: set {setting} to a folder that can, or have its "
            "owner open it."
        )


def existing_parent(folder: Path) -> Path:
    """The folder or its nearest parent that exists."""
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    return folder


class PeakMemory:
    """Peak memory of a block on a GPU, in MB: what its tensors take there beside earlier ones.

    None on a CPU: there the process alone could be asked, which holds what earlier cells and the
    metrics have left in it.

    >>> with PeakMemory(torch.device("cuda")) as peak: ...
    """

    megabytes: float | None = None

    def __init__(self, device: torch.device) -> None:
        self._device, self._before = device, 0

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            gc.collect()  # what an earlier cell has left must not be let go of within the block
            self._before = torch.cuda.memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device) - self._before
            self.megabytes = round(peak / 2**20, 1)
