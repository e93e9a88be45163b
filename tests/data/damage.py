"""Files of every kind of damage, each made of a picture, and what each must come to."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

Rng = np.random.Generator
T = Image.Transpose
STORED = {
    1: None,
    2: T.FLIP_LEFT_RIGHT,
    3: T.ROTATE_180,
    4: T.FLIP_TOP_BOTTOM,
    5: T.TRANSPOSE,
    6: T.ROTATE_90,
    7: T.TRANSVERSE,
    8: T.ROTATE_270,
}
"""By the number in EXIF, how the pixels lie in the file (TIFF 6.0, tag Orientation): with 6 the
first row of the file is the right edge of the picture, so it was turned anticlockwise."""


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=form, **options)
    return stream.getvalue()


def png(picture: Image.Image) -> bytes:
    return encoded(picture, "PNG")


def grey(picture: Image.Image) -> Image.Image:
    return picture.convert("L").convert("RGB")


def whole(rng: Rng) -> bytes:
    """A sound file in any format."""
    noise = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    form = str(rng.choice(["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"]))
    return encoded(Image.fromarray(noise), form)


def cut(picture: Image.Image, rng: Rng) -> bytes:
    content = whole(rng)
    return content[: int(rng.integers(0, len(content) // 2))]


def flipped(picture: Image.Image, rng: Rng) -> bytes:
    content = bytearray(whole(rng))
    for place in rng.integers(0, len(content), rng.integers(1, 20)):
        content[place] = rng.integers(0, 256)
    return bytes(content)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(picture: Image.Image, rng: Rng) -> bytes:
    """A PNG that says it has a hundred billion pixels."""
    side = int(rng.integers(20_000, 300_000))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in chunks)


def text_bomb(picture: Image.Image, rng: Rng) -> bytes:
    """A PNG whose comment unpacks to 100 MB."""
    content = png(picture)
    return (
        content[:33] + chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 10**8)) + content[33:]
    )


def turned(picture: Image.Image, rng: Rng) -> bytes:
    """Stored lying on its side or mirrored, with a note how to hold it."""
    orientation = int(rng.integers(1, 9))
    stored, exif = STORED[orientation], Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture.transpose(stored) if stored is not None else picture, "PNG", exif=exif)


def broken_exif(picture: Image.Image, rng: Rng) -> bytes:
    junk = b"Exif\0\0II*\0" + rng.bytes(int(rng.integers(0, 40)))
    return encoded(picture, "JPEG", exif=junk)


def sixteen_bits(picture: Image.Image, rng: Rng) -> bytes:
    return png(Image.fromarray(np.asarray(picture.convert("L")).astype("u2") * 257))


@dataclass(frozen=True)
class Kind:
    """How a file is damaged.

    Attributes:
        make: its bytes, from a picture.
        decodes: True: to the picture; False: it is refused; None: either.
        shows: what of the picture is left.
        levels: how far it may be off, on average.
    """

    make: Callable[[Image.Image, Rng], bytes]
    decodes: bool | None
    shows: Callable[[Image.Image], Image.Image] = lambda picture: picture
    levels: float = 1.0


KINDS = {
    "sound": Kind(lambda p, rng: png(p), True),
    "cmyk": Kind(lambda p, rng: encoded(p.convert("CMYK"), "TIFF"), True),
    "palette": Kind(lambda p, rng: png(p.quantize(256)), True, levels=8.0),
    "alpha": Kind(lambda p, rng: png(p.convert("RGBA")), True),
    "bitmap": Kind(lambda p, rng: encoded(p, "BMP"), True),
    "greyscale": Kind(lambda p, rng: png(p.convert("L")), True, shows=grey),
    "16 bits": Kind(sixteen_bits, True, shows=grey),
    "turned": Kind(turned, True),
    "truncated": Kind(cut, False),
    "empty": Kind(lambda p, rng: b"", False),
    "zeros": Kind(lambda p, rng: b"\0" * int(rng.integers(1, 5000)), False),
    "zeros after the start": Kind(lambda p, rng: png(p)[:60] + b"\0" * 500, False),
    "noise": Kind(lambda p, rng: rng.bytes(int(rng.integers(1, 5000))), False),
    "page": Kind(lambda p, rng: b"<!DOCTYPE html><html>404</html>", False),
    "postscript": Kind(lambda p, rng: encoded(p, "EPS"), False),
    "bomb": Kind(bomb, False),
    "text bomb": Kind(text_bomb, False),
    "32 bits": Kind(lambda p, rng: encoded(p.convert("F"), "TIFF"), False),
    "flipped bytes": Kind(flipped, None),
    "broken exif": Kind(broken_exif, None),
}
RARE = "text bomb"
"""A tenth of a second each: one in 400 is enough."""
ENDINGS = ("jpg", "png", "JPEG", "webp", "tif", "gif", "bmp")
"""Of files, in turn: a name says nothing about what is inside."""


def kind_of(number: int) -> str:
    """The kind of the file with this number: all of them in turn."""
    common = [kind for kind in KINDS if kind != RARE]
    return common[number % len(common)] if number % 400 else RARE
