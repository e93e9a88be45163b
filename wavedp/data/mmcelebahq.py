"""Faces with captions in the published layout of Multi-Modal-CelebA-HQ.

Layout (https://github.com/IIGROUP/MM-CelebA-HQ-Dataset): ``image/images/{id}.jpg`` (or
``CelebAMask-HQ/CelebA-HQ-img/{id}.jpg``), ``text/celeba-caption/{id}.txt`` with one caption per
line, ten lines, and the ids of the split in ``train/filenames.pickle`` and
``test/filenames.pickle``. The captions are written from the attributes of the face, so they
are private data like the image. Published split: 24,000 and 6,000.
"""

from __future__ import annotations

import io
import os
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NoReturn

from wavedp.data.photos import Photo, PhotoDataset, clean_caption, read_text, take
from wavedp.dp.errors import UserError

_IMAGE_FOLDERS = ("image/images", "CelebAMask-HQ/CelebA-HQ-img")
_CAPTIONS = "text/celeba-caption"
_TRAIN, _TEST = "train/filenames.pickle", "test/filenames.pickle"


class MMCelebAHQ(PhotoDataset):
    """MM-CelebA-HQ: the train split is private, the test split is for evaluation.

    Each side uses its declared number of records, in the order of the split file.
    ``captions_per_record`` is a public constant, 10 here. The other arguments are those of
    :class:`~wavedp.data.photos.PhotoDataset`.
    """

    holds: ClassVar[str] = "image/ and text/"

    def __init__(
        self,
        *,
        root: str | Path | None,
        private_records: int = 22_000,
        evaluation_records: int = 2_000,
        resolution: int,
        name: str,
        version: str,
        cache_dir: str | Path,
        captions_per_record: int = 10,
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

    def index(self, root: Path) -> tuple[list[Photo], list[Photo]]:
        """Both sides, in the order of the split files."""
        train, test = read_split(root / _TRAIN), read_split(root / _TEST)
        self._refuse_swapped(root, len(train), len(test))
        private = take(train, self.private_records, setting="private_records", source=root / _TRAIN)
        evaluation = take(
            test, self.evaluation_records, setting="evaluation_records", source=root / _TEST
        )
        folder = _image_folder(root)
        return (
            [_photo(root, folder, name) for name in private],
            [_photo(root, folder, name) for name in evaluation],
        )

    def _refuse_swapped(self, root: Path, train: int, test: int) -> None:
        """Some copies have the two split files swapped: published, train is the larger one."""
        declared = (self.private_records, self.evaluation_records)
        if (train, test) == declared:
            return
        if train < test or (test, train) == declared:
            raise UserError(
                f"{root}: {_TRAIN} lists {train} ids and {_TEST} lists {test}, but the config "
                f"declares {declared[0]} private and {declared[1]} evaluation records: the two "
                "files look swapped, as in some copies; exchange them."
            )


def read_split(path: Path) -> Sequence[str]:
    """The ids of one side from a pickled list of strings, without running what it may hold.

    Raises:
        UserError: missing, not a pickle, holds anything but a list of ids (decimal digits),
            or an id twice.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): complete the folder."
        ) from error
    try:
        names = _StringsOnly(io.BytesIO(data), path).load()
    except UserError:
        raise
    except Exception as error:  # A damaged pickle can raise almost anything (Python's manual).
        raise UserError(f"{path} is not a valid pickle ({error}): copy it again.") from error
    if not isinstance(names, list) or not all(
        isinstance(name, str) and re.fullmatch(r"[0-9]+", name) for name in names
    ):
        raise UserError(f"{path} is not a list of image ids written as digits: copy it again.")
    if len(set(names)) != len(names):
        raise UserError(f"{path} lists an id twice: correct it, a record counts once.")
    return names


class _StringsOnly(pickle.Unpickler):
    """Loads plain containers and text; any reference to code is refused, not imported."""

    def __init__(self, stream: io.BytesIO, path: Path) -> None:
        super().__init__(stream)
        self._path = path

    def find_class(self, module: str, name: str) -> NoReturn:
        raise UserError(
            f"{self._path} asks to load {module}.{name}, which a list of file names never does: "
            "do not trust this copy, fetch the split file again."
        )


def _image_folder(root: Path) -> str:
    for folder in _IMAGE_FOLDERS:
        if (root / folder).is_dir():
            return folder
    raise UserError(
        f"{root} has neither {_IMAGE_FOLDERS[0]} nor {_IMAGE_FOLDERS[1]}: "
        "set dataset.root to the folder that holds one of them."
    )


def _photo(root: Path, folder: str, name: str) -> Photo:
    source = f"{_CAPTIONS}/{name}.txt"
    # A missing text file counts as no caption, so that the message can say how many there are.
    text = read_text(root / source) if os.path.isfile(root / source) else ""
    lines = (clean_caption(line) for line in text.split("\n"))
    return Photo(name, f"{folder}/{name}.jpg", tuple(line for line in lines if line), source)
