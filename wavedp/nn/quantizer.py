"""Vector quantisation with codebooks that follow their data (VQ-VAE, van den Oord et al. 2017).

Trained on public data only, and frozen (``eval()``) before any private record is encoded: a
codebook that moves with private data would be an unaccounted release.

Shapes: ``...`` any leading dimensions, d width, C codes per row, K entries of a codebook.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.dp.errors import UserError


@dataclass(frozen=True)
class Quantized:
    """Attributes:
    rows: ``[..., d]``, the sum of the chosen entries; gradients go straight through.
    codes: int64 ``[..., C]`` in 0..K-1.
    commitment: ``[...]``, mean squared distance from what was quantised, for the encoder.
    """

    rows: Tensor
    codes: Tensor
    commitment: Tensor


class Quantizer(nn.Module):
    """C codes per row, each from its own codebook: residual quantisation for C > 1.

    The first code quantises the row, each further one what the codes before it left (Lee et al.
    2022, arXiv 2203.01941). In training mode a codebook's entries are running means of the rows
    that chose them (van den Oord et al. 2017, appendix A.1), and an entry that is hardly chosen
    any more is revived at a random row of the batch.

    Args:
        width: d.
        entries: K.
        codes: C.
        decay: of the running means.
        normalize: rows and entries are scaled to unit length first (Yu et al. 2022, as LlamaGen
            does); for C = 1.
    """

    codebooks: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(
        self,
        width: int,
        entries: int,
        codes: int = 1,
        decay: float = 0.99,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        if normalize and codes > 1:
            raise UserError("A quantiser of unit vectors has one code per row; set codes=1.")
        self.decay, self.normalize = decay, normalize
        self.register_buffer("codebooks", F.normalize(torch.randn(codes, entries, width), dim=-1))
        # How often, by a running mean, an entry is chosen per batch, and the sum of what chose it.
        self.register_buffer("counts", torch.ones(codes, entries), persistent=False)
        self.register_buffer("sums", self.codebooks.clone(), persistent=False)

    @property
    def entries(self) -> int:
        """K."""
        return self.codebooks.shape[1]

    def encode(self, rows: Tensor) -> Tensor:
        """Codes ``[..., C]`` of rows ``[..., d]``; nothing learns, whatever the mode."""
        return self._quantize(rows, learn=False).codes

    def forward(self, rows: Tensor) -> Quantized:
        """Quantise ``[..., d]``; in training mode the codebooks learn."""
        return self._quantize(rows, learn=self.training)

    def _quantize(self, rows: Tensor, learn: bool) -> Quantized:
        # In bfloat16 neighbouring entries would be one, and running means would stand still.
        with torch.autocast(rows.device.type, enabled=False):
            return self._choose(self._scaled(rows.to(self.codebooks.dtype)), learn)

    def _choose(self, rows: Tensor, learn: bool) -> Quantized:
        left, chosen, total = rows, [], torch.zeros_like(rows)
        for code, codebook in enumerate(self.codebooks):
            chosen.append(nearest(left.detach(), codebook))
            entry = F.embedding(chosen[-1], codebook)
            if learn:
                self._learn(code, left.detach().flatten(0, -2), chosen[-1].flatten())
            total, left = total + entry, left - entry
        commitment = (rows - total.detach()).square().mean(-1)
        return Quantized(rows + (total - rows).detach(), torch.stack(chosen, -1), commitment)

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes ``[..., C]`` to rows ``[..., d]``."""
        parts = [F.embedding(codes[..., c], book) for c, book in enumerate(self.codebooks)]
        return torch.stack(parts).sum(0)

    @torch.no_grad()
    def fit(self, rows: Tensor, iterations: int = 10, seed: int = 0) -> None:
        """Start from k-means of public rows ``[n, d]``, code after code.

        Raises:
            UserError: fewer rows than entries.
        """
        generator = torch.Generator(rows.device).manual_seed(seed)
        left = self._scaled(rows)
        for code, codebook in enumerate(self.codebooks):
            codebook.copy_(self._scaled(kmeans(left, self.entries, iterations, generator)))
            left = left - F.embedding(nearest(left, codebook), codebook)
            self.counts[code].fill_(1.0)
            self.sums[code].copy_(codebook)

    @torch.no_grad()
    def _learn(self, code: int, rows: Tensor, chosen: Tensor) -> None:
        counts = torch.bincount(chosen, minlength=self.entries).to(rows.dtype)
        sums = torch.zeros_like(self.sums[code]).index_add_(0, chosen, rows)
        for value in (counts, sums):
            if dist.is_initialized():
                dist.all_reduce(value)
        self.counts[code].lerp_(counts, 1 - self.decay)
        self.sums[code].lerp_(sums, 1 - self.decay)
        self._revive(code, rows)
        means = self.sums[code] / self.counts[code].clamp_min(1e-6).unsqueeze(1)
        self.codebooks[code].copy_(self._scaled(means))

    def _revive(self, code: int, rows: Tensor) -> None:
        """Entries chosen less than a hundredth as often as the mean restart at a row."""
        level = self.counts[code].mean()
        dead = self.counts[code] < 0.01 * level
        fresh = rows[torch.randint(len(rows), dead.shape, device=rows.device)]
        if dist.is_initialized():
            dist.broadcast(fresh, 0)
        self.counts[code] = self.counts[code].where(~dead, level)
        self.sums[code] = self.sums[code].where(~dead.unsqueeze(1), fresh * level)

    def _scaled(self, rows: Tensor) -> Tensor:
        return F.normalize(rows, dim=-1) if self.normalize else rows


def nearest(rows: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest codebook entry for ``[..., d]`` rows, in the L2 norm."""
    norms = codebook.square().sum(1)
    # In parts: all distances of a large batch would not fit into memory.
    parts = rows.reshape(-1, rows.shape[-1]).split(65536)
    found = [(norms - 2 * part @ codebook.mT).argmin(1) for part in parts]
    return torch.cat(found).view(rows.shape[:-1])


def kmeans(rows: Tensor, clusters: int, iterations: int, generator: torch.Generator) -> Tensor:
    """Lloyd's algorithm; an empty cluster restarts at a row far from its centre.

    Rows are drawn by their squared distance, as k-means++ does (Arthur and Vassilvitskii 2007).

    Args:
        rows: float ``[n, d]``.
        clusters: K, at most n.

    Returns:
        ``[K, d]`` centres.

    Raises:
        UserError: fewer rows than clusters.
    """
    if len(rows) < clusters:
        raise UserError(
            f"{clusters} codebook entries need at least as many public patches, got {len(rows)}."
        )
    device = rows.device
    centres = rows[torch.randperm(len(rows), generator=generator, device=device)[:clusters]].clone()
    for _ in range(iterations):
        assigned = nearest(rows, centres)
        counts = torch.bincount(assigned, minlength=clusters)
        sums = torch.zeros_like(centres).index_add_(0, assigned, rows)
        centres = sums / counts.clamp_min(1).unsqueeze(1)
        empty = counts == 0
        if empty.any():
            far = (rows - centres[assigned]).square().sum(1).clamp_min(1e-12)
            centres[empty] = rows[torch.multinomial(far, int(empty.sum()), generator=generator)]
    return centres
