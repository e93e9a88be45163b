"""Images in folders, with captions in ``metadata.csv``, in ``.txt`` files, or in folder names.

Layout (https://huggingface.co/docs/datasets/image_dataset, "ImageFolder"): one folder per split
(``train/``, ``test/``), images in it or in folders below. Captions come from the first of these
that is there:

- ``metadata.csv`` in the split's folder: a column ``file_name`` (relative to the file) and one
  with the caption. Rows of the same file are captions of one record.
- a text file beside each image, ``dog.txt`` for ``dog.jpg``: one caption per line.
- with a ``template``, the name of the folder that holds the image: ``"a photo of a {label}"``.

Records are sorted by file name.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from wavedp.data.captions import check_template, clean_captions, read_text
from wavedp.data.findings import Finding, Kind, Report
from wavedp.data.names import is_inside
from wavedp.data.photos import (
    EVALUATION,
    PRIVATE,
    PUBLIC,
    Photo,
    PhotoCorpus,
    PhotoDataset,
    part_settings,
    take,
)
from wavedp.data.stored import MISSING, File

ENDINGS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"))
"""Files with these endings, in any case, are images; what is inside decides how they are read."""
METADATA = "metadata.csv"


class ImageFolder(PhotoDataset):
    """Images in folders, one for the private and one for the evaluation side.

    Args:
        private: ``folder``, relative to the root. Optionally ``start``, default 0: the records
            ``start`` to ``start + private_records`` are private.
        evaluation: the same; it may name the same folder with another ``start``.
        column: the caption column of ``metadata.csv``.
        template: None, or what makes captions of folder names.
        settings: those of :class:`~wavedp.data.photos.PhotoDataset`.
    """

    holds: ClassVar[str] = "train/ and test/"

    def __init__(
        self,
        *,
        private: Mapping[str, Any],
        evaluation: Mapping[str, Any],
        column: str = "text",
        template: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._parts = {PRIVATE: dict(private), EVALUATION: dict(evaluation)}
        self._column, self._template = column, template

    def index(self, root: Path, report: Report) -> dict[str, list[Photo]]:
        """Both sides, sorted by file name."""
        check_template(self._template)
        return {
            side: take(
                list_folder(root, part["folder"], self._column, self._template, side, report),
                self.declared[side],
                side=side,
                source=root / str(part["folder"]),
                start=part["start"],
                report=report,
            )
            for side, part in (
                (side, part_settings(part, side, folder=..., start=0))
                for side, part in self._parts.items()
            )
        }


class PublicImageFolder(PhotoCorpus):
    """A public corpus in one folder; ``folder``, ``column`` and ``template`` as above."""

    holds: ClassVar[str] = "the images"

    def __init__(
        self,
        *,
        folder: str = ".",
        column: str = "text",
        template: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._folder, self._column, self._template = folder, column, template

    def index(self, root: Path, report: Report) -> dict[str, list[Photo]]:
        """The public records, sorted by file name."""
        check_template(self._template)
        photos = list_folder(root, self._folder, self._column, self._template, PUBLIC, report)
        source = root / self._folder
        return {
            PUBLIC: take(photos, self.public_records, side=PUBLIC, source=source, report=report)
        }


def list_folder(
    root: Path, folder: str, column: str, template: str | None, side: str, report: Report
) -> Iterator[Photo]:
    """The records of one folder, sorted by file name, lazily.

    Reports a folder that is not there, rows of ``metadata.csv`` that name no plain path, and
    what :func:`read_metadata` reports. A file that is listed and not there is returned.
    """
    place = root / str(folder)
    if not place.is_dir():
        text = f"{place} is not a folder: correct dataset.{side}.folder or complete the copy."
        report(Finding(Kind.MISSING, side, (str(folder),), text))
        return
    files = list(_images_below(place))
    listed = read_metadata(place / METADATA, column, side, report)
    for name in sorted({*files, *(listed or {})}):
        file = place / name
        if listed is not None:
            source, captions = f"{folder}/{METADATA}", clean_captions(listed.get(name, []))
        elif template is None:
            source = f"{folder}/{PurePosixPath(name).with_suffix('.txt')}"
            captions = _beside(root / source, side, report)
        else:
            source = f"{folder}/{PurePosixPath(name).parent}"
            captions = clean_captions([PurePosixPath(name).parent.name], template)
        yield Photo(f"{folder}/{name}", f"{folder}/{name}", captions, source, File(file))


def _images_below(place: Path) -> Iterator[str]:
    """Image files below a folder, with forward slashes; links to folders are not followed."""
    for parent, _, names in os.walk(place):
        below = Path(parent).relative_to(place)
        for name in names:
            if os.path.splitext(name)[1].lower() in ENDINGS:
                yield (below / name).as_posix()


def _beside(path: Path, side: str, report: Report) -> tuple[str, ...]:
    """Captions in a text file; none where there is no such file."""
    there = File(path).stamp() != MISSING
    return clean_captions(read_text(path, report, side).split("\n")) if there else ()


def read_metadata(
    path: Path, column: str, side: str, report: Report
) -> dict[str, list[str]] | None:
    """Captions by file name, or None where there is no such file.

    Reports a file that is not UTF-8, no CSV, or lacks a column (nothing is returned then), and
    names that leave the folder (left out).
    """
    if not path.exists():
        return None
    try:
        # Strict: a quote that is never closed would swallow the rest of the file as one caption.
        rows = list(csv.reader(read_text(path, report, side).splitlines(True), strict=True))
    except csv.Error as error:
        text = f"{path} is not a CSV file ({error}): save it again."
        report(Finding(Kind.CORRUPT, side, (str(path),), text))
        return {}
    header = rows[0] if rows else []
    if not {"file_name", column} <= set(header):
        text = (
            f"{path} has the columns {', '.join(header) or '(none)'}: it needs file_name and "
            f"{column}; set dataset.column to the one with the captions."
        )
        report(Finding(Kind.TEXT, side, (str(path),), text))
        return {}
    captions: dict[str, list[str]] = {}
    for row in rows[1:]:
        cells = dict(zip(header, row, strict=False))
        name = cells.get("file_name", "")
        if is_inside(name):
            captions.setdefault(PurePosixPath(name).as_posix(), []).append(cells.get(column, ""))
        elif row:
            text = (
                f"{path}: file_name {name!r} is not a path below its folder: correct it, images "
                "are only read from there."
            )
            report(Finding(Kind.UNSAFE, side, (repr(name),), text))
    return captions
