"""Every image of a data set, decoded in full and looked at: what the doctor's findings rest on.

For the data's owner. Nothing of this may reach a method, a record or a log.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wavedp.data.decoding import Damaged, centre_square, upright
from wavedp.data.stored import Stored
from wavedp.dp.progress import Progress, silent

THUMB = (18, 16)
"""Width and height of a thumbnail: twice the 9 x 8 cells of a difference hash."""
_BLOCK = 64
_GREY = 2  # Channels of a thumbnail that differ by no more are one channel.


@dataclass(frozen=True)
class Examined:
    """What was seen of ``n`` images.

    Attributes:
        sizes: width and height in pixels as shown, int32 ``[n, 2]``; 0 where damaged.
        grey: whether all three channels are the same, bool ``[n]``.
        digests: a 128-bit digest of size and pixels, bytes ``[n]``; empty where damaged.
        thumbs: two views at 18 x 16 px, uint8 ``[n, 2, 16, 18, 3]``: the whole picture, and its
            centre square, which is what is trained on and what other copies may be cut to. The
            second is black where the picture is square.
        damaged: why an image cannot be decoded, by its row.
    """

    sizes: NDArray[np.int32]
    grey: NDArray[np.bool_]
    digests: NDArray[np.bytes_]
    thumbs: NDArray[np.uint8]
    damaged: dict[int, str] = field(default_factory=dict)

    @classmethod
    def blank(cls, count: int) -> Examined:
        """``count`` images, none of them seen."""
        return cls(
            np.zeros((count, 2), np.int32),
            np.zeros(count, bool),
            np.zeros(count, "S32"),
            np.zeros((count, 2, THUMB[1], THUMB[0], 3), np.uint8),
        )

    @property
    def sound(self) -> NDArray[np.bool_]:
        """Which images could be decoded, ``[n]``."""
        return self.sizes[:, 0] > 0


def examine(
    images: Sequence[Stored], progress: Progress = silent, label: str = "examining"
) -> Examined:
    """Decode and look at every image, on all cores. Damaged ones are noted, not raised."""
    seen = Examined.blank(len(images))
    starts = range(0, len(images), _BLOCK)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        blocks = pool.map(lambda start: _look_at(images, start, seen), starts)
        try:
            for _ in zip(progress(starts, label), blocks, strict=True):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
    return seen


def _look_at(images: Sequence[Stored], start: int, seen: Examined) -> None:
    for row in range(start, min(start + _BLOCK, len(images))):
        try:
            image = upright(images[row].read())
        except (OSError, Damaged) as error:
            seen.damaged[row] = str(getattr(error, "strerror", None) or error)
            continue
        seen.sizes[row], seen.digests[row] = image.size, _digest(image)
        seen.thumbs[row, 0] = thumb = _thumb(image)
        seen.grey[row] = int(np.ptp(thumb.astype(np.int16), axis=-1).max()) <= _GREY
        square = centre_square(image)
        if square.size != image.size:
            seen.thumbs[row, 1] = _thumb(square)


def _thumb(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.resize(THUMB, Image.Resampling.BOX), np.uint8)


def _digest(image: Image.Image) -> bytes:
    digest = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.hexdigest().encode()
