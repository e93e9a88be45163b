"""Faces with captions in the published layout of Multi-Modal-CelebA-HQ.

Layout (https://github.com/IIGROUP/MM-CelebA-HQ-Dataset): ``image/images/{id}.jpg`` (or
``CelebAMask-HQ/CelebA-HQ-img/{id}.jpg``), ``text/celeba-caption/{id}.txt`` with one caption per
line, ten lines, and the ids of the split in ``train/filenames.pickle`` and
``test/filenames.pickle``. The captions are written from the attributes of the face, so they
are private data like the image. Published: 30,000 JPEG of 512 px, split 24,000 and 6,000.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from wavedp.data.captions import clean_captions, read_text
from wavedp.data.findings import Finding, Kind, Report, refuse
from wavedp.data.photos import EVALUATION, PRIVATE, Photo, PhotoDataset, take
from wavedp.data.stored import MISSING, File

_IMAGE_FOLDERS = ("image/images", "CelebAMask-HQ/CelebA-HQ-img")
_CAPTIONS = "text/celeba-caption"
_SPLITS = {PRIVATE: "train/filenames.pickle", EVALUATION: "test/filenames.pickle"}

# Opcodes of pickles (see the module pickletools): of plain lists, tuples, dicts, text and numbers,
_PLAIN = """
    PROTO FRAME STOP MARK EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    EMPTY_DICT DICT SETITEM SETITEMS NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1 FLOAT
    BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE STRING BINSTRING SHORT_BINSTRING
"""
# of references to what was there before, and of names of code.
_MEMO = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET")
_CODE = ("GLOBAL", "STACK_GLOBAL", "INST")


class MMCelebAHQ(PhotoDataset):
    """MM-CelebA-HQ: the train split is private, the test split is for evaluation.

    Each side uses its declared number of records, in the order of the split file.

    Args:
        captions_per_record: public constant, 10 here.
        settings: those of :class:`~wavedp.data.photos.PhotoDataset`.
    """

    holds: ClassVar[str] = "image/ and text/"

    def __init__(self, *, captions_per_record: int = 10, **settings: Any) -> None:
        super().__init__(captions_per_record=captions_per_record, **settings)

    def index(self, root: Path, report: Report) -> dict[str, list[Photo]]:
        """Both sides, in the order of the split files."""
        ids = {side: read_split(root / file, side, report) for side, file in _SPLITS.items()}
        self._check_swapped(root, len(ids[PRIVATE]), len(ids[EVALUATION]), report)
        folder = _image_folder(root, report)
        return {
            side: take(
                # Lazy: the captions of records that are not declared are not read.
                (_photo(root, folder, name, side, report) for name in names),
                self.declared[side],
                side=side,
                source=root / _SPLITS[side],
                report=report,
            )
            for side, names in ids.items()
        }

    def _check_swapped(self, root: Path, train: int, test: int, report: Report) -> None:
        """Some copies have the two split files swapped: published, train is the larger one."""
        declared = (self.private_records, self.evaluation_records)
        if (train, test) != declared and (train < test or (test, train) == declared):
            files = tuple(_SPLITS.values())
            text = (
                f"{root}: {files[0]} lists {train} ids and {files[1]} lists {test}, but the config "
                f"declares {declared[0]} private and {declared[1]} evaluation records: the two "
                "files look swapped, as in some copies; exchange them."
            )
            report(Finding(Kind.SWAPPED, f"{PRIVATE} and {EVALUATION}", files, text))


def read_split(path: Path, side: str = PRIVATE, report: Report = refuse) -> Sequence[str]:
    """The ids of one side from a pickled list of strings, without running what it may hold.

    Reports a file that is missing, not a pickle, or holds anything but a list of ids (decimal
    digits), and returns no ids then; and an id that is listed twice, which is returned once.
    """
    try:
        data = File(path).read()
        _refuse_odd_opcodes(data)
        names = _StringsOnly(io.BytesIO(data), path).load()
    except _Code as error:
        return _unreadable(Kind.UNSAFE, path, side, report, str(error))
    except OSError as error:
        text = f"{path} cannot be read ({error.strerror}): complete the folder."
        return _unreadable(Kind.MISSING, path, side, report, text)
    except Exception as error:  # A damaged pickle can raise almost anything (Python's manual).
        text = f"{path} is not a valid pickle ({error}): copy it again."
        return _unreadable(Kind.CORRUPT, path, side, report, text)
    if not isinstance(names, list) or not all(
        isinstance(name, str) and re.fullmatch(r"[0-9]+", name) for name in names
    ):
        text = f"{path} is not a list of image ids written as digits: copy it again."
        return _unreadable(Kind.CORRUPT, path, side, report, text)
    once = list(dict.fromkeys(names))
    if len(once) != len(names):
        twice = tuple(name for name, count in Counter(names).items() if count > 1)
        text = f"{path} lists an id twice: correct it, a record counts once."
        report(Finding(Kind.REPEATED, side, twice, text))
    return once


def _unreadable(kind: Kind, path: Path, side: str, report: Report, text: str) -> Sequence[str]:
    report(Finding(kind, side, (str(path),), text))
    return ()


def _refuse_odd_opcodes(data: bytes) -> None:
    """A damaged pickle may ask for a table of gigabytes, or for kinds of data that lists lack.

    Raises:
        ValueError: it does.
    """
    allowed = {*_PLAIN.split(), *_MEMO}
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in _CODE:
            return  # the unpickler stops there, and says at what
        far = opcode.name in _MEMO and isinstance(argument, int) and argument > len(data)
        if far or opcode.name not in allowed:
            raise ValueError(f"it holds {opcode.name} {argument!r}"[:80])


class _Code(Exception):
    """A pickle that asks for code."""


class _StringsOnly(pickle.Unpickler):
    """Loads plain containers and text; any reference to code is refused, not imported."""

    def __init__(self, stream: io.BytesIO, path: Path) -> None:
        super().__init__(stream)
        self._path = path

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _Code(
            f"{self._path} asks to load {module}.{name}, which a list of file names never does: "
            "do not trust this copy, fetch the split file again."
        )


def _image_folder(root: Path, report: Report) -> str:
    for folder in _IMAGE_FOLDERS:
        if (root / folder).is_dir():
            return folder
    text = (
        f"{root} has neither {_IMAGE_FOLDERS[0]} nor {_IMAGE_FOLDERS[1]}: "
        "set dataset.root to the folder that holds one of them."
    )
    report(Finding(Kind.MISSING, f"{PRIVATE} and {EVALUATION}", _IMAGE_FOLDERS, text))
    return _IMAGE_FOLDERS[0]


def _photo(root: Path, folder: str, name: str, side: str, report: Report) -> Photo:
    source, file = f"{_CAPTIONS}/{name}.txt", f"{folder}/{name}.jpg"
    # A missing text file counts as no caption, so that the message can say how many there are.
    there = File(root / source).stamp() != MISSING
    text = read_text(root / source, report, side) if there else ""
    return Photo(name, file, clean_captions(text.split("\n")), source, File(root / file))
