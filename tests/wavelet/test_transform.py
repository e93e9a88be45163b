"""The transform against PyWavelets, and its own properties."""

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wavedp.dp import UserError
from wavedp.wavelet.transform import decompose, low_band, reconstruct


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior2.2"])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_agrees_with_pywavelets(wavelet, levels, dtype):
    images = torch.randn(2, 3, 32, 16, dtype=dtype)
    scales = decompose(images, levels, wavelet)
    expected = pywt.wavedec2(images.numpy(), wavelet, mode="zero", level=levels)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    np.testing.assert_allclose(scales[0].numpy(), expected[0], atol=tolerance)
    for scale, details in zip(scales[1:], expected[1:], strict=True):
        np.testing.assert_allclose(scale.numpy(), np.concatenate(details, axis=1), atol=tolerance)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), levels=st.integers(0, 4), n=st.integers(1, 3))
def test_perfect_reconstruction_and_energy(seed, levels, n):
    images = torch.randn(n, 3, 16, 32, dtype=torch.float64, generator=_seeded(seed))
    scales = decompose(images, levels)
    torch.testing.assert_close(reconstruct(scales), images)
    energy = sum(scale.square().sum() for scale in scales)
    torch.testing.assert_close(energy, images.square().sum())


def test_hand_worked_example():
    """[[1, 2], [3, 4]]: LL = 10/2, horizontal = (1+2-3-4)/2, vertical = (1-2+3-4)/2."""
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    low, details = decompose(image, 1)
    assert low.flatten().tolist() == pytest.approx([5.0])
    assert details.flatten().tolist() == pytest.approx([-2.0, -1.0, 0.0], abs=1e-6)


def test_the_low_band_is_the_block_average():
    images = torch.rand(2, 3, 16, 16)
    expected = torch.nn.functional.avg_pool2d(images, 4)
    torch.testing.assert_close(low_band(images, 2), expected)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match="divide by 8"):
        decompose(torch.zeros(1, 3, 32, 20), 3)


def _seeded(seed):
    return torch.Generator().manual_seed(seed)
