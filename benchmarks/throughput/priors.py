"""Finetuning and sampling of the spectral prior, at the sizes of the suites."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.throughput.comparison import Comparison, Sides, on_cpu
from benchmarks.throughput.table import device_here
from wavedp.dp.clipping import make_engine
from wavedp.dp.errors import UserError
from wavedp.wavelet.prior import SpectralPrior
from wavedp.wavelet.training import next_token_loss

CACHED = 1 / 5
"""What cached sampling of 256 tokens may take of the time without a cache, on a CPU."""


@dataclass(frozen=True)
class Size:
    """A prior and what is drawn from it.

    ``text``: slots and width of an encoded caption. ``gpu``: too large to be measured on a CPU.
    ``plain``: sampling is compared with sampling without a cache, which takes long.
    """

    name: str
    scales: int
    tokens_per_scale: int
    codes: int
    codebook_size: int
    width: int
    depth: int
    heads: int
    batch: int
    text: tuple[int, int] = (4, 96)
    gpu: bool = False
    plain: bool = False

    @property
    def tokens(self) -> int:
        """Of a whole image."""
        return self.scales * self.tokens_per_scale

    def make(self) -> SpectralPrior:
        """With random weights, which take as long.

        Raises:
            UserError: it needs a GPU and there is none.
        """
        if self.gpu and device_here() == "cpu":
            raise UserError("no GPU here")
        torch.manual_seed(0)
        sizes = (self.scales, self.tokens_per_scale, self.codes, self.codebook_size, *self.text)
        prior = SpectralPrior(*sizes, width=self.width, depth=self.depth, heads=self.heads)
        return prior.to(device_here())

    def captions(self) -> Tensor:
        """Captions, encoded."""
        return torch.randn(self.batch, *self.text).to(device_here())


SIZES = (
    Size("embedded, 32 px", 3, 16, 4, 256, 64, 3, 4, batch=64),
    Size("64 px", 3, 64, 4, 256, 128, 3, 4, batch=32),
    Size("cache", 4, 64, 1, 1024, 256, 6, 8, batch=4, plain=True),
    Size("350M, 256 px", 4, 256, 1, 8192, 1024, 25, 16, 32, text=(120, 2048), gpu=True),
)


def planned() -> list[Comparison]:
    """Sampling and finetuning of every size."""
    rows = []
    for size in SIZES:
        limit = on_cpu(CACHED) if size.plain else None
        case = f"{size.name}, {size.tokens} tokens of {size.codes} codes"
        rows.append(Comparison("sample", case, size.batch, partial(sampling, size), limit, turns=5))
        rows.append(Comparison("finetune", case, size.batch, partial(finetuning, size), turns=7))
    return rows


def sampling(size: Size, folder: Path) -> Sides:
    """With the cache of keys and values, beside all scales so far for every token."""
    del folder
    prior, text = size.make().eval(), size.captions()

    def cached() -> Tensor:
        generator = torch.Generator(text.device).manual_seed(0)
        return prior.sample(text, size.scales, generator, temperature=0)

    if not size.plain:
        return Sides(cached)

    @torch.no_grad()
    def plain() -> Tensor:
        shape = (size.batch, size.tokens, size.codes)
        tokens = torch.zeros(shape, dtype=torch.int64, device=text.device)
        for position in range(size.tokens):
            for code in range(size.codes):
                scale = position // size.tokens_per_scale
                whole = tokens[:, : (scale + 1) * size.tokens_per_scale]
                logits = prior(whole, text)[scale * size.codes + code]
                inside = position % size.tokens_per_scale
                tokens[:, position, code] = logits[:, inside].argmax(-1)
        return tokens

    return Sides(cached, plain)


def finetuning(size: Size, folder: Path) -> Sides:
    """A clipped sum over a batch, beside the ordinary gradient of the same."""
    del folder
    prior = size.make()
    shape = (size.batch, size.tokens, size.codes)
    tokens = torch.randint(size.codebook_size, shape).to(device_here())
    batch = {"tokens": tokens, "text": size.captions().unsqueeze(1)}
    mask = torch.ones(size.batch, dtype=torch.bool, device=device_here())
    loss = next_token_loss(0.1)
    private = make_engine("bookkeeping", prior, loss, 1.0)
    # A clip of infinity needs ordinary gradients only.
    ordinary = make_engine("bookkeeping", prior, loss, math.inf)
    return Sides(lambda: private.add(batch, mask), lambda: ordinary.add(batch, mask))
