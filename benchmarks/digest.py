"""SHA-256 of what is public, or of what stays on the user's machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_lines(lines: Sequence[str]) -> str:
    """Hex digest of a list of texts; each ends with a newline, so their borders count."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.replace("\n", " ").encode() + b"\n")
    return digest.hexdigest()


def sha256_of_array(array: np.ndarray, rows: int = 256) -> str:
    """Hex digest of an array's type, shape and values, a few rows at a time.

    Not for records: the digest of evaluation images stays in the cache on the user's machine.
    """
    digest = hashlib.sha256(f"{array.dtype} {array.shape}\n".encode())
    for start in range(0, len(array), rows):
        digest.update(np.ascontiguousarray(array[start : start + rows]).data)
    return digest.hexdigest()
