"""A decoder-only transformer (pre-norm, GELU) with a key-value cache.

Shapes: b rows, t positions, d width, h heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Cache:
    """Keys and values of the positions seen so far, one pair per block.

    Args:
        blocks, rows, heads, length, head_width: shapes; the memory is taken once.
    """

    def __init__(
        self, blocks: int, rows: int, heads: int, length: int, head_width: int, device: torch.device
    ) -> None:
        shape = (blocks, rows, heads, length, head_width)
        self.keys = torch.empty(shape, device=device)
        self.values = torch.empty(shape, device=device)
        self.length = 0

    def extend(self, block: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store ``[b, h, t, d/h]`` and return all positions of this block."""
        stop = self.length + k.shape[2]
        self.keys[block, :, :, self.length : stop] = k
        self.values[block, :, :, self.length : stop] = v
        return self.keys[block, :, :, :stop], self.values[block, :, :, :stop]


class Block(nn.Module):
    """Causal self-attention and MLP, both pre-norm and residual."""

    def __init__(self, width: int, heads: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, mlp_ratio * width)
        self.down = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor, cache: Cache | None = None, index: int = 0) -> Tensor:
        """``[b, t, d] -> [b, t, d]``; with a cache, ``x`` continues what was seen."""
        b, t, d = x.shape
        q, k, v = (
            part.view(b, t, self.heads, d // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).split(d, dim=2)
        )
        # The first call with a cache is a prefix and still needs the causal mask.
        causal = cache is None or cache.length == 0
        if cache is not None:
            k, v = cache.extend(index, k, v)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal and t > 1)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Transformer(nn.Module):
    """A stack of blocks with learned positions and a final norm.

    Args:
        width, depth, heads: the usual; ``width`` must divide by ``heads``.
        length: the most positions it will see.
    """

    def __init__(self, width: int, depth: int, heads: int, length: int) -> None:
        super().__init__()
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self._init(depth)

    def _init(self, depth: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.positions.weight, std=0.02)
        for block in self.blocks:
            assert isinstance(block, Block)
            # GPT-2: residual branches start small so that depth does not raise the variance.
            for layer in (block.out, block.down):
                nn.init.normal_(layer.weight, std=0.02 / (2 * depth) ** 0.5)

    def cache(self, rows: int, device: torch.device) -> Cache:
        """An empty cache for ``rows`` sequences."""
        first = self.blocks[0]
        assert isinstance(first, Block)
        length, width = self.positions.weight.shape
        return Cache(len(self.blocks), rows, first.heads, length, width // first.heads, device)

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """``[b, t, d] -> [b, t, d]``."""
        start = 0 if cache is None else cache.length
        # One row of ids per record: a broadcast position would hide from per-example norms.
        ids = torch.arange(start, start + x.shape[1], device=x.device).expand(x.shape[0], -1)
        x = x + self.positions(ids)
        for index, block in enumerate(self.blocks):
            x = block(x, cache, index)
        if cache is not None:
            cache.length += ids.shape[1]
        return self.norm(x)
