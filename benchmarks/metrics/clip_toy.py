"""``clip_toy``: agreement of images with their captions in the yardstick's common space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from benchmarks.metrics.yardstick import load_yardstick
from wavedp.data.schema import Records


class ClipToy:
    """Mean cosine between an image and its caption, times 100. Higher is better.

    Not a CLIP score: the encoder is the embedded yardstick.
    """

    direction: ClassVar[Literal["lower", "higher"]] = "higher"
    needs_text: ClassVar[bool] = True
    protocol = "mean cosine x100 of image and prompt in the embedded yardstick"

    def __init__(self) -> None:
        self._cosines: list[float] = []

    def prepare(self, reference: Records) -> None:
        """Nothing: the score needs no reference."""

    def update(self, images: Tensor, captions: Sequence[str]) -> None:
        """See :class:`benchmarks.metrics.Metric`."""
        yardstick = load_yardstick()
        with torch.no_grad():
            pairs = yardstick.embed_images(images) * yardstick.embed_texts(captions)
        self._cosines += pairs.sum(1).tolist()

    def compute(self) -> float:
        """See :class:`benchmarks.metrics.Metric`."""
        value = 100 * math.fsum(self._cosines) / len(self._cosines)
        self._cosines = []
        return value
