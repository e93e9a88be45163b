"""The embedded yardstick: a small image-text dual encoder trained on public toy data only.

It plays the part of Inception and CLIP where nothing can be downloaded. Its distances are
called ``fd_toy`` and ``clip_toy``, never FID or CLIP score: they are comparable with nothing
outside this project. Trained by ``python -m benchmarks.yardstick train`` (symmetric InfoNCE,
Radford et al. 2021) and frozen; the record beside the weights has the SHA-256.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.registry import find
from benchmarks.weights import load_parts
from wavedp.dp.clipping import Batch
from wavedp.nn.images import to_float
from wavedp.nn.text import HashedText

WEIGHTS = "yardstick"
INPUT = 32
"""Every image is brought to this size first, by averaging areas."""


class ImageTower(nn.Module):
    """Images to features ``[b, 4 width]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [3, width, 2 * width, 3 * width, 4 * width]
        strides = [2, 2, 1, 2]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=stride, padding=1)
            for a, b, stride in zip(sizes, sizes[1:], strides, strict=False)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, size) for size in sizes[1:])
        self.last = nn.Conv2d(sizes[-1], sizes[-1], 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Float ``[b, 3, H, W]`` in [-1, 1]."""
        x = images
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.gelu(norm(layer(x)))
        return F.gelu(self.last(x)).mean((2, 3))


class Yardstick(nn.Module):
    """Both towers and their common space.

    Args:
        width: channels of the first convolution; features have four times as many.
        common: size of the space in which images and captions meet.
    """

    def __init__(self, width: int = 32, common: int = 64, text_width: int = 512) -> None:
        super().__init__()
        self.images = ImageTower(width)
        self.image_head = nn.Linear(4 * width, common)
        self.text = nn.Sequential(nn.Linear(text_width, 128), nn.GELU(), nn.Linear(128, common))
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self._encoder = HashedText(slots=1, width=text_width)

    def features(self, images: Tensor) -> Tensor:
        """uint8 ``[b, 3, H, W]`` to float32 features ``[b, 128]``."""
        floats = to_float(images)
        if floats.shape[-1] != INPUT:
            floats = F.interpolate(floats, INPUT, mode="area")
        return torch.as_tensor(self.images(floats))

    def embed_images(self, images: Tensor) -> Tensor:
        """uint8 images to unit vectors ``[b, common]``."""
        return F.normalize(self.image_head(self.features(images)), dim=1)

    def embed_texts(self, captions: Sequence[str]) -> Tensor:
        """Captions to unit vectors ``[b, common]``."""
        return self.embed_encoded(self.encode(captions).to(self.log_scale.device))

    def encode(self, captions: Sequence[str]) -> Tensor:
        """The frozen part of the text tower, ``[b, text width]``."""
        return self._encoder(captions).squeeze(1)

    def embed_encoded(self, encoded: Tensor) -> Tensor:
        """The trained part of the text tower."""
        return F.normalize(self.text(encoded), dim=1)


def contrastive_loss(yardstick: nn.Module, batch: Batch) -> Tensor:
    """Symmetric InfoNCE of each pair against the others of its batch, ``[b]``."""
    assert isinstance(yardstick, Yardstick)
    encoded = batch["text"]
    rows = torch.arange(len(encoded))
    choice = torch.randint(encoded.shape[1], (len(encoded),))
    texts = yardstick.embed_encoded(encoded[rows, choice].float())
    logits = yardstick.log_scale.exp() * yardstick.embed_images(batch["images"]) @ texts.mT
    by_image = F.cross_entropy(logits, rows, reduction="none")
    by_text = F.cross_entropy(logits.mT, rows, reduction="none")
    return (by_image + by_text) / 2


class _Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.yardstick = Yardstick()


@lru_cache(maxsize=1)
def load_yardstick() -> Yardstick:
    """The frozen yardstick.

    Raises:
        UserError: its weights are missing or damaged.
    """
    holder = _Holder()
    load_parts(holder, {"yardstick": str(find(WEIGHTS))})
    return holder.yardstick.eval().requires_grad_(False)
