"""Full DP-SGD finetuning of the spectral prior: every scale and every parameter under DP.

What DP-Wavelet decomposes: the same tokenizer, the same publicly pretrained prior and the
same budget, but the private stage has to learn the details, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from wavedp.data.schema import Records
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer
from wavedp.nn.images import to_float, to_uint8
from wavedp.wavelet.prior import SpectralPrior
from wavedp.wavelet.reports import report_prior, report_tokenizer
from wavedp.wavelet.tokenizer import SpectralTokenizer
from wavedp.wavelet.training import PriorTraining, TokenizerTraining, check_prompts, check_together


class DPFullFinetune(nn.Module):
    """The spectral prior over all scales, finetuned as a whole.

    Args:
        tokenizer, prior: the publicly pretrained parts.
        tokenizer_training, training: how they are trained and sampled.
    """

    stages: ClassVar[Mapping[str, tuple[str, ...]]] = {"tokenizer": (), "prior": ("tokenizer",)}
    conditioning: ClassVar[Literal["text", "none"]] = "text"

    def __init__(
        self,
        tokenizer: SpectralTokenizer,
        prior: SpectralPrior,
        tokenizer_training: TokenizerTraining,
        training: PriorTraining,
    ) -> None:
        super().__init__()
        self.tokenizer, self.prior = tokenizer, prior
        self.resolution = tokenizer.resolution
        self._tokenizer_training, self._training = tokenizer_training, training

    def pretrain(self, stage: str, public: Records, trainer: Trainer) -> None:
        """See :class:`wavedp.protocol.ImageGenerator`."""
        if stage == "tokenizer":
            self._tokenizer_training.pretrain(self.tokenizer, public, trainer)
        else:
            self._training.pretrain(self.prior, self.tokenizer, public, trainer)

    def report(self, stage: str, held_out: Records) -> Mapping[str, float]:
        """See :class:`wavedp.protocol.ImageGenerator`."""
        if stage == "tokenizer":
            return report_tokenizer(self.tokenizer, held_out)
        return report_prior(self.prior, self.tokenizer, self._training, held_out)

    def check(self, prompts: Sequence[str]) -> None:
        """See :class:`wavedp.protocol.ImageGenerator`."""
        check_together(self.prior, self.tokenizer, self._training.text)
        check_prompts(self._training.text, prompts)

    def finetune(self, private: PrivateRecords, trainer: Trainer) -> None:
        """DP-finetune the prior on all scales."""
        scales = self.tokenizer.scales
        self._training.finetune(self.prior, self.tokenizer, private, scales, trainer)

    @torch.no_grad()
    def generate(self, captions: Sequence[str], seed: int) -> Iterator[Tensor]:
        """Draw all scales from the prior and decode them."""
        for tokens in self._training.sample(self.prior, captions, self.tokenizer.scales, seed):
            yield to_uint8(self.tokenizer.decode(tokens))

    @torch.no_grad()
    def oracle(self, images: Tensor) -> Tensor:
        """What the tokenizer keeps of real images."""
        return to_uint8(self.tokenizer.decode(self.tokenizer.encode(to_float(images))))
