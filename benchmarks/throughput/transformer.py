"""The tested autoregressive transformer, plain torch, and LoRA on it.

Shapes: b records, t positions, d width, v vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.dp.clipping import Batch


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, causal: bool = False) -> Tensor:
    """Multi-head attention of queries ``[b, t, d]`` to keys and values ``[b, s, d]``."""
    q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return mixed.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Attention within ``[b, t, d]``; one layer makes queries, keys and values."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, 2)
        return self.out(attend(q, k, v, self.heads, self.causal))


class CrossAttention(nn.Module):
    """Attention from ``[b, t, d]`` to a context ``[b, s, c]``."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(context, 2 * width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        k, v = self.key_value(context).chunk(2, 2)
        return self.out(attend(self.query(x), k, v, self.heads))


class Block(nn.Module):
    """Pre-norm causal self-attention and a GELU MLP of four times the width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, causal=True)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Decoder-only, learned positions: ids ``[b, t]`` to logits ``[b, t, v]``."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        # One row of positions per record, laid out in memory: Opacus needs both.
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids).contiguous()
        x = self.tokens(ids) + self.positions(places)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def sequences(records: int, vocabulary: int, length: int) -> dict[str, Tensor]:
    """Random ids ``[b, t]``, and the next id of each."""
    ids = torch.randint(0, vocabulary, (records, length + 1))
    return {"ids": ids[:, :-1].contiguous(), "next": ids[:, 1:].contiguous()}


def next_token_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy over a record's positions, ``[b]``."""
    logits, targets = model(batch["ids"]), batch["next"]
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return losses.view_as(targets).mean(1)


class LoRALinear(nn.Module):
    """``W x + B A x`` with a frozen W (Hu et al. 2021, arXiv 2106.09685); B starts at zero."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def with_lora(model: Transformer, rank: int = 8) -> Transformer:
    """Freeze the model and put trainable adapters on the layers of its attention."""
    model.requires_grad_(False)
    attentions = [module for module in model.modules() if isinstance(module, SelfAttention)]
    for attention in attentions:
        for name in ("qkv", "out"):
            setattr(attention, name, LoRALinear(getattr(attention, name), rank))
    return model
