"""Which process runs a cell: one, however many share a results folder, on however many machines."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from benchmarks.record import Record, load
from wavedp.dp.errors import UserError

Stamp = tuple[int, int]
"""Tells one file at a record's place from another: when its place was changed, which no copy or
``touch`` can set, and where on the disk it lies."""
PATIENCE = 0.1
"""Seconds in which a lock is asked for again: who only looks (:func:`held`) has it for less."""


class Claim:
    """The right to run a cell.

    Args:
        folder: the suite's results folder, which all of the processes see.
        cache: where samples and checkpoints lie; another suite may have the same cell there.
        cell: the name of the cell's record.
        before: the records that were there when the grid began (:func:`stamps_of`); None: it begins
            now.
    """

    def __init__(
        self, folder: Path, cache: Path, cell: str, before: Mapping[str, Stamp] | None = None
    ) -> None:
        self._places, self._cell = (folder, cache), cell
        self._record = folder / "records" / f"{cell}.json"
        self._before = _stamp(self._record) if before is None else before.get(cell)

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
        """What another process recorded since the grid began, whatever the clocks say."""
        stamp = _stamp(self._record)
        return None if stamp in (None, self._before) else load(self._record)


def stamps_of(folder: Path) -> dict[str, Stamp]:
    """The records of a results folder by cell, each with what tells its file from another one."""
    found = {path.stem: _stamp(path) for path in (folder / "records").glob("*.json")}
    return {cell: stamp for cell, stamp in found.items() if stamp is not None}


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ctime_ns, found.st_ino


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
