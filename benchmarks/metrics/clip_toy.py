"""``clip_toy``: agreement of images with their captions in the yardstick's common space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmarks import bootstrap
from benchmarks.metrics import Direction, Metric, Reads, Scores
from benchmarks.metrics.yardstick import WEIGHTS, load_yardstick


class ClipToy(Metric):
    """Mean cosine between an image and its caption, times 100. Higher is better.

    Not a CLIP score: the encoder is the embedded yardstick.
    """

    direction: ClassVar[Direction | Mapping[str, Direction]] = "higher"
    needs_text: ClassVar[bool] = True
    reads: ClassVar[Reads] = "nothing"
    unlike: ClassVar[str] = "CLIP score"
    protocol = "mean cosine x100 of image and prompt in the embedded yardstick"
    weights = (WEIGHTS,)

    def describe(
        self, images: Tensor, captions: Sequence[str], real: Tensor | None = None
    ) -> np.ndarray:
        """See :class:`benchmarks.metrics.Metric`: one cosine per sample, ``[b, 1]``."""
        del real
        yardstick = load_yardstick()
        with torch.no_grad():
            pairs = yardstick.embed_images(images) * yardstick.embed_texts(captions)
        return pairs.sum(1, keepdim=True).numpy()

    def score(self, rows: np.ndarray) -> Scores:
        """See :class:`benchmarks.metrics.Metric`."""
        return 100 * math.fsum(rows[:, 0].tolist()) / len(rows)

    def standard_error(self, rows: np.ndarray) -> Scores:
        """See :class:`benchmarks.metrics.Metric`."""
        return 100 * bootstrap.standard_error_of_mean(rows)
