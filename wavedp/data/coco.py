"""Captioned photographs in the published layout of MS-COCO, 2014 and 2017.

Layout (https://cocodataset.org/#format-data, "Image Captioning"): a JSON file with
``images`` (``id``, ``file_name``) and ``annotations`` (``image_id``, ``caption``), and a folder
with the files. About five captions per image, written by people; one record is one image with
all of them. Published sizes: 82,783 / 40,504 (2014) and 118,287 / 5,000 (2017).

The two years divide the same photographs otherwise: train2017 contains about 35,000 of
val2014. Train and val of one year belong together; crossed, evaluation would be on private data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from wavedp.data.captions import clean_captions, read_text
from wavedp.data.findings import Finding, Kind, Report
from wavedp.data.names import is_plain
from wavedp.data.photos import EVALUATION, PRIVATE, Photo, PhotoDataset, part_settings, take
from wavedp.data.stored import File


class Notes(NamedTuple):
    """A caption file: its records, sorted by numeric image id, and its year where it says so."""

    photos: list[Photo]
    year: int | None


class Coco(PhotoDataset):
    """MS-COCO, or a part of it, in the published layout.

    Args:
        root: the folder that holds ``annotations/`` and the image folders.
        private: ``images`` (folder) and ``annotations`` (JSON file), both relative to the
            root. Optionally ``start``, default 0: with the images sorted by numeric id, the
            records ``start`` to ``start + private_records`` are private. Optionally
            ``listed``: how many records the published file has, to notice another one.
        evaluation: the same for evaluation. It may name the same files with another ``start``.
            Files of another year are refused, and so is a record on both sides, by its id.
        captions_per_record: public constant, 5 for COCO.
        settings: those of :class:`~wavedp.data.photos.PhotoDataset`.
    """

    holds: ClassVar[str] = "annotations/ and the image folder (val2017/)"

    def __init__(
        self,
        *,
        private: Mapping[str, Any],
        evaluation: Mapping[str, Any],
        captions_per_record: int = 5,
        **settings: Any,
    ) -> None:
        super().__init__(captions_per_record=captions_per_record, **settings)
        self._parts = {PRIVATE: dict(private), EVALUATION: dict(evaluation)}

    def index(self, root: Path, report: Report) -> dict[str, list[Photo]]:
        """Both sides, sorted by numeric image id."""
        parts = {
            side: part_settings(part, side, images=..., annotations=..., start=0, listed=None)
            for side, part in self._parts.items()
        }
        notes = {
            side: read_annotations(root, part["annotations"], part["images"], side, report)
            for side, part in parts.items()
        }
        _check_years(parts, notes, report)
        _check_listed(root, parts, notes, report)
        return {
            side: take(
                notes[side].photos,
                self.declared[side],
                side=side,
                source=root / str(part["annotations"]),
                start=part["start"],
                report=report,
            )
            for side, part in parts.items()
        }


def _check_years(
    parts: Mapping[str, Mapping[str, Any]], notes: Mapping[str, Notes], report: Report
) -> None:
    """Reports train and val of two years, by what the files say and by what they are called."""
    private, evaluation = parts[PRIVATE]["annotations"], parts[EVALUATION]["annotations"]
    years = {side: notes[side].year for side in parts}
    if None in years.values() or years[PRIVATE] == years[EVALUATION]:
        return
    text = (
        f"dataset.private is COCO {years[PRIVATE]} ({private}) and dataset.evaluation is COCO "
        f"{years[EVALUATION]} ({evaluation}), which share photographs (35,000 of val2014 are in "
        "train2017): use train and val of the same year."
    )
    report(Finding(Kind.LEAKAGE, f"{PRIVATE} and {EVALUATION}", (private, evaluation), text))


def _check_listed(
    root: Path,
    parts: Mapping[str, Mapping[str, Any]],
    notes: Mapping[str, Notes],
    report: Report,
) -> None:
    """Reports files that do not list the published number of records."""
    listed = {side: len(notes[side].photos) for side in parts}
    expected = {side: part["listed"] or listed[side] for side, part in parts.items()}
    if listed == {PRIVATE: expected[EVALUATION], EVALUATION: expected[PRIVATE]} != expected:
        files = tuple(str(part["annotations"]) for part in parts.values())
        text = (
            f"{root}: {files[0]} lists {listed[PRIVATE]} images and {files[1]} lists "
            f"{listed[EVALUATION]}, each the published number of the other: the two files look "
            "swapped; exchange them."
        )
        report(Finding(Kind.SWAPPED, f"{PRIVATE} and {EVALUATION}", files, text))
        return
    for side, part in parts.items():
        if listed[side] != expected[side]:
            file = str(part["annotations"])
            text = (
                f"{root / file} lists {listed[side]} images and the published file has "
                f"{expected[side]}: copy it again, or correct dataset.{side}.listed."
            )
            report(Finding(Kind.COUNT, side, (file,), text))


def read_annotations(root: Path, file: str, folder: str, side: str, report: Report) -> Notes:
    """All records of one caption file.

    Args:
        root: the folder of the data set.
        file: the JSON file, relative to the root.
        folder: the image folder, relative to the root.
        side: for messages.
        report: told of a file that is missing, not UTF-8, not JSON or of another structure
            (nothing is returned then), of an image that is listed twice and of a file name
            that leaves the folder (both are left out). Images without captions are returned
            with none.
    """
    path = root / str(file)
    text = read_text(path, report, side)
    if not text:
        return Notes([], None)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = f"{path} is not valid JSON ({error}): copy it again."
        report(Finding(Kind.CORRUPT, side, (str(file),), reason))
        return Notes([], None)
    try:
        files = sorted((int(entry["id"]), entry["file_name"]) for entry in content["images"])
        captions: dict[int, list[object]] = {number: [] for number, _ in files}
        for note in content["annotations"]:
            # Captions of images that are not listed (a filtered copy) are no record of ours.
            captions.get(int(note["image_id"]), []).append(note["caption"] + "")
        year = _year(content.get("info"), str(file))
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = (
            f"{path} is not a COCO caption file ({type(error).__name__}: {error}): it needs "
            "images with id and file_name, and annotations with image_id and caption."
        )
        report(Finding(Kind.CORRUPT, side, (str(file),), reason))
        return Notes([], None)
    photos = [
        Photo(
            str(number),
            f"{folder}/{name}",
            clean_captions(captions[number]),
            str(file),
            File(root / str(folder) / name),
        )
        for number, name in _sound_files(path, files, side, report)
    ]
    return Notes(photos, year)


def _year(info: object, file: str) -> int | None:
    """The year that the file states, else the one in its name."""
    stated = info.get("year") if isinstance(info, Mapping) else None
    named = re.search(r"(?:train|val)(20\d\d)", file)
    return stated if isinstance(stated, int) else int(named[1]) if named else None


def _sound_files(
    path: Path, files: list[tuple[int, Any]], side: str, report: Report
) -> Iterator[tuple[int, str]]:
    """Every id and file once, and only plain file names: no way out of the folder."""
    ids: set[int] = set()
    names: set[str] = set()
    for number, name in files:
        if not isinstance(name, str) or not is_plain(name):
            text = (
                f"{path}: file_name {name!r} of image {number} is not a plain file name: "
                "correct the annotation file, images are only read from their folder."
            )
            report(Finding(Kind.UNSAFE, side, (repr(name),), text))
        elif number in ids or name in names:
            text = (
                f"{path} lists image {number} ({name}) twice: correct the annotation file, "
                "a record counts once."
            )
            report(Finding(Kind.REPEATED, side, (name,), text))
        else:
            ids.add(number)
            names.add(name)
            yield number, name
