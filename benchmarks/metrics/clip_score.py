"""``clip_score``: agreement of images with their captions in CLIP (Hessel et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmarks import bootstrap
from benchmarks.features import shared
from benchmarks.features.clip import Clip
from benchmarks.metrics import Direction, Metric, Reads, Scores
from wavedp.dp.errors import UserError


class ClipScore(Metric):
    """Mean cosine of image and prompt in CLIP, times 100. Higher is better; at most 100.

    Args:
        model, weights: see :class:`Clip`.
        template: the prompt, with ``{}`` for the caption. The COCO protocol prefixes
            "A photo depicts ".

    Raises:
        UserError: the template has no ``{}``.
    """

    direction: ClassVar[Direction | Mapping[str, Direction]] = "higher"
    needs_text: ClassVar[bool] = True
    reads: ClassVar[Reads] = "nothing"

    def __init__(
        self,
        model: str = "ViT-B-32-quickgelu",
        weights: str = "clip-vit-b-32-openai",
        template: str = "A photo depicts {}",
    ) -> None:
        super().__init__()
        if template.count("{}") != 1:
            raise UserError(
                f"clip_score: the template {template!r} must contain {{}} once, for the caption."
            )
        self._space = Clip(model, weights)
        self.weights = self._space.weights
        self._template = template
        self.protocol = f"mean cosine x100 in {self._space.label}, prompt {template!r}"

    def open(self, device: torch.device) -> None:
        """See :class:`Metric`."""
        space = shared(self._space, device)
        assert isinstance(space, Clip)
        self._space = space

    def describe(
        self, images: Tensor, captions: Sequence[str], real: Tensor | None = None
    ) -> np.ndarray:
        """See :class:`Metric`: one cosine per sample, ``[b, 1]``."""
        del real
        features = self._space(images)
        units = features / np.linalg.norm(features, axis=1, keepdims=True)
        # Not str.format: captions may contain braces.
        texts = [self._template.replace("{}", caption) for caption in captions]
        return 100 * (units * self._space.embed_texts(texts)).sum(1, keepdims=True)

    def score(self, rows: np.ndarray) -> Scores:
        """See :class:`Metric`."""
        return float(rows.mean(dtype=np.float64))

    def standard_error(self, rows: np.ndarray) -> Scores:
        """See :class:`Metric`."""
        return bootstrap.standard_error_of_mean(rows)
