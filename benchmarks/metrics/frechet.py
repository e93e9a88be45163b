"""The Frechet distance between Gaussians fitted to features (Heusel et al. 2017).

``d^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 sqrt(S1 S2))``. Values come from clean-fid's own code;
the bootstrap, which needs many of them, takes the same trace from eigenvalues.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from cleanfid import fid
from scipy import linalg
from torch import Tensor

from benchmarks import bootstrap
from benchmarks.features import FeatureSpace
from benchmarks.metrics import Direction, Scores
from benchmarks.metrics.featured import FeatureMetric


@dataclass(frozen=True)
class Gaussian:
    """Mean ``[d]`` and covariance ``[d, d]``, float64."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Gaussian:
        """Fitted to rows ``[n, d]``, with n - 1 in the covariance as clean-fid does."""
        rows = features.astype(np.float64)
        mean = rows.mean(0)
        rows -= mean
        return cls(mean, rows.T @ rows / (len(rows) - 1))

    def stacked(self) -> np.ndarray:
        """As one array ``[d + 1, d]``."""
        return np.concatenate([self.mean[None], self.covariance])

    @classmethod
    def unstacked(cls, array: np.ndarray) -> Gaussian:
        """From :meth:`stacked`."""
        return cls(array[0], array[1:])


def distance(one: Gaussian, other: Gaussian) -> float:
    """Squared Frechet distance by clean-fid, at least 0.

    clean-fid gives up where the square root of a nearly singular product has an imaginary part
    (with fewer samples than features); there the eigenvalues give the same quantity.
    """
    # It prints, and SciPy warns, that a product is singular, as it then has to be.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", linalg.LinAlgWarning)
        try:
            found = fid.frechet_distance(one.mean, one.covariance, other.mean, other.covariance)
        except ValueError:
            return distance_by_eigenvalues(one, Rooted.of(other))
    return max(float(found), 0.0)


@dataclass(frozen=True)
class Rooted:
    """A Gaussian with the symmetric root of its covariance, as tensors on one device."""

    mean: Tensor
    root: Tensor

    @classmethod
    def of(cls, gaussian: Gaussian, device: torch.device | str = "cpu") -> Rooted:
        """From arrays."""
        values, vectors = torch.linalg.eigh(torch.from_numpy(gaussian.covariance).to(device))
        root = (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
        return cls(torch.from_numpy(gaussian.mean).to(device), root)


def distance_by_eigenvalues(one: Gaussian, other: Rooted) -> float:
    """The same distance: ``tr sqrt(S1 S2)`` is the sum of the roots of eigenvalues of ``R S1 R``,
    with R the root of S2. Never complex, and one symmetric eigenvalue problem."""
    device = other.mean.device
    return _distance(
        torch.from_numpy(one.mean).to(device), torch.from_numpy(one.covariance).to(device), other
    )


def _distance(mean: Tensor, covariance: Tensor, other: Rooted) -> float:
    values = torch.linalg.eigvalsh(other.root @ covariance @ other.root)
    spread = covariance.trace() + other.root.square().sum() - 2 * values.clamp(min=0).sqrt().sum()
    return max(float((mean - other.mean).square().sum() + spread), 0.0)


class FrechetMetric(FeatureMetric):
    """Frechet distance of samples and reference in a feature space. Identical sets give 0."""

    direction: ClassVar[Direction | Mapping[str, Direction]] = "lower"
    least = 2
    what: ClassVar[str] = "Frechet distance"
    unlike: ClassVar[str] = "FID"

    def __init__(self, space: FeatureSpace, replicates: int = 100) -> None:
        super().__init__(space, replicates)
        caution = f" (not {self.unlike})" if self.unlike else ""
        self.protocol = f"{self.what}{caution} by clean-fid on {space.label}"

    def fit(self, features: np.ndarray) -> None:
        """See :class:`FeatureMetric`."""
        made = self.keep("gaussian", lambda: Gaussian.of(features).stacked())
        self._reference = Gaussian.unstacked(made)
        self._rooted: Rooted | None = None

    def score(self, rows: np.ndarray) -> Scores:
        """See :class:`Metric`."""
        return distance(Gaussian.of(rows), self._reference)

    def standard_error(self, rows: np.ndarray) -> Scores:
        """See :class:`Metric`; on the space's device."""
        device = self.space.device
        if self._rooted is None:
            self._rooted = Rooted.of(self._reference, device)
        every, other = torch.from_numpy(rows).to(device), self._rooted

        def again(chosen: np.ndarray) -> float:
            part = every[torch.from_numpy(chosen[:, 0]).to(device)].double()
            return _distance(part.mean(0), torch.cov(part.mT), other)

        return bootstrap.standard_error(np.arange(len(rows))[:, None], again, self.replicates)
