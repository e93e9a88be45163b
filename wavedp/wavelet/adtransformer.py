"""ADTransformer: one attention over all tokens, other parameters for approximation and details.

From the Spectral Image Tokenizer (Esteves et al., arXiv 2412.09607, section 3): the sequence
holds the tokens of all scales, coarse to fine, N each. The approximation tokens (scale 0) and
the detail tokens have their own norms, projections and MLPs, and meet in the attention. With
scale-causal attention a token sees its own scale and the coarser ones, so that what is computed
for the first scales does not change when finer ones follow.

Shapes: b rows, t = s N tokens of the first s scales, d width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.nn.transformer import Block, initialise


class Parted(nn.Module):
    """Two layers of one kind: approximation tokens go through one, detail tokens the other.

    Args:
        tokens: N, how many leading tokens are approximation tokens.
        make: makes the layer, once for each part.
    """

    def __init__(self, tokens: int, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.tokens = tokens
        self.approximation, self.detail = make(), make()

    def forward(self, x: Tensor) -> Tensor:
        """``[b, t, d]`` to ``[b, t, d']``."""
        if x.shape[1] <= self.tokens:
            return torch.as_tensor(self.approximation(x))
        first, rest = x[:, : self.tokens], x[:, self.tokens :]
        return torch.cat([self.approximation(first), self.detail(rest)], dim=1)


class ADTransformer(nn.Module):
    """A stack of blocks with learned positions and a final norm.

    Args:
        width, depth, heads: the usual; ``width`` must divide by ``heads``.
        scales, tokens: the longest sequence is ``scales`` times ``tokens``.
        causal: scale-causal attention; otherwise every token sees every token.
    """

    seen: Tensor

    def __init__(
        self, width: int, depth: int, heads: int, scales: int, tokens: int, causal: bool = True
    ) -> None:
        super().__init__()
        self.causal = causal
        copies = partial(Parted, tokens)
        self.positions = nn.Parameter(0.02 * torch.randn(scales * tokens, width))
        self.blocks = nn.ModuleList(Block(width, heads, copies=copies) for _ in range(depth))
        self.norm = copies(lambda: nn.LayerNorm(width))
        scale = torch.arange(scales * tokens) // tokens
        # [queries, keys]: true where a token may look.
        self.register_buffer("seen", scale.unsqueeze(1) >= scale, persistent=False)
        initialise(self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, t, d]`` of the first scales to the same."""
        t = x.shape[1]
        mask = self.seen[:t, :t] if self.causal else None
        attend = partial(F.scaled_dot_product_attention, attn_mask=mask)
        x = x + self.positions[:t]
        for block in self.blocks:
            x = block(x, attend)
        return torch.as_tensor(self.norm(x))
