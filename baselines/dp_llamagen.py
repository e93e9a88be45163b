"""DP-LlamaGen: LlamaGen (Sun et al. 2024, arXiv 2406.06525) finetuned with DP-SGD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from wavedp.data.schema import Records
from wavedp.dp.trainer import Trainer
from wavedp.nn.images import to_float, to_uint8
from wavedp.nn.tokenizer import Tokenizer
from wavedp.wavelet.reports import report_tokenizer
from wavedp.wavelet.training import TokenizerTraining


class DPLlamaGen(nn.Module):
    """A raster tokenizer; its prior follows.

    Args:
        tokenizer: publicly pretrained and frozen.
        tokenizer_training: how it is trained.
    """

    stages: ClassVar[Mapping[str, tuple[str, ...]]] = {"tokenizer": ()}
    conditioning: ClassVar[Literal["text", "none"]] = "text"

    def __init__(self, tokenizer: Tokenizer, tokenizer_training: TokenizerTraining) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.resolution = tokenizer.resolution
        self._tokenizer_training = tokenizer_training

    def pretrain(self, stage: str, public: Records, trainer: Trainer) -> None:
        """See :class:`wavedp.protocol.ImageGenerator`."""
        self._tokenizer_training.pretrain(self.tokenizer, public, trainer)

    def report(self, stage: str, held_out: Records) -> Mapping[str, float]:
        """See :class:`wavedp.protocol.ImageGenerator`."""
        return report_tokenizer(self.tokenizer, held_out)

    @torch.no_grad()
    def oracle(self, images: Tensor) -> Tensor:
        """What the tokenizer keeps of real images."""
        return to_uint8(self.tokenizer.decode(self.tokenizer.encode(to_float(images))))
