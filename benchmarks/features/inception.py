"""The Inception-V3 of FID with the resizing of clean-fid (Parmar et al. 2022), 2048 features."""

from __future__ import annotations

import os

import torch
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from torch import Tensor

from benchmarks.features import FeatureSpace, per_image
from benchmarks.registry import find
from wavedp.dp.errors import UserError, one_line

WEIGHTS = "inception-2015-12-05"
MODES = {
    "clean": "Pillow's bicubic to 299 px without rounding",
    "legacy_tensorflow": "TensorFlow's bilinear without antialiasing, as the first FID",
}


class Inception(FeatureSpace):
    """clean-fid's own extractor and resizer.

    Args:
        mode: ``clean``, or ``legacy_tensorflow`` for numbers comparable with early papers.
        workers: threads that resize.
        batch: images per forward pass.

    Raises:
        UserError: an unknown mode.
    """

    weights = (WEIGHTS,)

    def __init__(self, mode: str = "clean", workers: int | None = None, batch: int = 50) -> None:
        super().__init__()
        if mode not in MODES:
            raise UserError(f"Unknown clean-fid mode {mode!r}: choose one of {', '.join(MODES)}.")
        self._resize_inside = mode == "legacy_tensorflow"
        self._resize = build_resizer(mode)
        self._workers = workers or os.cpu_count() or 1
        self.batch = batch
        self.label = f"clean-fid Inception-V3 2015-12-05 (2048), mode {mode}: {MODES[mode]}"

    def load(self, device: torch.device) -> None:
        """See :class:`FeatureSpace`."""
        path = find(WEIGHTS)
        try:
            network = InceptionV3W(
                str(path.parent), download=False, resize_inside=self._resize_inside
            )
        except (RuntimeError, AttributeError) as error:
            raise UserError(
                f"{path} is not the Inception of clean-fid: {one_line(error)}"
            ) from error
        self._network = network.to(device).eval()

    def extract(self, images: Tensor) -> Tensor:
        """See :class:`FeatureSpace`."""
        if self._resize_inside:
            resized = images.float()
        else:
            resized = per_image(self._resize, images, self._workers)
        features: Tensor = self._network(resized.contiguous().to(self.device))
        return features
