"""Files that are written whole or not at all, and those of which it is said later whether they
are kept."""

from __future__ import annotations

import os
from pathlib import Path

from wavedp.dp.written import replacing


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

    @property
    def unsettled(self) -> bool:
        """Whether something was written, and neither kept nor forgotten."""
        return self._partial.exists()

    def settle(self, own: bool) -> None:
        """Keep what a process wrote that was killed before it could, or forget it.

        Args:
            own: whether it is what the record knows.
        """
        if self.unsettled:
            self.keep() if own else self.discard()

    def discard(self) -> None:
        """Forget what was written and not kept."""
        self._partial.unlink(missing_ok=True)


def write(path: Path, content: str | bytes, for_owner: bool = False) -> Path:
    """Write a text (in UTF-8) or bytes by :func:`replacing`, and return ``path``."""
    with replacing(path, for_owner) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path
