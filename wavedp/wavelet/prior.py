"""The autoregressive prior over spectral tokens (AR-SIT): coarse to fine, text-conditional.

A decoder-only transformer over ``[text prefix][scale 0][scale 1]...``; see
:class:`~wavedp.nn.prior.CodePrior`. Because scales come coarse to fine, a model of the first s
scales is the same network stopped early, which is what lets DP-Wavelet finetune the low band only.

Shapes: b rows, t tokens, C codes per token, K codebook entries, d width.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from wavedp.nn.prior import CodePrior
from wavedp.nn.transformer import Cache, Transformer


class SpectralPrior(CodePrior):
    """p(tokens | text), one transformer over all scales.

    Args:
        scales, tokens_per_scale, codes, codebook_size: as in the tokenizer.
        text_slots, text_width: shape of an encoded caption.
        width, depth, heads: of the transformer.
    """

    adaptable: ClassVar[tuple[str, ...]] = ("qkv", "out", "up", "down")
    embeddings: nn.ModuleList

    def __init__(
        self,
        scales: int = 3,
        tokens_per_scale: int = 16,
        codes: int = 4,
        codebook_size: int = 512,
        text_slots: int = 4,
        text_width: int = 96,
        width: int = 128,
        depth: int = 3,
        heads: int = 4,
    ) -> None:
        super().__init__(scales, tokens_per_scale, codes, codebook_size, text_slots, text_width)
        self.text = nn.Linear(text_width, width)
        # As the tokenizer: one set of tables for the approximation, one for all details.
        self.embeddings = nn.ModuleList(
            nn.Embedding(codes * codebook_size, width) for _ in ("approximation", "detail")
        )
        self.transformer = Transformer(width, depth, heads, text_slots + scales * tokens_per_scale)
        self.code_norm = nn.LayerNorm(width)
        self.code_hidden = nn.Linear(width, width)
        self.outputs = nn.ModuleList(nn.Linear(width, codebook_size) for _ in range(2 * codes))
        for embedding in self.embeddings:
            nn.init.normal_(embedding.get_parameter("weight"), std=0.02)

    def without_text(self, text: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(text)

    def freeze_above(self, scales: int) -> None:
        """Freeze the tables of details where none are trained."""
        if scales == 1:
            self.embeddings[1].requires_grad_(False)
            for output in self.outputs[self.codes :]:
                output.requires_grad_(False)

    def _embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        """``[b, t, C]`` from position ``start`` on to ``[b, t, C, d]``; each code has its table."""
        rows = tokens + self.codebook_size * torch.arange(self.codes, device=tokens.device)
        split = max(self.tokens_per_scale - start, 0)
        parts = [rows[:, :split], rows[:, split:]]
        done = [table(x) for table, x in zip(self.embeddings, parts, strict=True) if x.shape[1]]
        return torch.cat(done, dim=1)

    def _outputs(self, scale: int) -> list[nn.Module]:
        """The C output layers of a scale."""
        first = self.codes * min(scale, 1)
        return list(self.outputs[first : first + self.codes])

    def _read(self, text: Tensor) -> tuple[Tensor, None]:
        return self.text(text), None

    def _cache(self, rows: int, length: int, device: torch.device) -> Cache:
        return self.transformer.cache(rows, length, device)

    def _hidden(self, x: Tensor, seen: Tensor | None, cache: Cache | None = None) -> Tensor:
        del seen
        return torch.as_tensor(self.transformer(x, cache))
