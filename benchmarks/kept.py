"""Arrays of statistics kept on disk under the hash of what they were computed from.

They come from evaluation images, so the folder opens for its owner only and nothing of it goes
into a record. It is ``$WAVEDP_CACHE/statistics``, else beside the kept accounting; it can be
deleted at any time, and where nothing can be written nothing is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from wavedp.dp.answers import folder as accounting_folder
from wavedp.dp.written import replacing


def kept(key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array kept under ``key``, or what ``make`` gives, which is then kept.

    Args:
        key: everything that the array depends on; contents as digests.
    """
    digest = hashlib.sha256(key.encode()).hexdigest()
    # RuntimeError: a user without a home. ValueError, EOFError: a torn or foreign file.
    with suppress(OSError, RuntimeError, ValueError, EOFError):
        found = np.load(folder() / f"{digest}.npy", allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
    made = make()
    with suppress(OSError, RuntimeError):
        _keep(made, folder() / f"{digest}.npy")
    return made


def folder() -> Path:
    """Where statistics are kept.

    Raises:
        RuntimeError: no variable names a place and the user has no home.
    """
    return accounting_folder().parent / "statistics"


def _keep(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with replacing(path, for_owner=True) as file:
        np.save(file, array, allow_pickle=False)
