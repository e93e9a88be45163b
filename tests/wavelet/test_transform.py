"""The transform against PyWavelets, and its own properties."""

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wavedp.dp import UserError
from wavedp.wavelet.transform import (
    check_divisible,
    decompose,
    energies,
    low_band,
    pack,
    reconstruct,
    unpack,
)

WAVELETS = ["haar", "db2", "db4", "sym4", "coif1", "bior2.2"]
ORTHOGONAL = WAVELETS[:-1]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
"""Of coefficients, relative to the largest: a level of the approximation doubles its values."""


@pytest.mark.filterwarnings("ignore:Level value")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("wavelet", WAVELETS)
@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(32, 48), (37, 32), (45, 51)])
@pytest.mark.parametrize("border", ["periodization", "symmetric"])
def test_agrees_with_pywavelets_both_ways(wavelet, levels, size, border, dtype):
    images = torch.randn(2, 3, *size, dtype=dtype, generator=_seeded(0))
    scales = decompose(images, levels, wavelet, border)
    expected = pywt.wavedec2(images.double().numpy(), wavelet, border, levels)
    flat = [expected[0], *(np.concatenate(details, axis=1) for details in expected[1:])]
    bound = TOLERANCE[dtype] * max(np.abs(part).max() for part in flat)
    for scale, part in zip(scales, flat, strict=True):
        assert scale.dtype == dtype
        np.testing.assert_allclose(scale.numpy(), part, rtol=0, atol=bound)
    back = reconstruct(scales, wavelet, border, size).numpy()
    other = pywt.waverec2(expected, wavelet, border)[..., : size[0], : size[1]]
    np.testing.assert_allclose(back, other, rtol=0, atol=bound)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 9999),
    levels=st.integers(0, 4),
    height=st.integers(16, 40),
    width=st.integers(16, 40),
    wavelet=st.sampled_from(WAVELETS),
    border=st.sampled_from(pywt.Modes.modes),
)
def test_perfect_reconstruction(seed, levels, height, width, wavelet, border):
    images = torch.randn(2, 1, height, width, dtype=torch.float64, generator=_seeded(seed))
    scales = decompose(images, levels, wavelet, border)
    torch.testing.assert_close(reconstruct(scales, wavelet, border, (height, width)), images)


@pytest.mark.parametrize("wavelet", ORTHOGONAL)
@pytest.mark.parametrize("levels", [0, 1, 3])
def test_the_transform_is_orthonormal(wavelet, levels):
    images = torch.randn(3, 3, 16, 32, dtype=torch.float64, generator=_seeded(1))
    scales = decompose(images, levels, wavelet)
    assert sum(scale.numel() for scale in scales) == images.numel()
    torch.testing.assert_close(energies(scales).sum(1), images.square().sum((1, 2, 3)))
    other = torch.randn(images.shape, dtype=torch.float64, generator=_seeded(2))
    products = [
        (a * b).sum() for a, b in zip(scales, decompose(other, levels, wavelet), strict=True)
    ]
    torch.testing.assert_close(sum(products), (images * other).sum())


def test_energies_are_told_apart_by_band():
    """An image that changes along columns only has all its detail in V (HL)."""
    stripes = torch.tensor([1.0, -1.0]).repeat(4).expand(1, 1, 8, 8)
    assert energies(decompose(stripes, 1)).tolist() == [[0.0, 0.0, 64.0, 0.0]]
    assert energies(decompose(stripes.mT, 1)).tolist() == [[0.0, 64.0, 0.0, 0.0]]


def test_hand_worked_example():
    """[[1, 2], [3, 4]]: LL = 10/2, horizontal = (1+2-3-4)/2, vertical = (1-2+3-4)/2."""
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    low, details = decompose(image, 1)
    assert low.flatten().tolist() == [5.0]
    assert details.flatten().tolist() == [-2.0, -1.0, 0.0]


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_pack_is_the_layout_of_pywavelets_and_unpack_its_inverse(levels):
    images = torch.randn(1, 1, 16, 24, dtype=torch.float64, generator=_seeded(3))
    scales = decompose(images, levels)
    packed = pack(scales)
    coefficients = pywt.wavedec2(images[0, 0].numpy(), "haar", "periodization", levels)
    expected, _ = pywt.coeffs_to_array(coefficients)
    np.testing.assert_allclose(packed[0, 0].numpy(), expected, atol=1e-12)
    for scale, part in zip(scales, unpack(packed, levels), strict=True):
        assert torch.equal(scale, part)


def test_the_direct_haar_path_is_the_matrix_one():
    images = torch.randn(2, 3, 12, 20, dtype=torch.float64, generator=_seeded(4))
    direct, general = decompose(images, 2, "haar"), decompose(images, 2, "db1")
    for one, other in zip(direct, general, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(reconstruct(direct, "haar"), reconstruct(general, "db1"))


@pytest.mark.parametrize("wavelet", ["haar", "bior2.2"])
def test_gradients_pass_both_ways(wavelet):
    images = torch.randn(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: decompose(x, 2, wavelet), (images,))
    scales = [s.detach().requires_grad_() for s in decompose(images, 2, wavelet)]
    assert torch.autograd.gradcheck(lambda *s: reconstruct(s, wavelet), scales)


def test_the_low_band_is_the_block_average():
    images = torch.rand(2, 3, 16, 16, generator=_seeded(5))
    expected = torch.nn.functional.avg_pool2d(images, 4)
    torch.testing.assert_close(low_band(images, 2), expected)


def test_the_first_scales_alone_give_the_low_band_there():
    images = torch.rand(2, 3, 16, 16, generator=_seeded(6))
    scales = decompose(images, 3)
    torch.testing.assert_close(reconstruct(scales[:2]) / 4, low_band(images, 2))


def test_what_cannot_be_transformed_is_refused():
    with pytest.raises(UserError, match="divide by 8"):
        check_divisible(32, 20, 3)
    with pytest.raises(UserError, match="Unknown wavelet 'db99'"):
        decompose(torch.zeros(1, 1, 8, 8), 1, "db99")
    with pytest.raises(UserError, match="Unknown border 'mirror'"):
        decompose(torch.zeros(1, 1, 8, 8), 1, "db2", "mirror")


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_bfloat16_is_put_together_as_float32_is():
    images = torch.rand(2, 3, 16, 16)
    scales = decompose(images, 2)
    made = reconstruct([scale.bfloat16() for scale in scales])
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.float(), images, atol=0.05, rtol=0)


def test_gradients_of_the_direct_haar_path_are_those_of_finite_differences():
    images = torch.rand(2, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: tuple(decompose(x, 1)), images)
    scales = [s.detach().requires_grad_() for s in decompose(images, 1)]
    assert torch.autograd.gradcheck(lambda *s: reconstruct(s), scales)
