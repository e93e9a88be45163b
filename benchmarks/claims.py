"""Which process runs a cell: one, however many share a results folder, on however many machines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from benchmarks.record import Record, load


class Claim:
    """The right to run a cell, as of when its grid began.

    Args:
        folder: the suite's results folder, which all of the processes see.
        cell: the name of the cell's record.
    """

    def __init__(self, folder: Path, cell: str) -> None:
        self._record = folder / "records" / f"{cell}.json"
        self._lock = folder / "locks" / f"{cell}.lock"
        self._before = self._written()

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Hold the cell; False where another process does.

        The system takes the lock from a process that ends, however it ends.
        """
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def settled(self) -> Record | None:
        """What another process recorded since the grid began; to be asked while it is held."""
        return None if self._written() == self._before else load(self._record)

    def _written(self) -> tuple[int, int] | None:
        """Tells one file at the record's place from another."""
        try:
            found = self._record.stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino
