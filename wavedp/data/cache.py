"""Decoded images on disk: memory-mapped, with checksums, built in parallel, resumable.

A cache is ``NAME.npy``, an ordinary array of uint8 ``[n, 3, R, R]``, and ``NAME.json``, what it
was made from and a CRC-32 of every block of 64 images (against rot, not malice). While it is
being built its bytes are in ``NAME.partial`` and every finished block is a line of
``NAME.journal``; a build that was killed goes on from there. A block is taken over if its images
have the names, sizes and times they had and its bytes the checksum they had, so a single file
that was mended costs one block.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wavedp.data.decoding import RECIPE, Damaged, decode
from wavedp.data.findings import printable
from wavedp.data.stored import Stored
from wavedp.dp.errors import UserError
from wavedp.dp.progress import Progress, silent
from wavedp.dp.store import private_folder
from wavedp.dp.written import replacing

BLOCK = 64
"""Images per block: about a third of a second of decoding, and 12 MB at 256 px."""


class Picture(NamedTuple):
    """An image to decode: its name within the data set, and where its bytes are."""

    name: str
    image: Stored


def picture_digest(pictures: Sequence[Picture]) -> str:
    """Of names, sizes and times, not of contents: what says whether a cache is stale."""
    return _digest([(picture.name, *picture.image.stamp()) for picture in pictures])


def load_pixels(picture: Picture, resolution: int, root: Path) -> NDArray[np.uint8]:
    """One image of the data set in ``root``, as uint8 ``[3, R, R]``.

    Raises:
        UserError: it cannot be read or decoded.
    """
    try:
        return decode(picture.image.read(), resolution)
    except (OSError, Damaged) as error:
        reason = getattr(error, "strerror", None) or error
        text = (
            f"{root / picture.name} cannot be decoded, it is corrupt, truncated or not an image "
            f"({reason}): copy this file again from the original data set."
        )
        raise UserError(printable(text)) from error


class ImageCache:
    """The cache of one side of a data set.

    Args:
        file: the ``.npy`` file.
        pictures: what it holds, in order.
        root: the folder of the data set, for messages.
        resolution: R in pixels.
        private: make its folder one that only the owner can open.
        workers: decoding threads; by default one per core. Pillow decodes and resizes outside
            Python's lock, so threads do it and nothing is copied between processes.
    """

    def __init__(
        self,
        file: Path,
        pictures: Sequence[Picture],
        *,
        root: Path,
        resolution: int,
        private: bool,
        workers: int | None = None,
    ) -> None:
        self._file, self._sidecar = file, file.with_suffix(".json")
        self._partial, self._journal = file.with_suffix(".partial"), file.with_suffix(".journal")
        self._pictures, self._root, self._resolution = pictures, root, resolution
        self._private, self._workers = private, workers or os.cpu_count()
        self._shape = (len(pictures), 3, resolution, resolution)
        self._header = _npy_header(self._shape)
        self._image_bytes = 3 * resolution**2
        self._digest = picture_digest(pictures)

    def images(self, progress: Progress = silent) -> NDArray[np.uint8]:
        """The images, uint8 ``[n, 3, R, R]``, memory-mapped read-only; built where needed.

        Raises:
            UserError: an image is corrupt, or the cache cannot be written.
        """
        images = self._opened()
        if images is not None:
            return images
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            if self._private:
                private_folder(self._file.parent)
            with self._locked() as descriptor:
                # Another process may have built it while this one waited for the lock.
                if self._opened() is None:
                    self._build(descriptor, progress)
            return np.load(self._file, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
        except OSError as error:
            raise UserError(
                f"The image cache {self._file} cannot be written ({error.strerror or error}): "
                "free some space, or set cache_dir to a folder that can be written."
            ) from error

    def is_built(self) -> bool:
        """Whether there is a cache of these very pictures."""
        return self._opened() is not None

    def damaged(self, progress: Progress = silent) -> bool:
        """Whether the bytes on disk differ from those that were written."""
        stamp = self._read_stamp()
        starts = range(0, len(self._pictures), BLOCK)
        try:
            with open(self._file, "rb") as stream:
                found = [
                    self._checksum(stream.fileno(), start)
                    for start in progress(starts, "verifying the image cache")
                ]
        except OSError:
            return True
        return found != stamp.get("crc32")

    def discard(self) -> None:
        """Forget the cache, so that the next :meth:`images` builds it anew."""
        for file in (self._sidecar, self._journal, self._partial, self._file):
            file.unlink(missing_ok=True)

    def _opened(self) -> NDArray[np.uint8] | None:
        """The cache if it was made from these very pictures and has its size, else None."""
        try:
            stamp = self._read_stamp()
            if {**stamp, "crc32": None} != {**self._stamp(), "crc32": None}:
                return None
            images = np.load(self._file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return images if images.shape == self._shape and images.dtype == np.uint8 else None

    def _read_stamp(self) -> dict[str, Any]:
        try:
            stamp = json.loads(self._sidecar.read_text())
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}

    def _stamp(self) -> dict[str, Any]:
        return {
            "recipe": RECIPE,
            "shape": list(self._shape),
            "digest": self._digest,
            "block": BLOCK,
        }

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The partial file, open and for this process alone; the lock dies with the process."""
        while True:
            descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # Whoever held the lock may have renamed the file that this descriptor is.
                if _is_at(descriptor, self._partial):
                    yield descriptor
                    return
            finally:
                os.close(descriptor)

    def _build(self, descriptor: int, progress: Progress) -> None:
        done = self._finished(descriptor)
        os.ftruncate(descriptor, len(self._header) + len(self._pictures) * self._image_bytes)
        _write(descriptor, self._header, 0)
        self._replace(self._journal, "".join(_line(*block) for block in done.values()))
        todo = [start for start in range(0, len(self._pictures), BLOCK) if start not in done]
        pool = ThreadPoolExecutor(self._workers)
        try:
            with open(self._journal, "a") as journal:
                blocks = pool.map(lambda start: self._write_block(descriptor, start), todo)
                steps = progress(todo, "decoding photographs")
                for _, block in zip(steps, blocks, strict=True):
                    done[block[0]] = block
                    journal.write(_line(*block))
                    journal.flush()
        finally:
            # Before the file is closed; blocks that were not begun are for the next attempt.
            pool.shutdown(cancel_futures=True)
        self._finish(descriptor, [done[start][2] for start in sorted(done)])

    def _finish(self, descriptor: int, checksums: list[int]) -> None:
        os.fsync(descriptor)
        # Without this a crash between the two could pair an old stamp with new images.
        self._sidecar.unlink(missing_ok=True)
        os.replace(self._partial, self._file)
        self._replace(self._sidecar, json.dumps({**self._stamp(), "crc32": checksums}))
        self._journal.unlink(missing_ok=True)

    def _write_block(self, descriptor: int, start: int) -> tuple[int, str, int]:
        """Decode one block into its place; its start, digest and checksum."""
        pictures = self._pictures[start : start + BLOCK]
        pixels = np.empty((len(pictures), *self._shape[1:]), np.uint8)
        # Stamped first: a file that changes while it is read makes the block stale, not wrong.
        digest = self._block_digest(start)
        checksum = 0
        for row, picture in enumerate(pictures):
            pixels[row] = load_pixels(picture, self._resolution, self._root)
            checksum = zlib.crc32(pixels[row].data, checksum)
        _write(descriptor, pixels.data.cast("B"), self._offset(start))
        return start, digest, checksum

    def _finished(self, descriptor: int) -> dict[int, tuple[int, str, int]]:
        """Blocks of an earlier attempt that are whole and still what they should be."""
        try:
            lines = self._journal.read_text().splitlines()
        except (OSError, ValueError):
            return {}
        done: dict[int, tuple[int, str, int]] = {}
        for line in lines:
            try:
                start, digest, checksum = json.loads(line)
            except (ValueError, TypeError):  # cut by the kill
                continue
            if self._is_whole(descriptor, start, digest, checksum):
                done[start] = (start, digest, checksum)
        return done

    def _is_whole(self, descriptor: int, start: int, digest: str, checksum: int) -> bool:
        if start not in range(0, len(self._pictures), BLOCK):
            return False
        return self._block_digest(start) == digest and self._checksum(descriptor, start) == checksum

    def _block_digest(self, start: int) -> str:
        pictures = self._pictures[start : start + BLOCK]
        return _digest([RECIPE, self._resolution, picture_digest(pictures)])

    def _checksum(self, descriptor: int, start: int) -> int:
        rows = min(BLOCK, len(self._pictures) - start)
        return zlib.crc32(os.pread(descriptor, rows * self._image_bytes, self._offset(start)))

    def _offset(self, start: int) -> int:
        return len(self._header) + start * self._image_bytes

    def _replace(self, file: Path, text: str) -> None:
        """Write a small file as a whole or not at all."""
        with replacing(file, for_owner=True) as stream:
            stream.write(text.encode())


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _line(start: int, digest: str, checksum: int) -> str:
    return json.dumps([start, digest, checksum]) + "\n"


def _write(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """All bytes at this place. A plain write raises on a full disk; a memory map would kill."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _npy_header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    form = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, form)
    return header.getvalue()
