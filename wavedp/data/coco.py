"""Captioned photographs in the published layout of MS-COCO.

Layout (https://cocodataset.org/#format-data, "Image Captioning"): a JSON file with
``images`` (``id``, ``file_name``) and ``annotations`` (``image_id``, ``caption``), and a folder
with the files. About five captions per image, written by people; one record is one image with
all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from wavedp.data.photos import Photo, PhotoDataset, clean_caption, read_text, take
from wavedp.dp.errors import UserError


class Coco(PhotoDataset):
    """MS-COCO, or a part of it, in the published layout.

    Args:
        root: the folder that holds ``annotations/`` and the image folders.
        private: ``images`` (folder) and ``annotations`` (JSON file), both relative to the
            root, and optionally ``start``: with the images sorted by numeric id, the records
            ``start`` to ``start + private_records`` are private. Default 0.
        evaluation: the same for evaluation. It may name the same files with another
            ``start``; a record on both sides is refused by id, which also catches
            train2017 paired with val2014 (they share about 35,000 images).
        captions_per_record: public constant, 5 for COCO.

    The other arguments are those of :class:`~wavedp.data.photos.PhotoDataset`.
    """

    holds: ClassVar[str] = "annotations/ and the image folder (val2017/)"

    def __init__(
        self,
        *,
        root: str | Path | None,
        private: Mapping[str, Any],
        evaluation: Mapping[str, Any],
        private_records: int,
        evaluation_records: int,
        resolution: int,
        name: str,
        version: str,
        cache_dir: str | Path,
        captions_per_record: int = 5,
    ) -> None:
        super().__init__(
            root=root,
            private_records=private_records,
            evaluation_records=evaluation_records,
            resolution=resolution,
            name=name,
            version=version,
            cache_dir=cache_dir,
            captions_per_record=captions_per_record,
        )
        self._parts = {"private": dict(private), "evaluation": dict(evaluation)}

    def index(self, root: Path) -> tuple[list[Photo], list[Photo]]:
        """Both sides, sorted by numeric image id."""
        return (
            self._side(root, "private", self.private_records),
            self._side(root, "evaluation", self.evaluation_records),
        )

    def _side(self, root: Path, side: str, declared: int) -> list[Photo]:
        part = {"start": 0, **self._parts[side]}
        if set(part) != {"images", "annotations", "start"}:
            raise UserError(
                f"dataset.{side} needs images and annotations, and may have start; "
                f"it has {', '.join(sorted(self._parts[side])) or 'nothing'}."
            )
        if not isinstance(part["start"], int):
            raise UserError(f"dataset.{side}.start={part['start']} must be a whole number.")
        source = root / str(part["annotations"])
        photos = read_annotations(source, str(part["images"]), str(part["annotations"]))
        setting = f"{side}_records"
        return list(take(photos, declared, start=part["start"], setting=setting, source=source))


def read_annotations(path: Path, folder: str, source: str) -> list[Photo]:
    """All records of one caption file, sorted by numeric image id.

    Args:
        path: the JSON file.
        folder: image folder relative to the root, put before every file name.
        source: the JSON file relative to the root, for messages.

    Raises:
        UserError: missing, not UTF-8, not JSON, another structure, a repeated image id, or a
            file name that leaves the folder. Images without captions are returned with none.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): copy it again.") from error
    try:
        files = [(int(entry["id"]), entry["file_name"]) for entry in content["images"]]
        notes = [(int(note["image_id"]), note["caption"]) for note in content["annotations"]]
        captions: dict[int, list[str]] = {number: [] for number, _ in files}
        for number, caption in notes:
            text = clean_caption(caption)
            # Captions of images that are not listed (a filtered copy) are no record of ours.
            if text and number in captions:
                captions[number].append(text)
        files.sort()
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is not a COCO caption file ({type(error).__name__}: {error}): it needs "
            "images with id and file_name, and annotations with image_id and caption."
        ) from error
    _refuse_bad_files(path, files)
    return [
        Photo(str(number), f"{folder}/{file}", tuple(captions[number]), source)
        for number, file in files
    ]


def _refuse_bad_files(path: Path, files: list[tuple[int, str]]) -> None:
    """Every id and file at most once, and only plain file names: no way out of the folder."""
    ids: set[int] = set()
    names: set[str] = set()
    for number, file in files:
        if not isinstance(file, str) or not _is_plain(file):
            raise UserError(
                f"{path}: file_name {file!r} of image {number} is not a plain file name: "
                "correct the annotation file, images are only read from their folder."
            )
        if number in ids or file in names:
            raise UserError(
                f"{path} lists image {number} ({file}) twice: correct the annotation file, "
                "a record counts once."
            )
        ids.add(number)
        names.add(file)


def _is_plain(file: str) -> bool:
    """A name that stays in its folder on every system."""
    return file not in ("", ".", "..") and not {"/", "\\", "\0"} & set(file)
