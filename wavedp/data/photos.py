"""Real photographs that the user brings: what every such set checks, seals and caches.

A layout (COCO, a folder with ``metadata.csv``, parquet, tar shards) writes one method,
``index``: which images and captions belong to which side. Everything else is here. A set has
either a private and an evaluation side (:class:`PhotoDataset`) or is a public corpus
(:class:`PhotoCorpus`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wavedp.data.cache import ImageCache, Picture, picture_digest
from wavedp.data.captions import is_unicode
from wavedp.data.decoding import RECIPE
from wavedp.data.findings import Finding, Kind, Report, refuse
from wavedp.data.schema import Records
from wavedp.data.stored import MISSING, File, Stored
from wavedp.dp.errors import UserError
from wavedp.dp.private import PrivateRecords
from wavedp.dp.progress import Progress, silent
from wavedp.dp.store import PrivateStore

PRIVATE, EVALUATION, PUBLIC = "private", "evaluation", "public"

Side = tuple[NDArray[np.uint8], list[tuple[str, ...]]]
"""Images and captions of the records of one side."""


class Photo(NamedTuple):
    """One record: an image with all its captions.

    Attributes:
        key: identity of the record within the published data set, to keep the sides apart.
        file: where the image is, relative to the root, with forward slashes, for messages. An
            image inside an archive is ``archive/member``.
        captions: cleaned captions (see :func:`~wavedp.data.captions.clean_captions`).
        source: where the captions came from, relative to the root.
        image: the image's bytes.
    """

    key: str
    file: str
    captions: tuple[str, ...]
    source: str
    image: Stored


class PhotoFolder(ABC):
    """A folder of photographs with one or more sides.

    Nothing is read before :meth:`check` or a side is asked for, so that a wrong setting is a
    :class:`UserError` before work starts and not a failing constructor.

    Args:
        root: the folder of the data set; None is refused by :meth:`check`.
        declared: by side, how many records are used, from the first on; the config's numbers.
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
        declared: Mapping[str, int],
        resolution: int,
        name: str,
        version: str,
        cache_dir: str | Path,
        captions_per_record: int,
    ) -> None:
        self.root = None if root is None else Path(root).expanduser()
        self.declared = dict(declared)
        self.resolution = resolution
        self.name = str(name)
        self.version = str(version)  # YAML reads 1 or 2017 as a number.
        self.cache_dir = Path(cache_dir).expanduser()
        self.captions_per_record = captions_per_record
        self._identity = ""
        self._sides: dict[str, Side] | None = None

    @abstractmethod
    def index(self, root: Path, report: Report) -> dict[str, list[Photo]]:
        """The records of every side, each as many as declared, in fixed order.

        Whatever is wrong goes to ``report``; where that returns, the index goes on without
        the entry. For the data's owner: no method and no record may see it.
        """

    def survey(self, report: Report = refuse) -> dict[str, list[Photo]]:
        """The index, with the cheap checks made: overlaps, captions, files that are there.

        Raises:
            UserError: the root or a setting is wrong, whatever ``report`` is.
        """
        root = self.checked_root()
        sides = self.index(root, report)
        check_overlap(self.name, sides, report)
        for side, photos in sides.items():
            check_side(root, photos, side, report)
        return sides

    def check(self, progress: Progress = silent) -> None:
        """Read the folder afresh, decode what is not cached yet, and verify what is.

        Raises:
            UserError: anything missing, damaged, short of the declared number, or on both
                sides. Runs before training, so a corrupt photograph is found here.
        """
        self._sides = None
        photos = self.survey()
        for side in photos:
            cache = self.cache(side, photos[side])
            cache.images(progress)
            if cache.damaged(progress):
                cache.discard()
        self._open(photos, progress)

    def cache(self, side: str, photos: Sequence[Photo]) -> ImageCache:
        """Where the decoded images of one side are."""
        assert self.root is not None
        label = f"{self.name}-{self.version}-{self.resolution}px-{side}"
        return ImageCache(
            self.cache_dir / "photos" / side / f"{label}.npy",
            [Picture(photo.file, photo.image) for photo in photos],
            root=self.root,
            resolution=self.resolution,
            private=side == PRIVATE,
        )

    def side(self, side: str, progress: Progress = silent) -> Side:
        """Images (uint8 ``[n, 3, R, R]``, memory-mapped, read-only) and captions of a side."""
        if self._sides is None:
            self._open(self.survey(), progress)
        assert self._sides is not None
        return self._sides[side]

    def _open(self, sides: Mapping[str, Sequence[Photo]], progress: Progress) -> None:
        opened: dict[str, Side] = {}
        for side, photos in sides.items():
            images = self.cache(side, photos).images(progress)
            opened[side] = images, [photo.captions for photo in photos]
        assert self.root is not None
        self._identity = _identity(self.root, self.resolution, next(iter(sides.values())))
        self._sides = opened

    def checked_root(self) -> Path:
        """The root.

        Raises:
            UserError: it is not a folder, or another setting is out of range.
        """
        if self.root is None:
            raise UserError(
                f"dataset.root is not set: give the folder that holds {self.holds}, "
                f"e.g. dataset.root=/data/{self.name}"
            )
        if not os.path.isdir(self.root):  # Path.is_dir raises where a parent is unreadable.
            raise UserError(
                f"dataset.root={self.root} is not a folder: give the one that holds {self.holds}."
            )
        numbers = {f"{side}_records": count for side, count in self.declared.items()}
        for setting, value in {**numbers, "resolution": self.resolution}.items():
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


class PhotoDataset(PhotoFolder):
    """Photographs with a private and an evaluation side; implements ``schema.Dataset``.

    Args:
        private_records: N, declared; the first N records of the private side are used.
        evaluation_records: how many evaluation records to use, from the first on.
        settings: those of :class:`PhotoFolder`.
    """

    def __init__(self, *, private_records: int, evaluation_records: int, **settings: Any) -> None:
        declared = {PRIVATE: private_records, EVALUATION: evaluation_records}
        super().__init__(declared=declared, **settings)
        self.private_records = private_records
        self.evaluation_records = evaluation_records

    def private(self) -> PrivateRecords:
        """Sealed columns ``images`` (uint8 ``[n, 3, R, R]``, memory-mapped, read-only) and
        ``captions`` (a list of non-empty tuples)."""
        images, captions = self.side(PRIVATE)
        columns = {"images": images, "captions": captions}
        label = f"{self.name} {self.version}"
        # Changes with the files of images and captions, so no stale tokens are ever found.
        store = PrivateStore(self.cache_dir / "photos" / PRIVATE, f"{label} {self._identity}")
        return PrivateRecords(columns, name=label, records=self.private_records, store=store)

    def evaluation(self) -> Records:
        """Evaluation records, disjoint from the private ones, in the order of the split."""
        images, captions = self.side(EVALUATION)
        return Records(images, captions, f"{self.name} {self.version} {EVALUATION}")


class PhotoCorpus(PhotoFolder):
    """A public corpus of photographs for pretraining; implements ``schema.PublicDataset``.

    Args:
        public_records: how many records to prepare, from the first on. The index is not read
            further than that, so a corpus may be larger than the disk has room for.
        settings: those of :class:`PhotoFolder`.
    """

    def __init__(self, *, public_records: int, **settings: Any) -> None:
        super().__init__(declared={PUBLIC: public_records}, **settings)
        self.public_records = public_records

    def records(self, start: int, stop: int, progress: Progress = silent) -> Records:
        """Records ``start`` to ``stop`` (exclusive).

        Raises:
            UserError: more than are declared; or as :meth:`check`.
        """
        if not 0 <= start <= stop <= self.public_records:
            raise UserError(
                f"{self.name}: records {start} to {stop} are asked for and public_records is "
                f"{self.public_records}: raise public_records, or ask for fewer."
            )
        images, captions = self.side(PUBLIC, progress)
        return Records(images, captions, f"{self.name} {self.version}").slice(start, stop)


def take(
    photos: Iterable[Photo],
    declared: int,
    *,
    side: str,
    source: object,
    report: Report,
    start: int = 0,
) -> list[Photo]:
    """``declared`` records from ``start`` on; a lazy index is not read further.

    Reports that there are fewer: N comes from the config, so it is never lowered here.
    """
    if not isinstance(start, int) or start < 0:
        raise UserError(f"dataset.{side}.start={start} must be a whole number, at least 0.")
    listed = list(islice(photos, start + declared))
    chosen = listed[start:]
    if len(chosen) < declared:
        setting = f"dataset.{side}_records"
        text = (
            f"{setting}={declared} from position {start} on, but {source} lists "
            f"{len(listed)} records: complete the folder or correct {setting}."
        )
        report(Finding(Kind.COUNT, side, (setting,), text))
    return chosen


def part_settings(given: Mapping[str, Any], side: str, **defaults: Any) -> dict[str, Any]:
    """The settings of one side, completed; a default of ``...`` marks one that is needed.

    Raises:
        UserError: one is unknown or missing.
    """
    part = {**defaults, **given}
    needed = [name for name, value in defaults.items() if value is ...]
    if set(part) != set(defaults) or any(part[name] is ... for name in needed):
        optional = [name for name in defaults if name not in needed]
        raise UserError(
            f"dataset.{side} needs {' and '.join(needed)}, and may have {', '.join(optional)}; "
            f"it has {', '.join(sorted(given)) or 'nothing'}."
        )
    return part


def check_overlap(name: str, sides: Mapping[str, Sequence[Photo]], report: Report) -> None:
    """Reports records and files that are listed twice, on one side or on two."""
    seen: dict[str, str] = {}
    twice: dict[str, list[str]] = {}
    for side, photos in sides.items():
        for photo in photos:
            # Listed twice, a record would weigh twice and break the privacy unit.
            for identity in (f"record {photo.key}", f"file {photo.file}"):
                if identity in seen:
                    twice.setdefault(f"{seen[identity]} and {side}", []).append(identity)
                seen.setdefault(identity, side)
    for pair, identities in twice.items():
        first, _, second = pair.partition(" and ")
        text = (
            f"{name}: {identities[0]} is in the {first} and again in the {second} "
            "records: correct the split, a record counts once."
        )
        kind = Kind.REPEATED if first == second else Kind.LEAKAGE
        report(Finding(kind, first if first == second else pair, tuple(identities), text))


def check_side(root: Path, photos: Sequence[Photo], side: str, report: Report) -> None:
    """Reports images without captions, captions that are no text, and missing images."""
    bare = [photo for photo in photos if not photo.captions]
    if bare:
        text = (
            f"{len(bare)} of {len(photos)} {side} images in {root} have no caption, the first is "
            f"{bare[0].file} (looked in {bare[0].source}): complete the captions."
        )
        report(Finding(Kind.CAPTIONLESS, side, tuple(photo.file for photo in bare), text))
    broken = [p.file for p in photos if not all(is_unicode(text) for text in p.captions)]
    if broken:
        text = (
            f"{len(broken)} of {len(photos)} {side} images have a caption with half a character "
            f"that cannot be encoded, the first is {broken[0]}: correct the captions."
        )
        report(Finding(Kind.TEXT, side, tuple(broken), text))
    missing = [photo.file for photo in photos if photo.image.stamp() == MISSING]
    if missing:
        text = (
            f"{len(missing)} of {len(photos)} {side} images are missing in {root}, the first is "
            f"{missing[0]}: the folder may be half copied, copy it again."
        )
        report(Finding(Kind.MISSING, side, tuple(missing), text))


def _identity(root: Path, resolution: int, photos: Sequence[Photo]) -> str:
    """What the records are: changes when an image or a caption file does."""
    pictures = [Picture(photo.file, photo.image) for photo in photos]
    captions = [Picture(source, File(root / source)) for source in {p.source for p in photos}]
    names = json.dumps([picture_digest(pictures), picture_digest(sorted(captions))])
    return f"recipe {RECIPE} {resolution}px {hashlib.sha256(names.encode()).hexdigest()}"
