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

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Parted(nn.Module):
    """Two layers of one kind: approximation tokens go through one, detail tokens the other.

    Args:
        make: makes the layer, once for each part.
        tokens: N, how many leading tokens are approximation tokens.
    """

    def __init__(self, make: Callable[[], nn.Module], tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.approximation, self.detail = make(), make()

    def forward(self, x: Tensor) -> Tensor:
        """``[b, t, d]`` to ``[b, t, d']``."""
        if x.shape[1] <= self.tokens:
            return torch.as_tensor(self.approximation(x))
        first, rest = x[:, : self.tokens], x[:, self.tokens :]
        return torch.cat([self.approximation(first), self.detail(rest)], dim=1)


class ADBlock(nn.Module):
    """Pre-norm attention over all tokens and MLP, both residual."""

    def __init__(self, width: int, heads: int, tokens: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = Parted(lambda: nn.LayerNorm(width), tokens)
        self.qkv = Parted(lambda: nn.Linear(width, 3 * width), tokens)
        self.out = Parted(lambda: nn.Linear(width, width), tokens)
        self.norm2 = Parted(lambda: nn.LayerNorm(width), tokens)
        self.up = Parted(lambda: nn.Linear(width, mlp_ratio * width), tokens)
        self.down = Parted(lambda: nn.Linear(mlp_ratio * width, width), tokens)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``[b, t, d]`` to the same; ``mask`` ``[t, t]`` is true where a row may look."""
        b, t, d = x.shape
        q, k, v = (
            part.view(b, t, self.heads, d // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).split(d, dim=2)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class ADTransformer(nn.Module):
    """A stack of blocks with learned positions and a final norm.

    Args:
        width, depth, heads: the usual; ``width`` must divide by ``heads``.
        scales, tokens: the longest sequence is ``scales`` times ``tokens``.
        causal: scale-causal attention; otherwise every token sees every token.
    """

    scale_causal: Tensor

    def __init__(
        self, width: int, depth: int, heads: int, scales: int, tokens: int, causal: bool = True
    ) -> None:
        super().__init__()
        self.causal = causal
        self.positions = nn.Parameter(0.02 * torch.randn(scales * tokens, width))
        self.blocks = nn.ModuleList(ADBlock(width, heads, tokens) for _ in range(depth))
        self.norm = Parted(lambda: nn.LayerNorm(width), tokens)
        scale = torch.arange(scales * tokens) // tokens
        self.register_buffer("scale_causal", scale.unsqueeze(1) >= scale, persistent=False)
        self._init(depth)

    def _init(self, depth: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            # GPT-2: residual branches start small so that depth does not raise the variance.
            if (".out." in name or ".down." in name) and name.endswith("weight"):
                nn.init.normal_(parameter, std=0.02 / (2 * depth) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, t, d]`` of the first scales to the same."""
        t = x.shape[1]
        x = x + self.positions[:t]
        mask = self.scale_causal[:t, :t] if self.causal else None
        for block in self.blocks:
            x = block(x, mask)
        return torch.as_tensor(self.norm(x))
