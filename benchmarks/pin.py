"""Pins: digests of files whose source publishes none, taken when they were fetched.

A pin lies beside its file, ``weights.safetensors.sha256``, as ``sha256sum --check`` reads it. It
does not say that the file is the right one, only that it is still the one that was fetched.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.digest import sha256
from benchmarks.written import write
from wavedp.dp.errors import UserError


def pin_of(path: Path) -> Path:
    """Where the pin of a file lies."""
    return path.with_name(f"{path.name}.sha256")


def pinned(path: Path) -> str | None:
    """The SHA-256 that the file had when it was pinned; None if it was not, or its pin is torn."""
    try:
        words = pin_of(path).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return None
    return words[0] if words and re.fullmatch("[0-9a-f]{64}", words[0]) else None


def pin(path: Path) -> str:
    """Pin a file to the digest that it has now, which is returned.

    Raises:
        UserError: nothing can be written beside it.
    """
    digest = sha256(path)
    try:
        write(pin_of(path), f"{digest}  {path.name}\n")
    except OSError as error:
        raise UserError(
            f"{pin_of(path)} cannot be written ({error.strerror or error}); copy {path.name} into "
            "a folder that WAVEDP_WEIGHTS names and that you can write to."
        ) from error
    return digest
