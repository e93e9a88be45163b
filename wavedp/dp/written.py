"""Files that are written whole or not at all: a reader never meets half of one.

While a file is written it has another name and is locked, so what a killed process left can be told
from what another one is writing: the next to write the same file deletes it.
"""

from __future__ import annotations

import fcntl
import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, for_owner: bool = False) -> Iterator[BinaryIO]:
    """A file to fill, which takes the place of ``path`` when the block ends without an error.

    Missing folders are made. The content is on the disk before the file has its name.

    Args:
        for_owner: only the owner can open it, even where an older file was open to others.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    partial, handle = _begun(path, 0o600 if for_owner else 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _begun(path: Path, mode: int) -> tuple[Path, int]:
    """A new file beside ``path``, open and locked."""
    while True:
        # The suffix is one that no reader of a folder looks for.
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with suppress(OSError):  # a file system without locks, where nothing is swept either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if partial.exists():
            return partial, handle
        os.close(handle)  # another process took it for a dead one's before it was locked


def _sweep(path: Path) -> None:
    """Delete what processes left that were killed while they wrote ``path``."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.????????.tmp"):
        with suppress(OSError), left.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink(missing_ok=True)
