"""Generators of a public tokenizer and a prior over its tokens: what such methods share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from wavedp.data.schema import Records
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer
from wavedp.nn.images import to_float, to_uint8
from wavedp.nn.prior import CodePrior
from wavedp.nn.tokenizer import Tokenizer
from wavedp.wavelet.reports import report_prior, report_tokenizer
from wavedp.wavelet.training import PriorTraining, TokenizerTraining, check_prompts, check_together


class AutoregressiveGenerator(nn.Module):
    """The prior over all tokens, finetuned as a whole; implements ``protocol.ImageGenerator``.

    Args:
        tokenizer, prior: the publicly pretrained parts.
        training: how the prior is trained and sampled.
        tokenizer_training: how the tokenizer is trained; None for published parts, which are not
            trained here.
    """

    conditioning: ClassVar[Literal["text", "none"]] = "text"

    def __init__(
        self,
        tokenizer: Tokenizer,
        prior: CodePrior,
        training: PriorTraining,
        tokenizer_training: TokenizerTraining | None = None,
    ) -> None:
        super().__init__()
        self.tokenizer, self.prior = tokenizer, prior
        self.resolution = tokenizer.resolution
        self._training, self._tokenizer_training = training, tokenizer_training

    @property
    def stages(self) -> Mapping[str, tuple[str, ...]]:
        """See :class:`wavedp.protocol.ImageGenerator`. Published parts are not trained."""
        return {"tokenizer": (), "prior": ("tokenizer",)} if self._tokenizer_training else {}

    def pretrain(self, stage: str, public: Records, trainer: Trainer) -> None:
        """See :class:`wavedp.protocol.ImageGenerator`."""
        assert self._tokenizer_training
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
        """DP-finetune the prior on all scales, or adapters that become part of it."""
        scales = self.tokenizer.scales
        self._training.finetune(self.prior, self.tokenizer, private, scales, trainer)

    @torch.no_grad()
    def generate(self, captions: Sequence[str], seed: int) -> Iterator[Tensor]:
        """Draw all tokens from the prior and decode them."""
        for tokens in self._training.sample(self.prior, captions, self.tokenizer.scales, seed):
            yield to_uint8(self.tokenizer.decode(tokens))

    @torch.no_grad()
    def oracle(self, images: Tensor) -> Tensor:
        """What the tokenizer keeps of real images."""
        return to_uint8(self.tokenizer.decode(self.tokenizer.encode(to_float(images))))
