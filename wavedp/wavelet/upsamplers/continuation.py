"""The spectral prior as upsampler: predict the detail tokens from the coarse ones and the text.

Text-guided upsampling of the Spectral Image Tokenizer (arXiv 2412.09607, section 5): the coarse
image is encoded to tokens of the first scales, the publicly pretrained prior continues the
sequence, and the tokenizer decodes all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wavedp.wavelet.prior import SpectralPrior
from wavedp.wavelet.tokenizer import SpectralTokenizer
from wavedp.wavelet.training import PriorTraining, check_prompts, check_together


class Continuation(nn.Module):
    """Public tokenizer and public prior, frozen.

    Args:
        tokenizer, prior: publicly pretrained; not the prior that is finetuned.
        sampling: how tokens are drawn.
        given_scales: scales of the coarse image.
    """

    def __init__(
        self,
        tokenizer: SpectralTokenizer,
        prior: SpectralPrior,
        sampling: PriorTraining,
        given_scales: int,
    ) -> None:
        super().__init__()
        self.tokenizer, self.prior = tokenizer, prior
        self._sampling, self._given = sampling, given_scales
        self.factor = 2 ** (tokenizer.scales - given_scales)
        self.takes = tokenizer.side(given_scales)

    @torch.no_grad()
    def upsample(self, low: Tensor, captions: Sequence[str], seed: int) -> Tensor:
        """See :class:`~wavedp.wavelet.upsamplers.Upsampler`."""
        given = self.tokenizer.eval().encode(low)
        drawn = self._sampling.sample(
            self.prior, captions, self.tokenizer.scales, seed, given=given
        )
        return torch.cat([self.tokenizer.decode(tokens) for tokens in drawn])

    def check(self, prompts: Sequence[str]) -> None:
        """See :class:`~wavedp.wavelet.upsamplers.Upsampler`."""
        check_together(self.prior, self.tokenizer, self._sampling.text)
        check_prompts(self._sampling.text, prompts)
