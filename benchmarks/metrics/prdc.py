"""``prdc``: precision, recall, density and coverage (Naeem et al. 2020).

With balls around every image that reach to its k-th nearest neighbour on its own side:
precision is the share of samples in a real ball, recall the share of real images in a sample's
ball (Kynkaanniemi et al. 2019), density the mean number of real balls around a sample over k,
coverage the share of real balls that hold a sample. Distances are taken a block of rows at a
time, so 30,000 by 30,000 needs no more than a few hundred megabytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmarks import bootstrap
from benchmarks.features import FeatureSpace
from benchmarks.metrics import Direction, Scores
from benchmarks.metrics.featured import FeatureMetric

BLOCK = 1000
"""Rows of distances at a time: 1,000 by 30,000 floats are 120 MB."""

INSIDE = 1 - 1e-5
"""Balls are open: a point on the edge, as every k-th neighbour is, must not get in by rounding."""


def blocks(rows: Tensor, others: Tensor) -> Iterator[Tensor]:
    """Euclidean distances ``[block, m]`` of blocks of rows to all others."""
    for part in rows.split(BLOCK):
        yield torch.cdist(part, others)


def radii(features: Tensor, k: int) -> Tensor:
    """Radius of each row's ball, ``[n]``: just short of its k-th nearest other row."""
    # The nearest of all is the row itself, at distance 0: hence k + 1, as in the authors' code.
    parts = [block.kthvalue(k + 1, dim=1).values for block in blocks(features, features)]
    return INSIDE * torch.cat(parts)


@dataclass(frozen=True)
class Shares:
    """What each sample and each real image adds to the four means.

    Attributes:
        precise: ``[n]``, whether the sample lies in a real ball.
        dense: ``[n]``, how many real balls hold the sample, over k.
        recalled: ``[m]``, whether the real image lies in a sample's ball.
        covered: ``[m]``, whether a sample lies in the real image's ball.
    """

    precise: np.ndarray
    dense: np.ndarray
    recalled: np.ndarray
    covered: np.ndarray

    def named(self) -> dict[str, np.ndarray]:
        """By the names of the four numbers."""
        return {
            "precision": self.precise,
            "recall": self.recalled,
            "density": self.dense,
            "coverage": self.covered,
        }


def shares(real: Tensor, real_radii: Tensor, fake: Tensor, k: int) -> Shares:
    """All four for features ``[m, d]`` and ``[n, d]`` on one device."""
    fake_radii = radii(fake, k)
    inside = torch.zeros(len(fake), dtype=torch.int64, device=fake.device)
    recalled, covered = [], []
    for start, block in zip(range(0, len(real), BLOCK), blocks(real, fake), strict=True):
        radius = real_radii[start : start + BLOCK, None]
        inside += (block < radius).sum(0)
        recalled.append((block < fake_radii).any(1))
        covered.append(block.amin(1) < radius[:, 0])
    parts = (inside > 0, inside.double() / k, torch.cat(recalled), torch.cat(covered))
    return Shares(*(part.double().cpu().numpy() for part in parts))


class PRDC(FeatureMetric):
    """The four numbers. Higher is better; 1 is the ideal, and density may exceed it.

    Args:
        space: where distances are taken.
        k: neighbours; 5 in the paper.
    """

    direction: ClassVar[Direction | Mapping[str, Direction]] = {
        "precision": "higher",
        "recall": "higher",
        "density": "higher",
        "coverage": "higher",
    }

    def __init__(self, space: FeatureSpace, k: int = 5) -> None:
        super().__init__(space)
        self._k, self.least = k, k + 1
        self.protocol = f"precision, recall, density, coverage with k = {k} on {space.label}"

    def fit(self, features: np.ndarray) -> None:
        """See :class:`FeatureMetric`."""
        # Distances lose fewer digits near the origin.
        self._centre = features.mean(0, dtype=np.float64).astype(np.float32)
        self._real = self._placed(features)
        made = self.keep(f"radii {self._k}", lambda: radii(self._real, self._k).cpu().numpy())
        self._radii = torch.from_numpy(made).to(self.space.device)

    def score(self, rows: np.ndarray) -> Scores:
        """See :class:`Metric`."""
        return {name: float(part.mean()) for name, part in self._shares(rows).named().items()}

    def standard_error(self, rows: np.ndarray) -> Scores:
        """Of precision and density, which are means over samples; NaN for recall and coverage.

        Those two are means over real images, which are the same in every draw of samples; how
        they vary with the samples, one set of samples does not tell: a drawn-again sample has
        a ball without extent, and leaving samples out gives only an upper bound.
        """
        parts = self._shares(rows)
        return {
            "precision": bootstrap.standard_error_of_mean(parts.precise),
            "recall": math.nan,
            "density": bootstrap.standard_error_of_mean(parts.dense),
            "coverage": math.nan,
        }

    def _shares(self, rows: np.ndarray) -> Shares:
        return shares(self._real, self._radii, self._placed(rows), self._k)

    def _placed(self, features: np.ndarray) -> Tensor:
        return torch.from_numpy(features - self._centre).to(self.space.device)
