"""A raster VQ tokenizer: convolutions down to a grid of tokens, and back up.

The tokenizer of VQGAN (Esser et al. 2021) and LlamaGen (Sun et al. 2024), in the size of the
embedded data: what the spectral tokenizer is compared with, at the same budget of tokens.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.nn.quantizer import Quantizer


class RasterTokenizer(nn.Module):
    """Images in [-1, 1] to a grid of tokens and back.

    Args:
        resolution: image height and width in pixels.
        halvings: the grid has ``resolution / 2**halvings`` tokens on a side.
        codes, codebook_size, code_width: of the quantiser.
        width: channels at the full resolution; doubled at every halving.
        blocks: residual blocks per resolution.
    """

    def __init__(
        self,
        resolution: int = 32,
        halvings: int = 2,
        codes: int = 1,
        codebook_size: int = 1024,
        code_width: int = 32,
        width: int = 32,
        blocks: int = 1,
    ) -> None:
        super().__init__()
        self.resolution, self.side = resolution, resolution >> halvings
        self.codes, self.codebook_size = codes, codebook_size
        widths = [width * 2**i for i in range(halvings + 1)]
        down: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
        for low, high in itertools.pairwise(widths):
            down += [Residual(low) for _ in range(blocks)]
            down.append(nn.Conv2d(low, high, 4, stride=2, padding=1))
        down += [Residual(widths[-1]), nn.Conv2d(widths[-1], code_width, 1)]
        self.encoder = nn.Sequential(*down)
        self.codebook = Quantizer(code_width, codebook_size, codes)
        up: list[nn.Module] = [nn.Conv2d(code_width, widths[-1], 3, padding=1)]
        up += [Residual(widths[-1])]
        for low, high in zip(reversed(widths[:-1]), reversed(widths[1:]), strict=True):
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(high, low, 3, padding=1)]
            up += [Residual(low) for _ in range(blocks)]
        up += [nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1)]
        self.decoder = nn.Sequential(*up)

    def encode(self, images: Tensor) -> Tensor:
        """``[n, 3, R, R]`` to codes ``[n, t, C]``, row by row over the grid."""
        return self.codebook.encode(self._rows(images))

    def decode(self, tokens: Tensor) -> Tensor:
        """The inverse of :meth:`encode`."""
        return self._images(self.codebook.lookup(tokens))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Through the bottleneck and back: images and the commitment ``[n]``."""
        quantized = self.codebook(self._rows(images))
        return self._images(quantized.rows), quantized.commitment.mean(1)

    def _rows(self, images: Tensor) -> Tensor:
        return torch.as_tensor(self.encoder(images)).flatten(2).mT

    def _images(self, rows: Tensor) -> Tensor:
        return torch.as_tensor(self.decoder(rows.mT.unflatten(2, (self.side, self.side))))


class Residual(nn.Module):
    """Two convolutions around a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, width, h, w]`` to the same."""
        y = self.conv1(F.silu(self.norm1(x)))
        return torch.as_tensor(x + self.conv2(F.silu(self.norm2(y))))
