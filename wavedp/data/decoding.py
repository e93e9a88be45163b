"""From the bytes of an image file to square RGB pixels, in one stated way.

- EXIF orientation is applied, before anything is cropped.
- Colour becomes 8-bit RGB. Greyscale is repeated in three channels; palettes are looked up;
  alpha is composited over white; CMYK and YCbCr are converted by their defining formulas,
  without colour profiles; 16-bit greyscale is divided by 257 and rounded, and of 16-bit colour
  the high byte is kept (Pillow's own reading). 32-bit integers and floats are refused: the
  file does not say what their white is.
- The centre square is kept and resized with Lanczos: the preparation of the 30k COCO protocol.
  JPEG's reduced-size decoding is not used, because it would replace part of the Lanczos filter.
- Of an animation the first picture is used.
"""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

RECIPE = 2
"""Raise it when :func:`decode` changes, so that older caches are built anew."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What is read, whatever a file is called. Never all that Pillow knows: it has an EPS reader
that starts an interpreter (Ghostscript) on the file."""
MAX_PIXELS = 89_478_485
"""Pillow's own bound on what is no attack (a quarter GiB of RGB), here a refusal."""

# What Pillow raises on damaged files, beyond OSError (which covers truncation).
_DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError,
    MemoryError, AttributeError, RuntimeError, struct.error, Image.DecompressionBombError,
)  # fmt: skip
# Above the bound this module refuses in its own words; Pillow's warning would only precede it.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Damaged tags that do not matter: the picture is decoded all the same.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class Damaged(Exception):
    """The bytes are not an image that can be read; the message says why."""


def decode(data: bytes, resolution: int) -> NDArray[np.uint8]:
    """The bytes of an image file as uint8 ``[3, R, R]`` in 0..255.

    Raises:
        Damaged: truncated, not an image, too large, or without a defined white. Flipped bits
            inside a JPEG of full length are not noticed: the format has no checksum.
    """
    square = centre_square(upright(data))
    small = square.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.asarray(small, dtype=np.uint8).transpose(2, 0, 1)


def centre_square(image: Image.Image) -> Image.Image:
    """The largest square in the middle, half a pixel to the left or top where it must be.

    Cropped before it is resized: the filter of ``resize(box=...)`` would see beyond the crop.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return image if image.size == (side, side) else image.crop(box)


def upright(data: bytes) -> Image.Image:
    """The whole picture in RGB, EXIF orientation applied.

    Raises:
        Damaged: as in :func:`decode`.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise Damaged(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _rgb(image)
    except _DAMAGED as error:
        # Pillow names the stream in some messages; an address in memory helps nobody.
        reason = "not an image" if "cannot identify" in str(error) else str(error)
        raise Damaged(reason or type(error).__name__) from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise Damaged("32-bit pixels without a stated white, convert it to 8 or 16 bits")
    if image.mode.startswith("I;16"):
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype("u1"))
    if image.has_transparency_data:
        colour = image.convert("RGBA")
        white = Image.new("RGBA", colour.size, "white")
        return Image.alpha_composite(white, colour).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
