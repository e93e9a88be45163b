"""A decoder-only transformer (pre-norm, GELU) with a key-value cache, and the block it is made of.

Shapes: b rows, t positions, d width, h heads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.dp.errors import UserError

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values ``[b, h, t, d/h]`` to what each position takes from those it sees."""


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

    def attend(self, block: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention of new positions to all so far."""
        # The first call is a prefix and still needs the causal mask.
        first = self.length == 0
        return attend_causally(q, *self.extend(block, k, v), first=first)


def attend_causally(q: Tensor, k: Tensor, v: Tensor, first: bool = True) -> Tensor:
    """See :data:`Attend`: every position sees itself and those before it.

    Args:
        first: the queries are of all positions; otherwise of the last one alone.
    """
    return F.scaled_dot_product_attention(q, k, v, is_causal=first and q.shape[2] > 1)


def by_heads(qkv: Tensor, heads: int, attend: Attend) -> Tensor:
    """Queries, keys and values side by side, ``[b, t, 3 d]``, to what is attended."""
    b, t, d = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = (part.view(b, t, heads, d // heads).transpose(1, 2) for part in qkv.split(d, dim=2))
    return attend(q, k, v).transpose(1, 2).reshape(b, t, d)


class Block(nn.Module):
    """Self-attention and MLP, both pre-norm and residual.

    Args:
        width, heads, mlp_ratio: the usual.
        copies: makes each layer, given what makes one; by default that one.

    Raises:
        UserError: the width does not divide by the number of heads.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: int = 4,
        copies: Callable[[Callable[[], nn.Module]], nn.Module] = lambda make: make(),
    ) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"width={width} must divide by heads={heads}.")
        self.heads = heads
        self.norm1 = copies(lambda: nn.LayerNorm(width))
        self.qkv = copies(lambda: nn.Linear(width, 3 * width))
        self.out = copies(lambda: nn.Linear(width, width))
        self.norm2 = copies(lambda: nn.LayerNorm(width))
        self.up = copies(lambda: nn.Linear(width, mlp_ratio * width))
        self.down = copies(lambda: nn.Linear(mlp_ratio * width, width))

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """``[b, t, d] -> [b, t, d]``."""
        x = x + self.out(by_heads(self.qkv(self.norm1(x)), self.heads, attend))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


def initialise(blocks: nn.ModuleList) -> None:
    """As GPT-2: residual branches start small so that depth does not raise the variance."""
    for name, module in blocks.named_modules():
        if isinstance(module, nn.Linear):
            last = {"out", "down"} & set(name.split("."))
            nn.init.normal_(module.weight, std=0.02 / (2 * len(blocks)) ** 0.5 if last else 0.02)
            nn.init.zeros_(module.bias)


class Transformer(nn.Module):
    """A stack of blocks with learned positions and a final norm.

    Args:
        width, depth, heads: the usual; ``width`` must divide by ``heads``.
        length: the most positions it will see.
    """

    def __init__(self, width: int, depth: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.positions.weight, std=0.02)
        initialise(self.blocks)

    def cache(self, rows: int, length: int, device: torch.device) -> Cache:
        """An empty cache for ``rows`` sequences of at most ``length`` positions."""
        width = self.positions.weight.shape[1]
        return Cache(len(self.blocks), rows, self.heads, length, width // self.heads, device)

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """``[b, t, d] -> [b, t, d]``; with a cache, ``x`` continues what was seen."""
        start = 0 if cache is None else cache.length
        # One row of ids per record: a broadcast position would hide from per-example norms.
        ids = torch.arange(start, start + x.shape[1], device=x.device).expand(x.shape[0], -1)
        x = x + self.positions(ids)
        for index, block in enumerate(self.blocks):
            x = block(x, attend_causally if cache is None else partial(cache.attend, index))
        if cache is not None:
            cache.length += ids.shape[1]
        return self.norm(x)
