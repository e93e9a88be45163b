"""2,000 files of every kind of damage: decoded right, or named and refused. Never a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from corpora import image_folder
from damage import ENDINGS, KINDS, encoded, kind_of, png
from PIL import Image

from wavedp.data.decoding import decode
from wavedp.data.examination import examine
from wavedp.data.findings import Finding, Kind
from wavedp.data.stored import File
from wavedp.dp.errors import UserError

# Pytest shows what the library silences: Pillow's remarks on damaged tags.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

COUNT = 2000
COLOUR = (200, 60, 30)


def plain() -> Image.Image:
    return Image.new("RGB", (24, 16), COLOUR)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with 2,000 files, each with a caption, and the kind of each file."""
    root, rng = tmp_path_factory.mktemp("damaged"), np.random.default_rng(5)
    (root / "train").mkdir()
    kinds: dict[str, str] = {}
    for number in range(COUNT):
        kind = kind_of(number)
        name = f"{number:05d}.{ENDINGS[number % len(ENDINGS)]}"
        (root / "train" / name).write_bytes(KINDS[kind].make(plain(), rng))
        (root / "train" / f"{number:05d}.txt").write_text(f"picture {number}")
        kinds[name] = kind
    return root, kinds


def test_every_file_is_decoded_right_or_named(damaged: tuple[Path, dict[str, str]]) -> None:
    root, kinds = damaged
    files = sorted((root / "train").glob("*.*"))
    files = [file for file in files if file.suffix != ".txt"]
    assert len(files) == COUNT
    seen = examine([File(file) for file in files])
    for row, file in enumerate(files):
        kind = KINDS[kinds[file.name]]
        if kind.decodes is not None:
            assert seen.sound[row] == kind.decodes, (kinds[file.name], seen.damaged.get(row))
        assert seen.sound[row] == (row not in seen.damaged)  # nothing is skipped
        if kind.decodes:
            colour = np.asarray(kind.shows(plain()))[0, 0].astype(int)
            difference = decode(file.read_bytes(), 4).reshape(3, -1) - colour[:, None]
            assert np.abs(difference).max() <= 4, kinds[file.name]
    for reason in seen.damaged.values():
        assert reason
        assert "0x" not in reason  # no addresses of objects


def test_the_loader_refuses_the_first_and_the_survey_goes_on(
    damaged: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    root, _ = damaged
    dataset = image_folder(
        root,
        tmp_path,
        evaluation={"folder": "train", "start": 1000},
        private_records=1000,
        evaluation_records=1000,
    )
    with pytest.raises(UserError, match="cannot be decoded"):
        dataset.check()
    found: list[Finding] = []
    sides = dataset.survey(found.append)
    assert [len(photos) for photos in sides.values()] == [1000, 1000]
    assert found == []  # every file is there and has its caption


def test_captions_of_every_kind(tmp_path: Path) -> None:
    captions = {
        "bom": ("\ufeffone\n".encode(), ("one",)),
        "utf-16": ("one".encode("utf-16"), None),
        "latin-1": ("été".encode("latin-1"), None),
        "empty": (b"", None),
        "blank": (b" \r\n\t\n", None),
        "spaces": ("a\u00a0 b\r\nc".encode(), ("a b", "c")),
        "nul": (b"a\0b", ("a\0b",)),
    }
    for name, (content, _) in captions.items():
        (tmp_path / "mine/train").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"mine/train/{name}.png").write_bytes(png(plain()))
        (tmp_path / f"mine/train/{name}.txt").write_bytes(content)
    found: list[Finding] = []
    settings = {"private_records": 7, "evaluation": {"folder": "train"}}
    sides = image_folder(tmp_path / "mine", tmp_path, **settings).survey(found.append)
    for photo in sides["private"]:
        expected = captions[Path(photo.file).stem][1]
        assert photo.captions == (expected or ()), photo.file
    bare = next(f for f in found if f.kind is Kind.CAPTIONLESS and f.side == "private")
    assert {Path(item).stem for item in bare.items} == {"utf-16", "latin-1", "empty", "blank"}
    unreadable = {Path(f.items[0]).stem for f in found if f.kind is Kind.TEXT}
    assert unreadable == {"utf-16", "latin-1"}


def test_a_file_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded(plain(), "JPEG"))
    os.truncate(path, 2**40)  # a hole: it takes no room on the disk
    with pytest.raises(OSError, match="no photograph"):
        File(path).read()


@pytest.mark.parametrize("special", ["pipe", "device", "folder", "loop"])
def test_what_never_ends_is_not_read(tmp_path: Path, special: str) -> None:
    path = tmp_path / "x.jpg"
    if special == "pipe":
        os.mkfifo(path)
    elif special == "device":
        path.symlink_to("/dev/zero")
    elif special == "folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    assert File(path).stamp() == (-1, 0)
    with pytest.raises(OSError):  # noqa: PT011 - the system's words, or ours
        File(path).read()
