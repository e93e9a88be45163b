"""A raster VQ tokenizer: convolutions down to a grid of tokens, and back up.

The tokenizer of VQGAN (Esser et al. 2021) and LlamaGen (Sun et al. 2024), in the size of the
embedded data: what the spectral tokenizer is compared with, at the same budget of codes. In its
published size it is :mod:`wavedp.nn.vqgan`.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.dp.errors import UserError
from wavedp.nn.fingerprint import fingerprint
from wavedp.nn.quantizer import Quantizer
from wavedp.nn.tokenizer import LARGEST_CODEBOOK, Tokenizer, check_codes


class Raster(Tokenizer):
    """A tokenizer of one scale: an encoder to a square grid of rows, a quantiser, a decoder.

    Args:
        encoder: ``[n, 3, R, R]`` to ``[n, d, grid, grid]``; the decoder is its inverse.
        codebook: quantises rows of width d.
        resolution: R, image height and width in pixels.
        grid: tokens on a side.
    """

    def __init__(
        self,
        encoder: nn.Module,
        codebook: Quantizer,
        decoder: nn.Module,
        resolution: int,
        grid: int,
    ) -> None:
        super().__init__()
        self.encoder, self.codebook, self.decoder = encoder, codebook, decoder
        self.resolution, self.grid = resolution, grid
        self.codes, self.codebook_size = len(codebook.codebooks), codebook.entries
        if codebook.entries > LARGEST_CODEBOOK:
            raise UserError(
                f"codebook_size={codebook.entries} must lie in 1..{LARGEST_CODEBOOK}: codes are "
                "kept as 16-bit numbers."
            )

    @property
    def key(self) -> str:
        """See :class:`~wavedp.nn.tokenizer.Tokenizer`."""
        return fingerprint(self, type(self).__name__, self.resolution, self.codebook.normalize)

    @property
    def scales(self) -> int:
        """One."""
        return 1

    @property
    def tokens_per_scale(self) -> int:
        """All tokens of an image."""
        return self.grid**2

    def side(self, scales: int) -> int:
        """The resolution; an image has its one scale or nothing."""
        del scales
        return self.resolution

    def encode(self, images: Tensor, scales: int | None = None) -> Tensor:
        """Images in [-1, 1] to codes ``[n, t, C]``, row by row over the grid.

        Raises:
            UserError: another image size, or another number of scales than one.
        """
        if images.shape[-2:] != (self.resolution, self.resolution):
            raise UserError(
                f"The tokenizer takes images of {self.resolution} px, got "
                f"{images.shape[-2]}x{images.shape[-1]}; prepare them at "
                f"dataset.resolution={self.resolution}."
            )
        if scales not in (None, 1):
            raise UserError(f"A raster tokenizer has one scale; {scales} are asked for.")
        return self.codebook.encode(self._rows(images))

    def decode(self, tokens: Tensor) -> Tensor:
        """The inverse of :meth:`encode`.

        Raises:
            UserError: the tokens do not fill the grid, or a code is not below K.
        """
        if tokens.shape[1:] != (self.tokens_per_scale, self.codes):
            raise UserError(
                f"Got tokens of shape {list(tokens.shape[1:])}; an image has "
                f"{self.tokens_per_scale} tokens of {self.codes} codes each."
            )
        check_codes(tokens, self.codebook_size)
        return self._images(self.codebook.lookup(tokens))

    def latents(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] to what is quantised, ``[n, d, grid, grid]``."""
        return self._rows(images).mT.unflatten(2, (self.grid, self.grid))

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Images of latents that are quantised first: VQ as a part of the decoder."""
        codes = self.codebook.encode(latents.flatten(2).mT)
        return self._images(self.codebook.lookup(codes))

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Through the bottleneck and back: the image, alone in a list, and the commitment ``[n]``.

        Gradients go straight through the quantiser.
        """
        quantized = self.codebook(self._rows(images))
        return [self._images(quantized.rows)], quantized.commitment.mean(1)

    @torch.no_grad()
    def fit_codebooks(self, images: Tensor) -> None:
        """Start the codebooks from k-means of what the encoder makes of public images."""
        self.codebook.fit(torch.cat([self._rows(x) for x in images.split(250)]).flatten(0, 1))

    def _rows(self, images: Tensor) -> Tensor:
        # Channels last: a training step takes a sixth less on a CPU.
        images = images.contiguous(memory_format=torch.channels_last)
        return torch.as_tensor(self.encoder(images)).flatten(2).mT

    def _images(self, rows: Tensor) -> Tensor:
        return torch.as_tensor(self.decoder(rows.mT.unflatten(2, (self.grid, self.grid))))


class RasterTokenizer(Raster):
    """The raster tokenizer in the size of the embedded data.

    Args:
        resolution: image height and width in pixels.
        halvings: the grid has ``resolution / 2**halvings`` tokens on a side.
        codes, codebook_size, code_width: of the quantiser.
        width: channels at the full resolution; doubled at every halving.
        blocks: residual blocks per resolution.

    Raises:
        UserError: the resolution cannot be halved that often, or the codebook is too large.
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
        if resolution % 2**halvings:
            raise UserError(
                f"{resolution} pixels cannot be halved {halvings} times; change tokenizer.halvings."
            )
        widths = [width * 2**i for i in range(halvings + 1)]
        down: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
        for low, high in itertools.pairwise(widths):
            down += [Residual(low) for _ in range(blocks)]
            down.append(nn.Conv2d(low, high, 4, stride=2, padding=1))
        down += [Residual(widths[-1]), nn.Conv2d(widths[-1], code_width, 1)]
        up: list[nn.Module] = [nn.Conv2d(code_width, widths[-1], 3, padding=1)]
        up += [Residual(widths[-1])]
        for low, high in zip(reversed(widths[:-1]), reversed(widths[1:]), strict=True):
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(high, low, 3, padding=1)]
            up += [Residual(low) for _ in range(blocks)]
        up += [nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1)]
        codebook = Quantizer(code_width, codebook_size, codes)
        grid = resolution >> halvings
        super().__init__(nn.Sequential(*down), codebook, nn.Sequential(*up), resolution, grid)


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
