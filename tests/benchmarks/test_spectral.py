"""The spectral metric, against PyWavelets and damage that is known."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch

from benchmarks.metrics.spectral import Spectral
from wavedp.data.schema import Records
from wavedp.dp.errors import UserError


def spectral_of(reference: np.ndarray, samples: np.ndarray, **arguments: int) -> dict[str, float]:
    metric = Spectral(**arguments)
    metric.prepare(Records(reference, [("x",)] * len(reference), "reference"))
    metric.update(torch.from_numpy(samples), ["x"] * len(samples))
    scores = metric.compute()
    assert isinstance(scores, dict)
    return scores


def test_energies_agree_with_pywavelets_to_2e_3_decibels(faces: Records) -> None:
    """Not nearer, as a little is added to every energy for the sake of empty bands."""
    real, fake = np.array(faces.images[:40]), np.array(faces.images[40:70])

    def energies(images: np.ndarray) -> list[float]:
        ll, *details = pywt.wavedec2(images.astype(float), "haar", level=3, axes=(2, 3))
        return [np.square(ll).mean(), *(np.square(np.array(d)).mean() for d in details)]

    found = spectral_of(real, fake)
    pairs = zip(("ll", "d3", "d2", "d1"), energies(real), energies(fake), strict=True)
    for band, of_real, of_fake in pairs:
        expected = 10 * np.log10(of_fake / of_real)
        assert found[f"energy_{band}"] == pytest.approx(expected, abs=2e-3), band


def test_spectral_says_where_a_method_fails(faces: Records) -> None:
    """Blur loses the finest band and keeps the coarse ones; noise adds most to the finest."""
    images = np.array(faces.images[:100])
    pairs = torch.from_numpy(images).float()
    blurred = torch.nn.functional.avg_pool2d(pairs, 2).repeat_interleave(2, 2)
    blur = spectral_of(images, blurred.repeat_interleave(2, 3).round().to(torch.uint8).numpy())
    assert blur["energy_d1"] < -15
    assert abs(blur["energy_d3"]) < 0.1
    assert abs(blur["energy_ll"]) < 0.01
    assert blur["fd_d1"] > 100 * max(blur["fd_d3"], blur["fd_ll"])
    noise = 12 * np.random.default_rng(0).standard_normal(images.shape)
    noisy = spectral_of(images, (images + noise).round().clip(0, 255).astype(np.uint8))
    assert noisy["energy_d1"] > 1
    assert noisy["energy_d1"] > noisy["energy_d2"] > noisy["energy_d3"]


def test_spectral_worked_by_hand() -> None:
    """A flat grey level twice as high has four times the energy: 6.02 dB; no details at all."""
    flat = np.full((6, 3, 8, 8), 50, np.uint8)
    found = spectral_of(flat, 2 * flat, levels=1)
    assert found["energy_ll"] == pytest.approx(10 * np.log10(4), abs=1e-3)
    assert found["energy_d1"] == pytest.approx(0, abs=1e-6)


def test_an_image_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(UserError, match="divide by 8"):
        spectral_of(np.zeros((6, 3, 12, 12), np.uint8), np.zeros((6, 3, 12, 12), np.uint8))
