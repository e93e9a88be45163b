"""DP-Wavelet: the low wavelet band under DP, everything finer from public models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.data.schema import Records
from wavedp.dp.clipping import Batch
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer
from wavedp.nn.images import to_float, to_uint8
from wavedp.nn.schedule import cosine
from wavedp.wavelet.prior import PriorTraining, SpectralPrior
from wavedp.wavelet.tokenizer import SpectralTokenizer, pretrain_tokenizer
from wavedp.wavelet.upsampler import WaveletUpsampler, upsampling_loss


class DPWavelet(nn.Module):
    """The method of arXiv 2602.23262.

    Stage 1 finetunes the prior under DP on tokens of the first ``private_scales`` scales of
    the private images. Stage 2 upsamples what the prior draws with a frozen public network.
    The finer scales of a private image are never encoded, so nothing depends on them.

    Args:
        tokenizer, prior, upsampler: the three publicly pretrained parts.
        training: how the prior is trained and sampled.
        private_scales: scales under DP, 1 (LL alone) to all.
        freeze_codes: see :meth:`~wavedp.wavelet.prior.SpectralPrior.freeze_codes`.
    """

    stages: ClassVar[tuple[str, ...]] = ("tokenizer", "prior", "upsampler")
    conditioning: ClassVar[Literal["text", "none"]] = "text"

    def __init__(
        self,
        tokenizer: SpectralTokenizer,
        prior: SpectralPrior,
        upsampler: WaveletUpsampler,
        training: PriorTraining,
        private_scales: int = 2,
        freeze_codes: bool = False,
    ) -> None:
        super().__init__()
        self.tokenizer, self.prior, self.upsampler = tokenizer, prior, upsampler
        self.resolution = tokenizer.resolution
        self.private_scales = private_scales
        self._training, self._freeze_codes = training, freeze_codes
        self._missing = tokenizer.scales - private_scales
        upsampler.check_scale(self.resolution >> self._missing, self.resolution)

    def pretrain(self, stage: str, public: Records, trainer: Trainer) -> None:
        """See :class:`wavedp.protocol.ImageGenerator`."""
        run = {
            "tokenizer": lambda: pretrain_tokenizer(self.tokenizer, public, trainer),
            "prior": lambda: self._training.pretrain(self.prior, self.tokenizer, public, trainer),
            "upsampler": lambda: self._pretrain_upsampler(public, trainer),
        }
        run[stage]()

    def _pretrain_upsampler(self, public: Records, trainer: Trainer) -> None:
        images = torch.from_numpy(np.array(public.images))
        self.tokenizer.eval().requires_grad_(False)
        optimizer = torch.optim.AdamW(self.upsampler.parameters(), lr=2e-3, weight_decay=1e-4)
        trainer.fit(
            self.upsampler,
            self._upsampling_loss,
            {"images": images},
            optimizer,
            cosine(),
            "pretraining the upsampler",
        )

    def _upsampling_loss(self, upsampler: nn.Module, batch: Batch) -> Tensor:
        """Half of the batch sees the true low band, half the one decoded from tokens."""
        images = to_float(batch["images"])
        low = F.avg_pool2d(images, 2**self._missing)
        with torch.no_grad():
            decoded = self.tokenizer.decode(self.tokenizer.encode(images, self.private_scales))
        pick = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
        return upsampling_loss(upsampler, decoded.where(pick, low), images)

    def finetune(self, private: PrivateRecords, trainer: Trainer) -> None:
        """DP-finetune the prior on the low band; see :class:`wavedp.protocol.ImageGenerator`."""
        self._training.finetune(
            self.prior,
            self.tokenizer,
            private,
            self.private_scales,
            trainer,
            freeze_codes=self._freeze_codes,
        )

    @torch.no_grad()
    def generate(self, captions: Sequence[str], seed: int) -> Iterator[Tensor]:
        """Draw the low band from the prior, then upsample it."""
        for tokens in self._training.sample(self.prior, captions, self.private_scales, seed):
            yield to_uint8(self.upsampler(self.tokenizer.decode(tokens)))

    @torch.no_grad()
    def oracle(self, images: Tensor) -> Tensor:
        """The real low band through the public upsampler."""
        return to_uint8(self.upsampler(F.avg_pool2d(to_float(images), 2**self._missing)))
