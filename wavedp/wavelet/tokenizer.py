"""The spectral tokenizer: an image as the same number of tokens per wavelet scale.

After SIT (Esteves et al., arXiv 2412.09607): every scale of the Haar pyramid is cut into the
same grid of patches, so patches grow with frequency and high frequencies are compressed most.
This first version quantises each patch against a codebook of its scale and mends the result
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
from wavedp.wavelet.transform import decompose, reconstruct


class SpectralTokenizer(nn.Module):
    """Images in [-1, 1] to token ids and back, for any number of leading scales.

    Args:
        resolution: image height and width in pixels.
        levels: L; there are S = L + 1 scales.
        grid: patches per side, so each scale has ``grid**2`` tokens.
        codebook_size: K entries for each scale.
        width: channels of the networks that mend the decoded bands.
    """

    def __init__(
        self,
        resolution: int = 32,
        levels: int = 2,
        grid: int = 4,
        codebook_size: int = 512,
        width: int = 32,
    ) -> None:
        super().__init__()
        if (resolution >> levels) % grid:
            raise UserError(
                f"A {grid}x{grid} token grid does not divide the {resolution >> levels} pixels of "
                f"the LL band; change resolution, levels or grid."
            )
        self.resolution, self.levels, self.grid = resolution, levels, grid
        self.codebook_size = codebook_size
        for scale in range(levels + 1):
            shape = (codebook_size, self._patch_width(scale))
            self.register_buffer(f"codebook{scale}", torch.zeros(shape))
        self.menders = nn.ModuleList(Mender(width) for _ in range(levels + 1))

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

    def codebook(self, scale: int) -> Tensor:
        """``[K, patch width]`` of a scale, in orthonormal coefficients."""
        return self.get_buffer(f"codebook{scale}")

    def patches(self, images: Tensor) -> list[Tensor]:
        """Images to per-scale patches ``[n, N, patch width]``, row by row over the grid."""
        return [
            F.pixel_unshuffle(band, band.shape[-1] // self.grid).flatten(2).mT
            for band in decompose(images, self.levels)
        ]

    def encode(self, images: Tensor, scales: int | None = None) -> Tensor:
        """Images ``[n, 3, R, R]`` in [-1, 1] to ids ``[n, scales * N]`` in 0..K-1."""
        patches = self.patches(images)[: scales or self.scales]
        return torch.cat([nearest(p, self.codebook(s)) for s, p in enumerate(patches)], dim=1)

    def decode(self, ids: Tensor) -> Tensor:
        """Ids of the first s scales to the LL band there, as an image in [-1, 1].

        Args:
            ids: int64 ``[n, s * N]`` with 1 <= s <= S.

        Returns:
            ``[n, 3, r, r]`` with ``r`` the resolution for all scales, halved for every
            level that is missing.

        Raises:
            UserError: the number of ids is not a multiple of N, or an id is not below K.
        """
        if ids.shape[1] % self.tokens_per_scale or not 0 < ids.shape[1] // self.grid**2 <= self.scales:
            raise UserError(
                f"Got {ids.shape[1]} tokens; whole scales have {self.tokens_per_scale} each, "
                f"at most {self.scales} of them."
            )
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.codebook_size:
            raise UserError(f"Token ids must lie in 0..{self.codebook_size - 1}.")
        bands = []
        for scale, part in enumerate(ids.split(self.tokens_per_scale, dim=1)):
            coefficients = self.codebook(scale)[part].mT.unflatten(2, (self.grid, self.grid))
            bands.append(F.pixel_shuffle(coefficients, self._side(scale) // self.grid))
        image = reconstruct(bands) / 2 ** (self.scales - len(bands))
        return torch.as_tensor(self.menders[len(bands) - 1](image))

    @torch.no_grad()
    def fit_codebooks(self, images: Tensor, iterations: int = 25, seed: int = 0) -> None:
        """K-means on the patches of public images; see :func:`kmeans`."""
        generator = torch.Generator().manual_seed(seed)
        for scale, patches in enumerate(self.patches(images)):
            rows = patches.flatten(0, 1)
            self.codebook(scale).copy_(kmeans(rows, self.codebook_size, iterations, generator))


class Mender(nn.Module):
    """Residual convolutions that smooth the seams between decoded patches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.leave = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, image: Tensor) -> Tensor:
        """``[n, 3, r, r]`` to the same shape."""
        x = F.gelu(self.enter(image))
        return torch.as_tensor(image + self.leave(F.gelu(x + self.middle(x))))


def mending_loss(tokenizer: nn.Module, batch: Batch) -> Tensor:
    """Mean absolute pixel error of every partial decoding, ``[b]``; ``batch["images"]`` floats."""
    assert isinstance(tokenizer, SpectralTokenizer)
    images = batch["images"]
    ids = tokenizer.encode(images)
    total = torch.zeros(len(images), device=images.device)
    for scales in range(1, tokenizer.scales + 1):
        missing = tokenizer.scales - scales
        target = F.avg_pool2d(images, 2**missing)  # the Haar LL band of that level
        decoded = tokenizer.decode(ids[:, : scales * tokenizer.tokens_per_scale])
        total = total + (decoded - target).abs().mean((1, 2, 3))
    return total


def pretrain_tokenizer(tokenizer: SpectralTokenizer, public: Records, trainer: Trainer) -> None:
    """Codebooks by k-means, then the networks that mend what they decode."""
    images = to_float(torch.from_numpy(np.array(public.images)))
    tokenizer.fit_codebooks(images)
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=2e-3, weight_decay=1e-4)
    trainer.fit(
        tokenizer, mending_loss, {"images": images}, optimizer, cosine(), "pretraining the tokenizer"
    )


def nearest(rows: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest codebook entry for ``[..., d]`` rows, in the L2 norm."""
    distances = codebook.square().sum(1) - 2 * rows @ codebook.mT
    return distances.argmin(-1)


def kmeans(
    rows: Tensor, clusters: int, iterations: int, generator: torch.Generator
) -> Tensor:
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

