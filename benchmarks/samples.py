"""The samples of a cell: drawn once, kept in the user's cache, scored as often as one likes.

They are what the cell's generator released. A metric that is asked for later, or whose weights are
fetched later, is computed from them; without them it would take another private training, which is
another release. ``<cache_dir>/samples/<cell>.npy`` is an ordinary array, uint8 ``[n, 3, R, R]``, in
the order of the prompts. The folder opens for its owner only: the samples of the non-private rows
and of the oracle are covered by no epsilon.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.written import Provisional
from wavedp.dp.errors import UserError
from wavedp.dp.written import replacing

STRIP = 16
"""Samples kept as a picture, one per shared prompt."""


class Samples(Provisional):
    """Where the samples of one cell are.

    :meth:`write` draws them into a file of another name; :meth:`show` makes the record's picture of
    them and :meth:`keep` gives them their own name when the record is saved: so a record never
    finds the samples of a run that did not finish.

    Args:
        cache_dir: the user's cache.
        cell: the cell's identity, which is the record's name.
    """

    def __init__(self, cache_dir: str | Path, cell: str) -> None:
        super().__init__(Path(cache_dir) / "samples" / f"{cell}.npy")

    def write(self, batches: Iterable[Tensor], count: int, resolution: int) -> np.ndarray:
        """Write batches as they come, so that they are in memory one at a time.

        Args:
            batches: uint8 ``[b, 3, R, R]``, ``count`` images together.

        Returns:
            All of them, memory-mapped and read-only.

        Raises:
            UserError: they are not what was promised, or the disk is full.
        """
        shape, written = (count, 3, resolution, resolution), 0
        try:
            # Plain writes raise where the disk is full; a memory map would kill the process.
            with self._begin().open("wb") as file:
                form = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, form)
                for images in batches:
                    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != shape[1:]:
                        found = f"{images.dtype} {list(images.shape)}"
                        raise UserError(f"Samples must be uint8 [b, 3, R, R], and are {found}.")
                    file.write(images.contiguous().numpy().data)
                    written += len(images)
        except OSError as error:
            raise UserError(
                f"The samples {self._partial} cannot be written ({error.strerror or error}); free "
                "some space or set cache_dir to another disk."
            ) from error
        if written != count:
            raise UserError(f"The method drew {written} images for {count} prompts.")
        return _mapped(self._partial)

    def show(self, strip: Path) -> None:
        """Make the record's picture of what :meth:`write` wrote."""
        save_strip(_mapped(self._partial), strip)

    def open(self, count: int, strip: Path) -> np.ndarray | None:
        """The kept samples, memory-mapped, if they are those of a record.

        Cells of two suites may have one identity, and each its own noise. The record's picture,
        which is lossless, tells their samples apart.

        Args:
            count: how many samples the record scored.
            strip: the record's picture, made by :func:`save_strip`.

        Returns:
            None if they are not there, or are those of another run.
        """
        return _shown(self.file, count, strip)

    def finish(self, count: int, strip: Path) -> None:
        """Keep what was drawn for a record, if its process was killed between the two.

        Args:
            count, strip: as for :meth:`open`.
        """
        self.settle(_shown(self._partial, count, strip) is not None)


def _shown(path: Path, count: int, strip: Path) -> np.ndarray | None:
    """Samples in a file, if there are so many and they are those of a picture."""
    try:
        images = _mapped(path)
        with Image.open(strip) as picture:
            first = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, EOFError):
        return None
    if images.ndim != 4 or len(images) != count or images.dtype != np.uint8:
        return None
    return images if np.array_equal(side_by_side(images[:STRIP]), first) else None


def save_strip(images: np.ndarray, path: Path) -> None:
    """The first images of ``[n, 3, H, W]`` side by side as a lossless PNG."""
    with replacing(path) as file:
        Image.fromarray(side_by_side(images[:STRIP])).save(file, "PNG")


def side_by_side(images: np.ndarray) -> np.ndarray:
    """Images ``[n, 3, H, W]`` as one of ``[H, n W, 3]``."""
    row = images.transpose(2, 0, 3, 1)
    return np.ascontiguousarray(row.reshape(images.shape[2], -1, 3))


def _mapped(path: Path) -> np.ndarray:
    images: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return images
