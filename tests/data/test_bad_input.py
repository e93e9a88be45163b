"""2,000 files of every kind of damage: decoded right, or named and refused. Never a traceback."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import image_folder
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
Rng = np.random.Generator


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=form, **options)
    return stream.getvalue()


def plain(mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> Image.Image:
    return Image.new("RGB", size, COLOUR).convert(mode)


def whole(rng: Rng) -> bytes:
    """A sound file in any format."""
    noise = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    form = str(rng.choice(["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"]))
    return encoded(Image.fromarray(noise), form)


def flipped(rng: Rng) -> bytes:
    content = bytearray(whole(rng))
    for place in rng.integers(0, len(content), rng.integers(1, 20)):
        content[place] = rng.integers(0, 256)
    return bytes(content)


def bomb(rng: Rng) -> bytes:
    """A PNG that says it has a hundred billion pixels."""
    side = int(rng.integers(20_000, 300_000))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    )


def text_bomb(rng: Rng) -> bytes:
    """A PNG whose comment unpacks to 100 MB."""
    words = b"Comment\0\0" + zlib.compress(b"x" * 10**8)
    chunk = struct.pack(">I", len(words)) + b"zTXt" + words
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + words))
    content = encoded(plain(), "PNG")
    return content[:33] + chunk + content[33:]


def turned(rng: Rng) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(1, 9))
    return encoded(plain(), "PNG", exif=exif)


def broken_exif(rng: Rng) -> bytes:
    junk = b"Exif\0\0II*\0" + rng.bytes(int(rng.integers(0, 40)))
    return encoded(plain(), "JPEG", exif=junk)


# What each kind must come to: True is decoded to the colour, False is refused, None is either.
KINDS: dict[str, tuple[Callable[[Rng], bytes], bool | None]] = {
    "sound": (lambda rng: encoded(plain(), "PNG"), True),
    "cmyk": (lambda rng: encoded(plain("CMYK"), "TIFF"), True),
    "palette": (lambda rng: encoded(plain().quantize(4), "PNG"), True),
    "alpha": (lambda rng: encoded(plain("RGBA"), "PNG"), True),
    "bitmap": (lambda rng: encoded(plain(), "BMP"), True),
    "turned": (turned, True),
    "truncated": (lambda rng: (w := whole(rng))[: int(rng.integers(0, len(w) // 2))], False),
    "zeros": (lambda rng: b"\0" * int(rng.integers(0, 5000)), False),
    "zeros after the start": (lambda rng: encoded(plain(), "PNG")[:60] + b"\0" * 500, False),
    "noise": (lambda rng: rng.bytes(int(rng.integers(1, 5000))), False),
    "page": (lambda rng: b"<!DOCTYPE html><html>404</html>", False),
    "postscript": (lambda rng: encoded(plain(), "EPS"), False),
    "bomb": (bomb, False),
    "text bomb": (text_bomb, False),
    "32 bits": (lambda rng: encoded(plain("F"), "TIFF"), False),
    "16 bits": (lambda rng: encoded(Image.fromarray(np.full((9, 9), 999, "u2")), "PNG"), None),
    "flipped bytes": (flipped, None),
    "broken exif": (broken_exif, None),
}
ENDINGS = ("jpg", "png", "JPEG", "webp", "tif", "gif", "bmp")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with 2,000 files, each with a caption, and the kind of each file."""
    root, rng = tmp_path_factory.mktemp("damaged"), np.random.default_rng(5)
    (root / "train").mkdir()
    kinds: dict[str, str] = {}
    cheap = [kind for kind in KINDS if kind != "text bomb"]
    for number in range(COUNT):
        kind = cheap[number % len(cheap)] if number % 400 else "text bomb"
        # The name says nothing about what is inside.
        name = f"{number:05d}.{ENDINGS[number % len(ENDINGS)]}"
        (root / "train" / name).write_bytes(KINDS[kind][0](rng))
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
        expected = KINDS[kinds[file.name]][1]
        if expected is not None:
            assert seen.sound[row] == expected, (kinds[file.name], seen.damaged.get(row))
        assert seen.sound[row] == (row not in seen.damaged)  # nothing is skipped
        if expected:
            difference = decode(file.read_bytes(), 4).reshape(3, -1) - np.array(COLOUR)[:, None]
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
        (tmp_path / f"mine/train/{name}.png").write_bytes(encoded(plain(), "PNG"))
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
