"""From bytes to pixels: every kind of image is decoded in the stated way, or refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wavedp.data import decoding
from wavedp.data.decoding import Damaged, decode, upright


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=form, **options)
    return stream.getvalue()


def flat(mode: str, value: Any, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new(mode, size, value)


def colour_of(data: bytes) -> list[int]:
    """The one colour of a flat image."""
    image = decode(data, 4)
    assert (image == image[:, :1, :1]).all()
    return [int(value) for value in image[:, 0, 0]]


def test_greyscale_is_repeated_in_three_channels() -> None:
    assert colour_of(encoded(flat("L", 77))) == [77, 77, 77]
    assert colour_of(encoded(flat("1", 1))) == [255, 255, 255]


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (257, 1), (32896, 128), (65535, 255)])
def test_16_bit_greyscale_is_divided_by_257(value: int, expected: int) -> None:
    pixels = np.full((8, 8), value, np.uint16)
    for form in ("PNG", "TIFF"):
        assert colour_of(encoded(Image.fromarray(pixels), form)) == [expected] * 3


def test_16_bit_colour_keeps_the_high_byte() -> None:
    assert colour_of(png16((0x12FF, 0x8000, 0xFFFF))) == [0x12, 0x80, 0xFF]


def png16(colour: tuple[int, int, int], side: int = 8) -> bytes:
    """A PNG of 16-bit colour, which Pillow reads but does not write."""
    row = b"\0" + struct.pack(">3H", *colour) * side
    header = struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(row * side)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_palettes_are_looked_up() -> None:
    image = Image.new("P", (8, 8), 3)
    image.putpalette([0] * 9 + [10, 200, 30] + [0] * 756)
    assert colour_of(encoded(image)) == [10, 200, 30]


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("RGBA", (255, 0, 0, 0), [255, 255, 255]),  # transparent: white
        ("RGBA", (10, 20, 30, 255), [10, 20, 30]),  # opaque: itself
        ("RGBA", (0, 0, 0, 51), [204, 204, 204]),  # a fifth of black over white
        ("LA", (0, 0), [255, 255, 255]),
    ],
)
def test_alpha_is_composited_over_white(mode: str, value: Any, expected: list[int]) -> None:
    assert colour_of(encoded(flat(mode, value))) == expected


def test_a_transparent_colour_of_a_palette_is_white_too() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([9, 9, 9, 200, 0, 0] + [0] * 762)
    assert colour_of(encoded(image, transparency=1)) == [255, 255, 255]
    assert colour_of(encoded(image, transparency=0)) == [200, 0, 0]


def test_cmyk_is_converted_by_its_formula() -> None:
    # Half cyan, no black: red is 255 - 128, the others stay full.
    assert colour_of(encoded(flat("CMYK", (128, 0, 0, 0)), "TIFF")) == [127, 255, 255]
    red, green, blue = colour_of(encoded(flat("CMYK", (0, 255, 255, 0)), "JPEG", quality=95))
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.parametrize("pixels", [np.ones((8, 8), np.float32), np.ones((8, 8), np.int32)])
def test_pixels_without_a_stated_white_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(Damaged, match="white"):
        decode(encoded(Image.fromarray(pixels), "TIFF"), 4)


def test_an_animation_shows_its_first_picture() -> None:
    frames = [flat("RGB", (200, 0, 0)), flat("RGB", (0, 200, 0))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert colour_of(data) == [200, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_shown_upright(orientation: int) -> None:
    """The tag says how the stored picture was turned; its inverse is applied."""
    transposes = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # stored lying on its left side
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    rng = np.random.default_rng(0)
    seen = Image.fromarray(rng.integers(0, 256, (6, 10, 3), dtype=np.uint8))
    turn = transposes[orientation]
    stored = seen if turn is None else seen.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = upright(encoded(stored, exif=exif))
    assert np.array_equal(np.asarray(shown), np.asarray(seen))


def test_the_name_does_not_decide_how_a_file_is_read(tmp_path: Path) -> None:
    flat("RGB", (1, 2, 3)).save(tmp_path / "x.png")
    assert colour_of((tmp_path / "x.png").rename(tmp_path / "x.jpg").read_bytes()) == [1, 2, 3]


def test_a_decompression_bomb_is_refused_before_it_is_unpacked() -> None:
    side = 20_000  # 1.2 GB of pixels in a file of a few hundred kilobytes
    row = zlib.compress(b"\0" * (side + 1) * 100)
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in [(b"IHDR", header), (b"IDAT", row), (b"IEND", b"")]
    ]
    with pytest.raises(Damaged, match=r"pixels|bomb"):
        decode(b"\x89PNG\r\n\x1a\n" + b"".join(parts), 8)


def test_the_bound_on_pixels_is_this_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(flat("RGB", 0, (10, 10)))
    monkeypatch.setattr(decoding, "MAX_PIXELS", 100)
    decode(data, 4)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 99)
    with pytest.raises(Damaged, match="10 x 10 pixels, more than 99"):
        decode(data, 4)


def test_no_format_with_an_interpreter_is_read(tmp_path: Path) -> None:
    """Pillow hands EPS to Ghostscript, a program that runs what the file says."""
    eps = encoded(flat("RGB", (1, 2, 3)), "EPS")
    assert Image.open(io.BytesIO(eps)).format == "EPS"  # Pillow would
    with pytest.raises(Damaged, match="not an image"):
        decode(eps, 4)
