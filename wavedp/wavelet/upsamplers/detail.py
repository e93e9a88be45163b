"""A one-step network for wavelet details, trained on public images.

For each level it sees the LL band as an image and predicts the three detail bands, and a
correction of LL for what quantisation did to it; the inverse Haar transform is its output layer.
Where the details cannot be known from LL, a squared error asks for their mean, which is blur: an
adversarial loss asks for details that look real beside the low band.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.data.schema import Records
from wavedp.dp.clipping import Batch
from wavedp.dp.trainer import Trainer
from wavedp.nn.images import as_tensor, to_float
from wavedp.nn.reconstruction import Judge, Reconstruction
from wavedp.nn.schedule import cosine
from wavedp.wavelet.transform import reconstruct


class DetailNetwork(nn.Module):
    """Doubles an image ``levels`` times.

    Args:
        levels: how many wavelet levels it restores; the factor is ``2**levels``.
        width, depth: channels and residual blocks of each level's network.
        interpolated: add to the details of bicubic interpolation instead of predicting them whole;
            a network of photographs begins as what is hard to beat there.
    """

    takes = None

    def __init__(
        self, levels: int = 1, width: int = 48, depth: int = 4, interpolated: bool = False
    ) -> None:
        super().__init__()
        self.factor = 2**levels
        self.steps = nn.ModuleList(Doubling(width, depth, interpolated) for _ in range(levels))

    def forward(self, low: Tensor) -> Tensor:
        """``[n, 3, r, r]`` in [-1, 1] to ``[n, 3, r 2^levels, r 2^levels]``."""
        for step in self.steps:
            low = step(low)
        return low

    def upsample(self, low: Tensor, captions: Sequence[str], seed: int) -> Tensor:
        """See :class:`~wavedp.wavelet.upsamplers.Upsampler`; the prompt plays no part."""
        del captions, seed
        return torch.as_tensor(self(low))

    def check(self, prompts: Sequence[str]) -> None:
        """See :class:`~wavedp.wavelet.upsamplers.Upsampler`: nothing can be wrong."""


class Doubling(nn.Module):
    """One level: LL ``[n, 3, r, r]`` to the image ``[n, 3, 2r, 2r]``."""

    def __init__(self, width: int, depth: int, interpolated: bool = False) -> None:
        super().__init__()
        self._interpolated = interpolated
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(depth)
        )
        self.leave = nn.Conv2d(width, 12, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.constant_(self.leave.get_parameter("bias"), 0.0)

    def forward(self, low: Tensor) -> Tensor:
        """Predict LL correction and details, then invert the transform."""
        x = self.enter(low)
        for block in self.blocks:
            x = x + block(x)
        correction, details = self.leave(F.gelu(x)).split([3, 9], dim=1)
        # The Haar low-pass doubles the mean, so LL in orthonormal units is twice the image.
        made = reconstruct([2 * (low + correction), details])
        if not self._interpolated:
            return made
        smooth = F.interpolate(low, scale_factor=2, mode="bicubic")
        return made + smooth - F.interpolate(F.avg_pool2d(smooth, 2), scale_factor=2)


@dataclass(frozen=True)
class DetailTraining:
    """How a detail network is trained.

    Attributes:
        judge: rates and weights; the critic also sees the low band, with its pixels repeated.
        degraded: share of low bands that come out of ``degrade`` instead of the true image.
    """

    judge: Judge
    degraded: float = 0.5

    def pretrain(
        self,
        network: DetailNetwork,
        degrade: Callable[[Tensor], Tensor],
        public: Records,
        trainer: Trainer,
    ) -> None:
        """Train on public images.

        Args:
            degrade: images to their low bands as stage 1 would draw them, decoded from tokens.
        """
        whole = self.judge.over(network, trainer.device, given=3)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            assert isinstance(model, Reconstruction)
            images = to_float(batch["images"])
            low = F.avg_pool2d(images, network.factor)
            with torch.no_grad():
                pick = torch.rand(len(images), device=images.device) < self.degraded
                low[pick] = degrade(images[pick])
            return model.loss(network(low), images, F.interpolate(low, images.shape[-1]))

        columns, label = {"images": as_tensor(public.images)}, "pretraining the upsampler"
        trainer.fit(whole, loss, columns, whole.optimizer(), cosine(), label)
