"""LlamaGen (Sun et al. 2024, arXiv 2406.06525): a Llama over the tokens of a raster tokenizer.

Pre-norm blocks with RMSNorm, SwiGLU (Shazeer 2020), rotary positions on the grid and no biases;
captions enter through an MLP as the first positions. The dropout of its public training (0.1) is
left out: no method here has any, and under DP the noise does its work.

Shapes: b rows, t positions, C codes per token, K codebook entries, d width, h heads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.dp.errors import UserError, one_line
from wavedp.nn.prior import CodePrior
from wavedp.nn.rotary import grid_rotation, rotate
from wavedp.nn.state import read_state
from wavedp.nn.transformer import Attend, Cache, by_heads
from wavedp.nn.untrained import drawn

EPS = 1e-5
"""Of every norm."""


def hidden_width(width: int, multiple_of: int = 256) -> int:
    """SwiGLU's: two thirds of four times the width, rounded up to a multiple."""
    return -(-int(2 * 4 * width / 3) // multiple_of) * multiple_of


class LlamaBlock(nn.Module):
    """Self-attention and SwiGLU, both pre-norm and residual.

    Args:
        width, heads: d and h.
        hidden: channels inside SwiGLU.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.RMSNorm(width, EPS)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.RMSNorm(width, EPS)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """``[b, t, d] -> [b, t, d]``."""
        x = x + self.out(by_heads(self.qkv(self.norm1(x)), self.heads, attend))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    """A stack of blocks on a prefix and a square grid, and a final norm.

    Args:
        width, depth, heads: the usual; ``width`` must divide by ``heads``.
        prefix: positions before the grid.
        grid: tokens on a side.
        multiple_of: see :func:`hidden_width`.
        keyed: see :func:`~wavedp.nn.rotary.grid_rotation`.
    """

    rotation: Tensor

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        prefix: int,
        grid: int,
        multiple_of: int = 256,
        keyed: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        hidden = hidden_width(width, multiple_of)
        self.blocks = nn.ModuleList(LlamaBlock(width, heads, hidden) for _ in range(depth))
        self.norm = nn.RMSNorm(width, EPS)
        rotation = grid_rotation(grid, width // heads, prefix, keyed)
        self.register_buffer("rotation", rotation, persistent=False)

    def cache(self, rows: int, length: int, device: torch.device) -> Cache:
        """An empty cache for ``rows`` sequences of at most ``length`` positions."""
        head_width = self.width // self.heads
        return Cache(len(self.blocks), rows, self.heads, length, head_width, device)

    def forward(self, x: Tensor, seen: Tensor, cache: Cache | None = None) -> Tensor:
        """``[b, t, d] -> [b, t, d]``; with a cache, ``x`` continues what was seen.

        Args:
            seen: bool ``[b, prefix]``, which positions of the prefix the others may look at.
        """
        start = 0 if cache is None else cache.length
        stop = start + x.shape[1]
        rotation, mask = self.rotation[start:stop], visible(seen, start, stop)

        def attend(index: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k = rotate(q, rotation), rotate(k, rotation)
            if cache is not None:
                k, v = cache.extend(index, k, v)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

        for index, block in enumerate(self.blocks):
            x = block(x, partial(attend, index))
        if cache is not None:
            cache.length = stop
        return torch.as_tensor(self.norm(x))


def visible(seen: Tensor, start: int, stop: int) -> Tensor:
    """Which positions those from ``start`` to ``stop`` see, bool ``[b, 1, stop - start, stop]``.

    Themselves, and of those before them all but the empty ones of the prefix.

    Args:
        seen: bool ``[b, prefix]``.
    """
    positions = torch.arange(stop, device=seen.device)
    own = positions[start:].unsqueeze(1)
    filled = F.pad(seen, (0, max(stop - seen.shape[1], 0)), value=True)[:, None, None, :stop]
    return (filled & (positions <= own)) | (positions == own)


class LlamaPrior(CodePrior):
    """p(tokens | text) of a raster tokenizer.

    With one code per token it is LlamaGen. With more, the codes of a token are drawn one after the
    other by the head that all priors here share.

    Args:
        grid: tokens on a side.
        codes, codebook_size: as in the tokenizer.
        text_slots, text_width: shape of an encoded caption.
        width, depth, heads: LlamaGen-B 768, 12, 12; L 1024, 24, 16; XL 1280, 36, 20.
        multiple_of: see :func:`hidden_width`.
        keyed_text: whether codes choose among the slots of a caption, which published weights do
            not: see :func:`~wavedp.nn.rotary.grid_rotation`.
    """

    adaptable: ClassVar[tuple[str, ...]] = ("qkv", "out", "gate", "up", "down")
    no_text: Tensor

    def __init__(
        self,
        grid: int = 16,
        codes: int = 1,
        codebook_size: int = 16384,
        text_slots: int = 120,
        text_width: int = 2048,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        multiple_of: int = 256,
        keyed_text: bool = False,
    ) -> None:
        super().__init__(1, grid**2, codes, codebook_size, text_slots, text_width)
        self.text = nn.Sequential(
            nn.Linear(text_width, width, bias=False),
            nn.GELU(approximate="tanh"),
            nn.Linear(width, width, bias=False),
        )
        self.embeddings = nn.Embedding(codes * codebook_size, width)
        self.llama = Llama(width, depth, heads, text_slots, grid, multiple_of, keyed_text)
        if codes > 1:
            self.code_norm = nn.LayerNorm(width)
            self.code_hidden = nn.Linear(width, width)
        self.outputs = nn.ModuleList(
            nn.Linear(width, codebook_size, bias=False) for _ in range(codes)
        )
        # Drawn once and never trained: LlamaGen wraps a parameter in a buffer, which its optimizer
        # does not see, and its weights know this one.
        no_text = torch.randn(text_slots, text_width) / text_width**0.5
        self.register_buffer("no_text", no_text)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for output in self.outputs:
            nn.init.zeros_(output.get_parameter("weight"))

    def without_text(self, text: Tensor) -> Tensor:
        """LlamaGen's null embedding in as many slots as the caption fills, zeros in the others.

        Published weights are trained so: a caption that is dropped leaves its length behind.
        """
        given = _filled(_left_padded(text))
        # A caption of no words has nothing to say, not even its length.
        return self.no_text * (given | ~given.any(1, keepdim=True)).unsqueeze(2)

    def _read(self, text: Tensor) -> tuple[Tensor, Tensor]:
        text = _left_padded(text)
        empty = ~_filled(text).any(1, keepdim=True)
        text = text.where(~empty.unsqueeze(2), self.no_text)
        return self.text(text), _filled(text)

    def _cache(self, rows: int, length: int, device: torch.device) -> Cache:
        return self.llama.cache(rows, length, device)

    def _hidden(self, x: Tensor, seen: Tensor | None, cache: Cache | None = None) -> Tensor:
        return torch.as_tensor(self.llama(x, seen, cache))

    def _embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        del start
        rows = tokens + self.codebook_size * torch.arange(self.codes, device=tokens.device)
        return torch.as_tensor(self.embeddings(rows))

    def _outputs(self, scale: int) -> list[nn.Module]:
        del scale
        return list(self.outputs)

    def _code_states(self, hidden: Tensor, before: Tensor) -> Tensor:
        return super()._code_states(hidden, before) if self.codes > 1 else hidden


def _filled(text: Tensor) -> Tensor:
    """Which slots hold text, bool ``[b, slots]``: text encoders leave zeros in the others."""
    return (text != 0).any(-1)


def _left_padded(text: Tensor) -> Tensor:
    """``[b, slots, width]``, empty slots first: a caption ends where codes begin."""
    order = _filled(text).long().argsort(dim=1, stable=True)
    return text.gather(1, order.unsqueeze(2).expand_as(text))


# Published weights ----------------------------------------------------------------------------

HEAD_WIDTH = 64
"""Of every published LlamaGen; no weight tells."""

XL = {
    **{"codebook_size": 16384, "text_slots": 120, "text_width": 2048},
    **{"width": 1280, "depth": 36, "heads": 20},
}
"""Of ``t2i_XL_stage1_256.pt``, the only text-to-image model at 256 px."""

_NAMES = (
    (r"cls_embedding\.cap_proj\.fc1\.", "text.0."),
    (r"cls_embedding\.cap_proj\.fc2\.", "text.2."),
    (r"cls_embedding\.uncond_embedding", "no_text"),
    (r"tok_embeddings\.", "embeddings."),
    (r"output\.", "outputs.0."),
    (r"norm\.", "llama.norm."),
    (r"layers\.(\d+)\.attention_norm\.", r"llama.blocks.\1.norm1."),
    (r"layers\.(\d+)\.attention\.wqkv\.", r"llama.blocks.\1.qkv."),
    (r"layers\.(\d+)\.attention\.wo\.", r"llama.blocks.\1.out."),
    (r"layers\.(\d+)\.ffn_norm\.", r"llama.blocks.\1.norm2."),
    (r"layers\.(\d+)\.feed_forward\.w1\.", r"llama.blocks.\1.gate."),
    (r"layers\.(\d+)\.feed_forward\.w3\.", r"llama.blocks.\1.up."),
    (r"layers\.(\d+)\.feed_forward\.w2\.", r"llama.blocks.\1.down."),
)


def published_llama(path: str, grid: int = 16, head_width: int = HEAD_WIDTH) -> LlamaPrior:
    """A text-to-image LlamaGen of ``peizesun/llamagen_t2i``, such as ``t2i_XL_stage1_256.pt``.

    Args:
        path: a file of weights.
        grid: tokens on a side, which no weight tells; 16 at 256 px.
        head_width: channels per head.

    Raises:
        UserError: the file is missing, damaged, or holds other weights.
    """
    if (settings := drawn("llamagen", XL)) is not None:
        return LlamaPrior(grid, **settings)
    return load_llama(read_state(path, "prior.path"), grid, head_width)


def load_llama(
    state: Mapping[str, Tensor], grid: int = 16, head_width: int = HEAD_WIDTH
) -> LlamaPrior:
    """The network of a published state dict, with its weights.

    Raises:
        UserError: names or shapes do not fit.
    """
    try:
        entries, width = state["tok_embeddings.weight"].shape
        slots, text_width = state["cls_embedding.uncond_embedding"].shape
        prior = LlamaPrior(
            grid,
            codebook_size=entries,
            text_slots=slots,
            text_width=text_width,
            width=width,
            depth=sum(name.endswith(".attention.wqkv.weight") for name in state),
            heads=width // head_width,
        )
        # Not part of the published ones: which tokenizer and text encoder they belong to.
        own = {"encoders": prior.encoders}
        prior.load_state_dict({_our_name(name): value for name, value in state.items()} | own)
    except (KeyError, RuntimeError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"These are not the weights of a text-to-image LlamaGen: {one_line(error)}"
        ) from error
    return prior


def _our_name(name: str) -> str:
    for theirs, ours in _NAMES:
        found = re.match(theirs, name)
        if found:
            return found.expand(ours) + name[found.end() :]
    return name
