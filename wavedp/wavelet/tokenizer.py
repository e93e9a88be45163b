"""The spectral tokenizer: an image as the same number of tokens per wavelet scale.

After SIT (Esteves et al., arXiv 2412.09607): every scale of the Haar pyramid is cut into the
same grid of patches, so patches grow with frequency and high frequencies are compressed most.
This first version quantises each patch against codebooks of its scale and mends the result
with a small convolutional network per resolution; the transformer encoder and decoder of the
paper will take their place. All of it is trained on public images and frozen before it
touches a private one.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.data.schema import Records
from wavedp.dp.clipping import Batch
from wavedp.dp.errors import UserError
from wavedp.dp.trainer import Trainer
from wavedp.nn.images import to_float
from wavedp.nn.schedule import cosine
from wavedp.wavelet.transform import check_divisible, decompose, reconstruct


class SpectralTokenizer(nn.Module):
    """Images in [-1, 1] to tokens and back, for any number of leading scales.

    A token stands for one patch and holds C codes: the first quantises the patch, each further
    one what the codes before it left (residual quantisation, Lee et al. 2022). SIT has one code
    from a codebook of 8192 behind a deep encoder; small codebooks without one need several.

    Args:
        resolution: image height and width in pixels.
        levels: L; there are S = L + 1 scales.
        grid: patches per side, so each scale has N = ``grid**2`` tokens.
        codes: C.
        codebook_size: K entries for each scale and code.
        width: channels of the networks that mend the decoded bands.
    """

    def __init__(
        self,
        resolution: int = 32,
        levels: int = 2,
        grid: int = 4,
        codes: int = 4,
        codebook_size: int = 512,
        width: int = 32,
    ) -> None:
        super().__init__()
        check_divisible(resolution, resolution, levels)
        if (resolution >> levels) % grid:
            raise UserError(
                f"A {grid}x{grid} token grid does not divide the {resolution >> levels} pixels of "
                f"the LL band; change resolution, levels or grid."
            )
        self.resolution, self.levels, self.grid = resolution, levels, grid
        self.codes, self.codebook_size = codes, codebook_size
        for scale in range(self.scales):
            shape = (codes, codebook_size, self._patch_width(scale))
            self.register_buffer(f"codebooks{scale}", torch.zeros(shape))
        self.menders = nn.ModuleList(Mender(width) for _ in range(self.scales))

    @property
    def scales(self) -> int:
        """S, the number of scales."""
        return self.levels + 1

    @property
    def tokens_per_scale(self) -> int:
        """N."""
        return self.grid**2

    def _side(self, scale: int) -> int:
        """Pixels per side of a scale's bands."""
        return self.resolution >> (self.levels - max(scale - 1, 0))

    def _patch_width(self, scale: int) -> int:
        channels = 3 if scale == 0 else 9
        return channels * (self._side(scale) // self.grid) ** 2

    def codebooks(self, scale: int) -> Tensor:
        """``[C, K, patch width]`` of a scale, in orthonormal coefficients."""
        return self.get_buffer(f"codebooks{scale}")

    def patches(self, images: Tensor) -> list[Tensor]:
        """Images to per-scale patches ``[n, N, patch width]``, row by row over the grid."""
        return [
            F.pixel_unshuffle(band, band.shape[-1] // self.grid).flatten(2).mT
            for band in decompose(images, self.levels)
        ]

    def encode(self, images: Tensor, scales: int | None = None) -> Tensor:
        """Images ``[n, 3, R, R]`` in [-1, 1] to codes ``[n, s N, C]`` in 0..K-1.

        Args:
            scales: s, encode the first scales only; the others are not looked at.
        """
        patches = self.patches(images)[: scales or self.scales]
        tokens = []
        for scale, left in enumerate(patches):
            codes = []
            for codebook in self.codebooks(scale):
                codes.append(nearest(left, codebook))
                left = left - codebook[codes[-1]]
            tokens.append(torch.stack(codes, dim=-1))
        return torch.cat(tokens, dim=1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens of the first s scales to the LL band there, as an image in [-1, 1].

        Args:
            tokens: int64 ``[n, s N, C]`` with 1 <= s <= S.

        Returns:
            ``[n, 3, r, r]`` with ``r`` the resolution for all scales, halved for every
            level that is missing.

        Raises:
            UserError: the tokens do not fill whole scales, or a code is not below K.
        """
        scales, rest = divmod(tokens.shape[1], self.tokens_per_scale)
        if rest or not 0 < scales <= self.scales or tokens.shape[2] != self.codes:
            raise UserError(
                f"Got tokens of shape {list(tokens.shape[1:])}; whole scales have "
                f"{self.tokens_per_scale} tokens of {self.codes} codes each, "
                f"and there are {self.scales} scales."
            )
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.codebook_size:
            raise UserError(f"Codes must lie in 0..{self.codebook_size - 1}.")
        bands = [self._band(part, scale) for scale, part in enumerate(tokens.chunk(scales, dim=1))]
        image = reconstruct(bands) / 2 ** (self.scales - scales)
        return torch.as_tensor(self.menders[scales - 1](image))

    def _band(self, tokens: Tensor, scale: int) -> Tensor:
        """``[n, N, C]`` to the bands ``[n, channels, side, side]`` of a scale."""
        codebooks = self.codebooks(scale)
        patches = sum(codebooks[c][tokens[..., c]] for c in range(self.codes))
        grid = torch.as_tensor(patches).mT.reshape(len(tokens), -1, self.grid, self.grid)
        return F.pixel_shuffle(grid, self._side(scale) // self.grid)

    @torch.no_grad()
    def fit_codebooks(self, images: Tensor, iterations: int = 10, seed: int = 0) -> None:
        """K-means on the patches of public images, code after code; see :func:`kmeans`."""
        generator = torch.Generator().manual_seed(seed)
        for scale, patches in enumerate(self.patches(images)):
            left = patches.flatten(0, 1)
            for codebook in self.codebooks(scale):
                codebook.copy_(kmeans(left, self.codebook_size, iterations, generator))
                left = left - codebook[nearest(left, codebook)]


class Mender(nn.Module):
    """Residual convolutions that smooth the seams between decoded patches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.leave = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.constant_(self.leave.get_parameter("bias"), 0.0)

    def forward(self, image: Tensor) -> Tensor:
        """``[n, 3, r, r]`` to the same shape."""
        x = F.gelu(self.enter(image))
        return torch.as_tensor(image + self.leave(F.gelu(x + self.middle(x))))


def mending_loss(tokenizer: nn.Module, batch: Batch) -> Tensor:
    """Mean absolute pixel error of every partial decoding, ``[b]``; ``batch["images"]`` floats."""
    assert isinstance(tokenizer, SpectralTokenizer)
    images = batch["images"]
    tokens = tokenizer.encode(images)
    total = torch.zeros(len(images), device=images.device)
    for scales in range(1, tokenizer.scales + 1):
        missing = tokenizer.scales - scales
        target = F.avg_pool2d(images, 2**missing)  # the Haar LL band of that level
        decoded = tokenizer.decode(tokens[:, : scales * tokenizer.tokens_per_scale])
        total = total + (decoded - target).abs().mean((1, 2, 3))
    return total


def pretrain_tokenizer(tokenizer: SpectralTokenizer, public: Records, trainer: Trainer) -> None:
    """Codebooks by k-means, then the networks that mend what they decode."""
    images = to_float(torch.from_numpy(np.array(public.images)))
    tokenizer.fit_codebooks(images)
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=2e-3, weight_decay=1e-4)
    trainer.fit(
        tokenizer,
        mending_loss,
        {"images": images},
        optimizer,
        cosine(),
        "pretraining the tokenizer",
    )


def nearest(rows: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest codebook entry for ``[..., d]`` rows, in the L2 norm."""
    distances = codebook.square().sum(1) - 2 * rows @ codebook.mT
    return distances.argmin(-1)


def kmeans(rows: Tensor, clusters: int, iterations: int, generator: torch.Generator) -> Tensor:
    """Lloyd's algorithm; an empty cluster restarts at a random row.

    Args:
        rows: float ``[n, d]``.
        clusters: K, at most n.

    Returns:
        ``[K, d]`` centres.
    """
    if len(rows) < clusters:
        raise UserError(
            f"{clusters} codebook entries need at least as many public patches, got {len(rows)}."
        )
    centres = rows[torch.randperm(len(rows), generator=generator)[:clusters]].clone()
    for _ in range(iterations):
        assigned = torch.cat([nearest(part, centres) for part in rows.split(65536)])
        counts = torch.bincount(assigned, minlength=clusters)
        sums = torch.zeros_like(centres).index_add_(0, assigned, rows)
        centres = sums / counts.clamp_min(1).unsqueeze(1)
        empty = counts == 0
        fresh = torch.randint(len(rows), (int(empty.sum()),), generator=generator)
        centres[empty] = rows[fresh]
    return centres
