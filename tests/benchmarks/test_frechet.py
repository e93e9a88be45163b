"""The Frechet distance, against other hands; and its error, against fresh draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from metric_tools import captions_of, metric_of, tensor
from scipy import linalg
from torch import Tensor

from benchmarks.features.pixels import Pixels
from benchmarks.metrics.frechet import (
    FrechetMetric,
    Gaussian,
    Rooted,
    distance,
    distance_by_eigenvalues,
)
from wavedp.data.schema import Records


def gaussians(d: int = 6, n: int = 50) -> tuple[Gaussian, Gaussian]:
    draws = np.random.default_rng(0)
    one = draws.standard_normal((n, d)) @ draws.standard_normal((d, d))
    return Gaussian.of(one), Gaussian.of(draws.standard_normal((n, d)) + 0.5)


def test_a_gaussian_is_the_mean_and_covariance_of_numpy() -> None:
    rows = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    found = Gaussian.of(rows)
    np.testing.assert_allclose(found.mean, rows.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(rows.astype(np.float64).T), rtol=1e-12)
    again = Gaussian.unstacked(found.stacked())
    np.testing.assert_array_equal(again.covariance, found.covariance)


def test_frechet_distance_agrees_with_torchmetrics_and_scipy_to_1e_8() -> None:
    from torchmetrics.image.fid import _compute_fid

    one, other = gaussians()
    sides = [torch.from_numpy(x) for g in (one, other) for x in (g.mean, g.covariance)]
    root = linalg.sqrtm(one.covariance @ other.covariance).real
    spread = np.trace(one.covariance + other.covariance - 2 * root)
    by_scipy = np.square(one.mean - other.mean).sum() + spread
    for found in (distance(one, other), distance_by_eigenvalues(one, Rooted.of(other))):
        assert found == pytest.approx(float(_compute_fid(*sides)), rel=1e-8)
        assert found == pytest.approx(by_scipy, rel=1e-8)


def test_frechet_distance_worked_by_hand() -> None:
    """Means (1, 2) and 0, deviations (2, 3) and (1, 1): 1 + 4 + (2 - 1)^2 + (3 - 1)^2 = 10."""
    one = Gaussian(np.array([1.0, 2.0]), np.diag([4.0, 9.0]))
    other = Gaussian(np.zeros(2), np.eye(2))
    assert distance(one, other) == pytest.approx(10)
    assert distance_by_eigenvalues(one, Rooted.of(other)) == pytest.approx(10)


def test_singular_covariances_have_a_distance_too(capfd: pytest.CaptureFixture[str]) -> None:
    """Ten rows in 40 dimensions, where clean-fid's root can turn complex."""
    draws = np.random.default_rng(1)
    sets = [1000 * draws.standard_normal((10, 40)) for _ in range(2)]
    one, other = map(Gaussian.of, sets)
    found = distance(one, other)
    assert found == pytest.approx(distance_by_eigenvalues(one, Rooted.of(other)), rel=1e-3)
    assert distance(one, one) == pytest.approx(0, abs=1e-6 * np.trace(one.covariance))
    assert capfd.readouterr().out == ""


def test_the_error_of_a_frechet_distance_is_its_spread_over_samples(faces: Records) -> None:
    """Against the deviation over 30 fresh draws of a law that is known."""

    class Plain(Pixels):
        def __init__(self) -> None:
            super().__init__()
            self.label = "four pixels"

        def extract(self, images: Tensor) -> Tensor:
            return images[:, 0, 0, :4].float()

    draws = np.random.default_rng(0)

    def draw(n: int) -> np.ndarray:
        mean = 128 + 20 * draws.standard_normal((n, 4))
        images = np.zeros((n, 3, 4, 4), np.uint8)
        images[:, 0, 0] = mean.round().clip(0, 255)
        return images

    metric = FrechetMetric(Plain(), replicates=60)
    shifted = draw(400)
    shifted[:, 0, 0] += 15
    metric.prepare(Records(shifted, [("x",)] * 400, "reference"))
    values, errors = [], []
    for _ in range(30):
        metric.update(torch.from_numpy(draw(100)), ["x"] * 100)
        rows = metric.take()
        values.append(metric.score(rows))
        errors.append(metric.standard_error(rows))
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.35)


@pytest.mark.slow
def test_fid_is_clean_fids_own_number_of_2048_features(
    random_weights: Path, faces: Records
) -> None:
    """Against ``fid_from_feats`` of clean-fid on its own features, to 1e-6."""
    from cleanfid import fid

    metric = metric_of("fid")
    assert isinstance(metric, FrechetMetric)
    metric.prepare(faces.slice(60, 100))
    metric.update(tensor(faces)[:30], captions_of(faces)[:30])
    features = [metric.space(tensor(part)) for part in (faces.slice(0, 30), faces.slice(60, 100))]
    assert metric.compute() == pytest.approx(fid.fid_from_feats(*features), rel=1e-6)
