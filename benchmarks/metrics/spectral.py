"""``spectral``: where in the wavelet spectrum samples differ from real images.

Each image is cut into its Haar bands. Two numbers per band: the *energy* of its coefficients
against real images, in decibels (below 0 a method blurs there, above 0 it adds noise), and a
Frechet distance between descriptions of the band. The second is near to the Frechet wavelet
distance (Veeramacheneni et al. 2024), which takes all coefficients of a wavelet packet; here a
band is described by the root mean square of each orientation and channel in the cells of a
small grid, so that a few hundred samples are enough. It is divided by the variance of that
description over real images: 1 is as far off as real images differ among themselves, in any band.
No network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.batches import Batches
from benchmarks.metrics import Direction, Metric, Scores
from benchmarks.metrics.frechet import Gaussian, Rooted, distance_by_eigenvalues
from wavedp.data.schema import Records
from wavedp.wavelet.transform import check_divisible, decompose

ROUNDING = 1 / 12
"""Variance of rounding to a grey level: keeps a band without any energy finite."""


class Spectral(Metric):
    """Energy and Frechet distance of every band: ``energy_ll``, ``fd_ll``, ``energy_d3`` ...

    ``d1`` are the finest details. The energy is ``10 log10`` of a ratio, ideally 0. Coefficients
    are those of an orthonormal transform of pixels in 0..255.

    Args:
        levels: of the transform; ``2^levels`` must divide the image size.
        grid: cells on a side; the approximation band must have at least as many pixels.
    """

    least = 2

    def __init__(self, levels: int = 3, grid: int = 4, replicates: int = 50) -> None:
        super().__init__()
        self._levels, self._grid, self.replicates = levels, grid, replicates
        self._bands = ["ll", *(f"d{level}" for level in range(levels, 0, -1))]
        # Approximation: signed means of 3 channels. Details: 3 orientations of 3 channels.
        self._widths = [3 * grid**2] + [9 * grid**2] * levels
        self.direction: Mapping[str, Direction] = {  # type: ignore[misc]
            **{f"energy_{band}": "zero" for band in self._bands},
            **{f"fd_{band}": "lower" for band in self._bands},
        }
        self.protocol = (
            f"{levels}-level Haar bands of pixels in 0..255: energy in dB against the reference, "
            f"and Frechet distance of root mean squares in {grid}x{grid} cells (of means in ll) "
            "over the reference's variance"
        )

    def prepare(self, reference: Records) -> None:
        """See :class:`Metric`."""
        height, width = reference.images.shape[-2:]
        check_divisible(height, width, self._levels)
        rows = np.concatenate([self.describe(part, []) for part in Batches(reference.images)])
        energies, cells = self._split(rows)
        self._energies = energies.mean(0)
        self._references = [Rooted.of(Gaussian.of(part)) for part in cells]

    def describe(
        self, images: Tensor, captions: Sequence[str], real: Tensor | None = None
    ) -> np.ndarray:
        """See :class:`Metric`: the energy of each band, then the cells of each."""
        del captions, real
        scales = decompose(images.cpu().float(), self._levels)
        energies = torch.stack([scale.square().mean((1, 2, 3)) for scale in scales], 1)
        approximation = F.adaptive_avg_pool2d(scales[0], self._grid)
        squares = [F.adaptive_avg_pool2d(s.square(), self._grid) for s in scales[1:]]
        cells = [approximation, *(square.sqrt() for square in squares)]
        rows = torch.cat([energies, *(cell.flatten(1) for cell in cells)], 1)
        return rows.double().numpy()

    def score(self, rows: np.ndarray) -> Scores:
        """See :class:`Metric`."""
        energies, cells = self._split(rows)
        found = self._decibels(energies)
        for band, part, reference in zip(self._bands, cells, self._references, strict=True):
            variance = float(reference.root.square().sum()) + ROUNDING
            found[f"fd_{band}"] = distance_by_eigenvalues(Gaussian.of(part), reference) / variance
        return found

    def _decibels(self, energies: np.ndarray) -> dict[str, float]:
        ratios = (energies.mean(0) + ROUNDING) / (self._energies + ROUNDING)
        return {
            f"energy_{band}": float(10 * np.log10(ratio))
            for band, ratio in zip(self._bands, ratios, strict=True)
        }

    def _split(self, rows: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        count = len(self._bands)
        borders = np.cumsum(self._widths)[:-1]
        return rows[:, :count], np.split(rows[:, count:], borders, axis=1)
