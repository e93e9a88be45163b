"""DP-Wavelet: the low wavelet band under DP, everything finer from public models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.data.schema import Records
from wavedp.dp.errors import UserError
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer
from wavedp.nn.images import to_float, to_uint8
from wavedp.wavelet.prior import SpectralPrior
from wavedp.wavelet.reports import device_of, report_prior, report_tokenizer, report_upsampler
from wavedp.wavelet.tokenizer import SpectralTokenizer
from wavedp.wavelet.training import PriorTraining, TokenizerTraining, check_prompts, check_together
from wavedp.wavelet.upsamplers import Upsampler, check_factor
from wavedp.wavelet.upsamplers.detail import DetailNetwork, DetailTraining


class DPWavelet(nn.Module):
    """The method of arXiv 2602.23262.

    Stage 1 finetunes the prior under DP on tokens of the first ``private_scales`` scales of
    the private images. Stage 2 upsamples what the prior draws with a frozen public network.
    The finer scales of a private image are never encoded, so nothing depends on them.

    Args:
        tokenizer, prior, upsampler: the three publicly pretrained parts.
        tokenizer_training, training: how the first two are trained and sampled.
        upsampler_training: how a detail network is trained; None for an upsampler that is not
            trained here.
        private_scales: scales under DP, 1 (LL alone) to all.
        freeze_codes: see :meth:`~wavedp.nn.prior.CodePrior.freeze_codes`.
    """

    conditioning: ClassVar[Literal["text", "none"]] = "text"

    def __init__(
        self,
        tokenizer: SpectralTokenizer,
        prior: SpectralPrior,
        upsampler: Upsampler,
        tokenizer_training: TokenizerTraining,
        training: PriorTraining,
        upsampler_training: DetailTraining | None = None,
        private_scales: int = 2,
        freeze_codes: bool = False,
    ) -> None:
        super().__init__()
        self.tokenizer, self.prior, self.upsampler = tokenizer, prior, upsampler
        self.resolution = tokenizer.resolution
        self.private_scales = private_scales
        self._tokenizer_training, self._training = tokenizer_training, training
        self._upsampler_training, self._freeze_codes = upsampler_training, freeze_codes
        if not 1 <= private_scales <= tokenizer.scales:
            raise UserError(
                f"private_scales={private_scales} must lie in 1..{tokenizer.scales}, the scales "
                "of the tokenizer."
            )
        if private_scales < tokenizer.scales:
            tokenizer.check_causal()
        check_factor(upsampler, tokenizer.side(private_scales), self.resolution)
        own = {id(parameter) for parameter in prior.parameters()}
        # Nothing that is finetuned may have a part in stage 2.
        if isinstance(upsampler, nn.Module) and own & {id(p) for p in upsampler.parameters()}:
            raise UserError(
                "The upsampler shares weights with the prior that is finetuned; give it public "
                "ones of its own."
            )

    @property
    def stages(self) -> Mapping[str, tuple[str, ...]]:
        """See :class:`wavedp.protocol.ImageGenerator`. Published upsamplers are not trained."""
        stages: dict[str, tuple[str, ...]] = {"tokenizer": (), "prior": ("tokenizer",)}
        if self._upsampler_training is not None:
            stages["upsampler"] = ("tokenizer",)
        return stages

    def pretrain(self, stage: str, public: Records, trainer: Trainer) -> None:
        """See :class:`wavedp.protocol.ImageGenerator`."""
        if stage == "tokenizer":
            self._tokenizer_training.pretrain(self.tokenizer, public, trainer)
        elif stage == "prior":
            self._training.pretrain(self.prior, self.tokenizer, public, trainer)
        else:
            assert isinstance(self.upsampler, DetailNetwork)
            assert self._upsampler_training is not None
            self.tokenizer.eval().requires_grad_(False)
            self._upsampler_training.pretrain(self.upsampler, self._as_drawn, public, trainer)

    def report(self, stage: str, held_out: Records) -> Mapping[str, float]:
        """See :class:`wavedp.protocol.ImageGenerator`."""
        if stage == "tokenizer":
            return report_tokenizer(self.tokenizer, held_out)
        if stage == "prior":
            return report_prior(self.prior, self.tokenizer, self._training, held_out)
        return report_upsampler(self._upsample_real, held_out, device_of(self.tokenizer))

    def check(self, prompts: Sequence[str]) -> None:
        """See :class:`wavedp.protocol.ImageGenerator`."""
        check_together(self.prior, self.tokenizer, self._training.text)
        self.upsampler.check(prompts)
        check_prompts(self._training.text, prompts)

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
        start = 0
        for low in self.generate_low(captions, seed):
            part = captions[start : start + len(low)]
            yield to_uint8(self.upsampler.upsample(low, part, _second_seed(seed, start)))
            start += len(low)

    @torch.no_grad()
    def generate_low(self, captions: Sequence[str], seed: int) -> Iterator[Tensor]:
        """What stage 1 draws: low bands as images in [-1, 1], ``[b, 3, r, r]``."""
        for tokens in self._training.sample(self.prior, captions, self.private_scales, seed):
            yield self.tokenizer.decode(tokens).clamp(-1, 1)

    @torch.no_grad()
    def oracle(self, images: Tensor) -> Tensor:
        """The real low band through the public upsampler.

        The low band itself, not its tokens: the ceiling of stage 2. What the tokenizer keeps of a
        low band is in ``benchmarks.oracles``. It has no captions: an upsampler that reads them is
        given none.
        """
        return to_uint8(self._upsample_real(to_float(images)))

    def _upsample_real(self, images: Tensor) -> Tensor:
        low = F.avg_pool2d(images, self.upsampler.factor)
        return self.upsampler.upsample(low, [""] * len(images), 0)

    def _as_drawn(self, images: Tensor) -> Tensor:
        """The low band of images as stage 1 would give it: decoded from its tokens."""
        tokens = self.tokenizer.encode(images, self.private_scales)
        return self.tokenizer.decode(tokens).clamp(-1, 1)


def _second_seed(seed: int, start: int) -> int:
    """A seed for stage 2, so that it draws nothing that stage 1 has drawn."""
    return int(np.random.SeedSequence([seed, start]).generate_state(1)[0])
