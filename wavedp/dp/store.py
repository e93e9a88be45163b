"""Where mapped private records are kept between runs: a folder for its owner's eyes only."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from wavedp.dp.written import replacing

_README = """\
This folder holds PRIVATE data: images, tokens or captions of the private side of data sets.
Do not publish, commit or copy it. It can be deleted at any time; the next run builds it again.
"""


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can open, with a note on what it holds."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    note = path / "README.txt"
    if not note.exists():
        note.write_text(_README)
    return path


class PrivateStore:
    """Columns of tensors on disk, by a public key.

    Args:
        folder: made private when something is first kept.
        identity: what the records are: data set, version, size, and for data in files what
            changes when the files do. Two sets of records must never share one.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder, self._identity = folder, identity

    def load(self, key: str) -> dict[str, Tensor] | None:
        """What was kept under this key, memory-mapped; None if nothing whole is there."""
        try:
            return dict(torch.load(self._path(key), mmap=True, weights_only=True))
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
            return None

    def save(self, key: str, columns: Mapping[str, Tensor]) -> None:
        """Keep columns under this key: wholly or, if interrupted, not at all."""
        private_folder(self._folder)
        with replacing(self._path(key), for_owner=True) as file:
            torch.save(dict(columns), file)

    def derived(self, key: str) -> PrivateStore:
        """The store of what is mapped from the records kept under ``key``."""
        return PrivateStore(self._folder, f"{self._identity} -> {key}")

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(f"{self._identity} -> {key}".encode()).hexdigest()[:32]
        return self._folder / f"{name}.pt"
