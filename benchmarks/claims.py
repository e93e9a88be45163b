"""Which process runs a cell: one, however many share a results folder, on however many machines."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from filelock import FileLock, Timeout

from benchmarks.record import Record, load
from wavedp.dp.errors import UserError

PATIENCE = 0.1
"""Seconds in which a lock is asked for again: who only looks (:func:`held`) has it for less."""


class Claim:
    """The right to run a cell.

    Args:
        folder: the suite's results folder, which all of the processes see.
        cache: where samples and checkpoints lie; another suite may have the same cell there.
        cell: the name of the cell's record.
        since: when the grid began, by the clock of the results folder (:func:`clock_of`).
    """

    def __init__(self, folder: Path, cache: Path, cell: str, since: int = 0) -> None:
        self._places, self._cell, self._since = (folder, cache), cell, since
        self._record = folder / "records" / f"{cell}.json"

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Hold the cell; False where another process does.

        The system takes the lock from a process that ends, however it ends.
        """
        with ExitStack() as held:
            locks = (_lock_of(place, self._cell) for place in self._places)
            mine = all(held.enter_context(_locked(path)) for path in locks)
            yield mine

    @property
    def held(self) -> bool:
        """Whether another process has the cell now, in this suite or in another one."""
        return any(held(place, self._cell) for place in self._places)

    def settled(self) -> Record | None:
        """What another process recorded since the grid began."""
        try:
            written = self._record.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        return load(self._record) if written > self._since else None


def clock_of(folder: Path) -> int:
    """Now, in nanoseconds, by the clock that gives the files of a folder their times."""
    folder.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=folder) as file:
        return os.stat(file.fileno()).st_mtime_ns


def held(place: Path, cell: str) -> bool:
    """Whether a process runs a cell now. It takes nothing from who wants to.

    Args:
        place: the suite's results folder, or the cache.
    """
    path = _lock_of(place, cell)
    if not path.exists():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # which of them is the file system's choice
            return True
    return False


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Run a grid by force, as the only process that does: two would run every cell twice.

    Raises:
        UserError: another process does.
    """
    with _locked(folder / "locks" / "force.lock") as mine:
        if not mine:
            raise UserError(
                f"Another process runs the grid of {folder} by force, and each private cell would "
                "be released twice: wait for it, or start workers without force=true."
            )
        yield


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold a file; False where another process does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE, poll_interval=PATIENCE / 4)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _lock_of(place: Path, cell: str) -> Path:
    return place / "locks" / f"{cell}.lock"
