"""Folders of real photographs: decoding, the cache on disk, and what every such set checks.

A loader subclasses :class:`PhotoDataset` and writes one method, ``index``: which files and
captions belong to the private side and which to the evaluation side. Everything else is here.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import struct
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from wavedp.data.schema import Records
from wavedp.dp.errors import UserError
from wavedp.dp.private import PrivateRecords
from wavedp.dp.progress import Progress, silent
from wavedp.dp.store import PrivateStore, private_folder

PRIVATE, EVALUATION = "private", "evaluation"

Side = tuple[NDArray[np.uint8], list[tuple[str, ...]]]
"""Images and captions of the private or the evaluation records."""

_T = TypeVar("_T")
_RECIPE = 1  # Raise it when `decode` changes, so that older caches are built anew.
_CHUNK = 256  # Images in flight: bounds memory when decoding is ahead of the disk.
# What Pillow raises on damaged files, beyond OSError (which covers truncation).
_DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError,
    struct.error, Image.DecompressionBombError,
)  # fmt: skip


class Photo(NamedTuple):
    """One record: an image file with all its captions.

    Attributes:
        key: identity of the record within the published data set, to keep the sides apart.
        file: image file, relative to the root, with forward slashes.
        captions: cleaned captions (see :func:`clean_caption`).
        source: where the captions came from, relative to the root, for messages.
    """

    key: str
    file: str
    captions: tuple[str, ...]
    source: str


class PhotoDataset(ABC):
    """Real photographs in a folder that the user brings; implements ``schema.Dataset``.

    Nothing is read before :meth:`check`, :meth:`private` or :meth:`evaluation`, so that a
    wrong setting is a :class:`UserError` before work starts and not a failing constructor.

    Args:
        root: the folder of the data set; None is refused by :meth:`check`.
        private_records: N, declared; the first N records of the private side are used.
        evaluation_records: how many evaluation records to use, from the first on.
        resolution: side R of the square images in pixels; smaller photographs are enlarged.
        name: public name; letters, digits, ``.``, ``_`` and ``-``.
        version: public version (split and caption source), written in the same letters.
        cache_dir: decoded images are kept under its ``photos`` folder.
        captions_per_record: public constant; a record with more captions is cut when used,
            one with fewer is cycled. This class returns what the files hold.
    """

    redistributable = False
    holds: ClassVar[str] = "the data set"
    """What the root folder holds, for the message when it is not set."""

    def __init__(
        self,
        *,
        root: str | Path | None,
        private_records: int,
        evaluation_records: int,
        resolution: int,
        name: str,
        version: str,
        cache_dir: str | Path,
        captions_per_record: int,
    ) -> None:
        self.root = None if root is None else Path(root).expanduser()
        self.private_records = private_records
        self.evaluation_records = evaluation_records
        self.resolution = resolution
        self.name = str(name)
        self.version = str(version)  # YAML reads 1 or 2017 as a number.
        self.cache_dir = Path(cache_dir).expanduser()
        self.captions_per_record = captions_per_record
        self._identity = ""
        self._sides: dict[str, Side] | None = None

    @abstractmethod
    def index(self, root: Path) -> tuple[list[Photo], list[Photo]]:
        """The private and the evaluation records, each as many as declared, in fixed order."""

    def check(self, progress: Progress = silent) -> None:
        """Read the folder afresh and decode what is not cached yet.

        Raises:
            UserError: anything missing, damaged, short of the declared number, or on both
                sides. Runs before training, so a corrupt photograph is found here.
        """
        self._sides = None
        self._open(progress)

    def private(self) -> PrivateRecords:
        """Sealed columns ``images`` (uint8 ``[n, 3, R, R]``, memory-mapped, read-only) and
        ``captions`` (a list of non-empty tuples)."""
        images, captions = self._open()[PRIVATE]
        columns = {"images": images, "captions": captions}
        label = f"{self.name} {self.version}"
        # Changes with the files of images and captions, so no stale tokens are ever found.
        store = PrivateStore(self.cache_dir / "photos" / PRIVATE, f"{label} {self._identity}")
        return PrivateRecords(columns, name=label, records=self.private_records, store=store)

    def evaluation(self) -> Records:
        """Evaluation records, disjoint from the private ones, in the order of the split."""
        images, captions = self._open()[EVALUATION]
        return Records(images, captions, f"{self.name} {self.version} {EVALUATION}")

    def _open(self, progress: Progress = silent) -> dict[str, Side]:
        if self._sides is None:
            root = self._checked_root()
            private, evaluation = self.index(root)
            _refuse_overlap(self.name, private, evaluation)
            sides = {PRIVATE: private, EVALUATION: evaluation}
            # All cheap checks come before the first (slow) decoding.
            digests = {side: _checked_digest(root, sides[side], side) for side in sides}
            captions = sorted({photo.source for photo in private})
            sources = [(file, *_size_and_time(root / file)) for file in captions]
            self._identity = f"{self.resolution}px {digests[PRIVATE]} {_digest(sources)}"
            self._sides = {
                side: (self._images(root, photos, side, digests[side], progress), _captions(photos))
                for side, photos in sides.items()
            }
        return self._sides

    def _checked_root(self) -> Path:
        if self.root is None:
            raise UserError(
                f"dataset.root is not set: give the folder that holds {self.holds}, "
                f"e.g. dataset.root=/data/{self.name}"
            )
        if not os.path.isdir(self.root):  # Path.is_dir raises where a parent is unreadable.
            raise UserError(
                f"dataset.root={self.root} is not a folder: give the one that holds {self.holds}."
            )
        for setting in ("private_records", "evaluation_records", "resolution"):
            value = getattr(self, setting)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"dataset.{setting}={value} must be a whole number, at least 1.")
        for setting in ("name", "version"):
            # Both become part of a file name in the cache.
            if not re.fullmatch(r"[\w.-]+", getattr(self, setting), re.ASCII):
                raise UserError(
                    f"dataset.{setting}={getattr(self, setting)!r} may only have letters, "
                    "digits, '.', '_' and '-'."
                )
        return self.root

    def _images(
        self, root: Path, photos: Sequence[Photo], side: str, digest: str, progress: Progress
    ) -> NDArray[np.uint8]:
        label = f"{self.name}-{self.version}-{self.resolution}px-{side}"
        return cached_images(
            [root / photo.file for photo in photos],
            resolution=self.resolution,
            digest=digest,
            file=self.cache_dir / "photos" / side / f"{label}.npy",
            private=side == PRIVATE,
            progress=progress,
        )


def decode(path: Path, resolution: int) -> NDArray[np.uint8]:
    """One image file as uint8 ``[3, R, R]`` in 0..255.

    EXIF orientation applied, converted to RGB, cropped to the centre square and resized with
    Lanczos: the preparation of the 30k COCO protocol. JPEG's reduced-size decoding is not
    used, because it would replace part of the Lanczos filter.

    Raises:
        UserError: the file is unreadable, truncated or not an image. Flipped bits inside a
            JPEG of full length are not noticed: the format has no checksum.
    """
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except _DAMAGED as error:
        raise UserError(
            f"{path} cannot be decoded, it is corrupt, truncated or not an image "
            f"({error}): copy this file again from the original data set."
        ) from error
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    small = square.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(small, dtype=np.uint8).transpose(2, 0, 1))


def cached_images(
    paths: Sequence[Path],
    *,
    resolution: int,
    digest: str,
    file: Path,
    private: bool,
    progress: Progress = silent,
) -> NDArray[np.uint8]:
    """The decoded images, uint8 ``[n, 3, R, R]``, memory-mapped read-only from ``file``.

    Built by ``os.cpu_count()`` threads (Pillow decodes and resizes outside Python's lock)
    when ``file`` is missing, damaged, or made from a folder with another ``digest``. The
    digest lies beside it, in ``file`` with the ending ``.json``. Written under a temporary
    name and renamed, so that an interrupted run leaves no half-written cache.

    Raises:
        UserError: a photograph is corrupt, or the cache cannot be written.
    """
    shape = (len(paths), 3, resolution, resolution)
    sidecar = file.with_suffix(".json")
    stamp = json.dumps({"recipe": _RECIPE, "shape": shape, "digest": digest})
    images = _open_cache(file, sidecar, stamp, shape)
    if images is not None:
        return images
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if private:
            private_folder(file.parent)
        # Without this a crash between the two writes could pair an old stamp with new images.
        sidecar.unlink(missing_ok=True)
        _replace(file, _npy_parts(paths, shape, progress))
        _replace(sidecar, [stamp.encode()])
        return np.load(file, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except OSError as error:
        raise UserError(
            f"The image cache {file} cannot be written ({error.strerror or error}): "
            "free some space, or set cache_dir to a folder that can be written."
        ) from error


def clean_caption(text: str) -> str:
    """The caption with every run of white space as one space, and none at the ends."""
    return " ".join(text.split())


def read_text(path: Path, remedy: str = "complete the folder") -> str:
    """A UTF-8 text file, a byte order mark tolerated.

    Raises:
        UserError: the file is missing, unreadable or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8 or copy it again."
        ) from error
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise UserError(f"{path} {reason} ({error.strerror}): {remedy}.") from error


def take(
    items: Sequence[_T], declared: int, *, setting: str, source: Path, start: int = 0
) -> Sequence[_T]:
    """``declared`` items from ``start`` on.

    Raises:
        UserError: there are fewer; N comes from the config, so it is never lowered here.
    """
    chosen = items[start : start + declared]
    if start < 0 or len(chosen) < declared:
        raise UserError(
            f"dataset.{setting}={declared} from position {start} on, but {source} lists "
            f"{len(items)} records: complete the folder or correct dataset.{setting}."
        )
    return chosen


def _refuse_overlap(name: str, private: Sequence[Photo], evaluation: Sequence[Photo]) -> None:
    seen: dict[str, str] = {}
    for side, photos in ((PRIVATE, private), (EVALUATION, evaluation)):
        for photo in photos:
            # Listed twice, a record would weigh twice and break the privacy unit.
            for identity in (f"record {photo.key}", f"file {photo.file}"):
                if identity in seen:
                    raise UserError(
                        f"{name}: {identity} is in the {seen[identity]} and again in the {side} "
                        "records: correct the split, a record counts once."
                    )
                seen[identity] = side


def _checked_digest(root: Path, photos: Sequence[Photo], side: str) -> str:
    """A digest of file names, sizes and times; refuses missing images and captions."""
    bare = [photo for photo in photos if not photo.captions]
    if bare:
        raise UserError(
            f"{len(bare)} of {len(photos)} {side} images in {root} have no caption, the first is "
            f"{bare[0].file} (looked in {bare[0].source}): complete the captions."
        )
    listing = [(photo.file, *_size_and_time(root / photo.file)) for photo in photos]
    missing = [file for file, size, _ in listing if size < 0]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(photos)} {side} images are missing in {root}, the first is "
            f"{missing[0]}: the folder may be half copied, copy it again."
        )
    return _digest(listing)


def _digest(listing: list[tuple[str, int, int]]) -> str:
    """Of file names, sizes and times, not of contents."""
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def _size_and_time(path: Path) -> tuple[int, int]:
    """Size in bytes (-1 where there is no such file) and modification time in ns."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, 0
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else (-1, 0)


def _captions(photos: Sequence[Photo]) -> list[tuple[str, ...]]:
    return [photo.captions for photo in photos]


def _open_cache(
    file: Path, sidecar: Path, stamp: str, shape: tuple[int, ...]
) -> NDArray[np.uint8] | None:
    """The cache if it was made from this very folder and is whole, else None."""
    try:
        if sidecar.read_text() != stamp:
            return None
        images = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _npy_parts(
    paths: Sequence[Path], shape: tuple[int, ...], progress: Progress
) -> Iterator[bytes]:
    """The bytes of an .npy file, decoded as they are asked for."""
    header = io.BytesIO()
    form = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, form)
    yield header.getvalue()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in progress(range(0, len(paths), _CHUNK), "decoding photographs"):
            chunk = paths[start : start + _CHUNK]
            for image in pool.map(decode, chunk, [shape[-1]] * len(chunk)):
                yield image.tobytes()


def _replace(file: Path, parts: Iterator[bytes] | Sequence[bytes]) -> None:
    """Write ``file`` as a whole or not at all.

    Plain writes, not a memory map: on a full disk they raise, where a map kills the process.
    """
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            for part in parts:
                stream.write(part)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        Path(temporary).unlink(missing_ok=True)
