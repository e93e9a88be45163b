"""Seconds from the features of samples to a score, the reference's statistics being at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks.metrics.frechet import Gaussian, Rooted, distance, distance_by_eigenvalues
from benchmarks.metrics.kid import KID
from benchmarks.metrics.prdc import radii, shares
from benchmarks.throughput.comparison import Comparison, Sides
from benchmarks.throughput.table import device_here

WIDTH = 2048
"""Features of the Inception of FID."""
NEIGHBOURS = 5


def planned() -> list[Comparison]:
    """A row per score. More rows than features for the Frechet distance, as it should have."""
    rows = (
        (f"Frechet distance of {WIDTH} features, by clean-fid", 4096, frechet),
        (f"Frechet distance of {WIDTH} features, by eigenvalues", 4096, by_eigenvalues),
        (f"PRDC of {WIDTH} features, {NEIGHBOURS} neighbours", 2000, prdc),
        (f"KID of {WIDTH} features, 100 subsets of 1000", 2000, kid),
    )
    return [Comparison("score", *row, turns=5) for row in rows]


def features(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of a reference and of samples, float32 ``[count, WIDTH]``."""
    draws = np.random.default_rng(0)
    reference, samples = draws.standard_normal((2, count, WIDTH)).astype(np.float32)
    return reference, samples


def frechet(folder: Path) -> Sides:
    """The value of a metric."""
    del folder
    rows, samples = features(4096)
    reference = Gaussian.of(rows)
    return Sides(lambda: distance(Gaussian.of(samples), reference))


def by_eigenvalues(folder: Path) -> Sides:
    """A replicate of its bootstrap."""
    del folder
    rows, samples = features(4096)
    reference = Rooted.of(Gaussian.of(rows), device_here())
    return Sides(lambda: distance_by_eigenvalues(Gaussian.of(samples), reference))


def prdc(folder: Path) -> Sides:
    """All four numbers."""
    del folder
    real, fake = (torch.from_numpy(part).to(device_here()) for part in features(2000))
    balls = radii(real, NEIGHBOURS)
    return Sides(lambda: shares(real, balls, fake, NEIGHBOURS))


def kid(folder: Path) -> Sides:
    """The value of a metric."""
    del folder
    reference, samples = features(2000)
    metric = KID(subsets=100, subset_size=1000)
    metric.fit(reference)
    return Sides(lambda: metric.score(samples))
