"""Files that are written whole or not at all: a reader never meets half of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, for_owner: bool = False) -> Iterator[BinaryIO]:
    """A file to fill, which takes the place of ``path`` when the block ends without an error.

    Missing folders are made.

    Args:
        for_owner: only the owner can open it, even where an older file was open to others.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is one that no reader of a folder looks for.
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if for_owner else 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class Provisional:
    """A file of the user's cache that is written under another name, and kept or forgotten later.

    Its folder opens for its owner only.

    Args:
        file: its name when it is kept.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._partial = file.with_suffix(".partial")

    def _begin(self) -> Path:
        """Where to write; the folder is there."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.parent.chmod(0o700)
        return self._partial

    def keep(self) -> None:
        """Keep what was written, in the place of what was kept before."""
        os.replace(self._partial, self.file)

    def discard(self) -> None:
        """Forget what was written and not kept."""
        self._partial.unlink(missing_ok=True)


def write(path: Path, content: str | bytes, for_owner: bool = False) -> Path:
    """Write a text (in UTF-8) or bytes by :func:`replacing`, and return ``path``."""
    with replacing(path, for_owner) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path
