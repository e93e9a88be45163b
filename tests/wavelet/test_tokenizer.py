"""Tokens: round trips, partial decoding, and what the encoder does not look at."""

import pytest
import torch
import torch.nn.functional as F

from wavedp.dp import UserError
from wavedp.wavelet.tokenizer import SpectralTokenizer, kmeans, nearest
from wavedp.wavelet.transform import decompose, reconstruct


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    made = SpectralTokenizer(codes=2, codebook_size=64, width=8)
    images = F.interpolate(torch.rand(60, 3, 8, 8) * 2 - 1, 32, mode="bilinear")
    made.fit_codebooks(images, iterations=5)
    return made.eval()


@torch.no_grad()
def test_decoding_what_was_encoded_is_nearer_with_more_scales(tokenizer):
    images = F.interpolate(torch.rand(20, 3, 8, 8) * 2 - 1, 32, mode="bilinear")
    tokens = tokenizer.encode(images)
    assert tokens.shape == (20, 48, 2)
    errors = []
    for scales in (1, 2, 3):
        decoded = tokenizer.decode(tokens[:, : 16 * scales])
        assert decoded.shape[-1] == 32 >> (3 - scales)
        grown = F.interpolate(decoded, 32, mode="nearest")
        errors.append((grown - images).square().mean().item())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < images.var().item() / 2


@torch.no_grad()
def test_decoding_adds_up_the_codebook_entries_of_each_patch(tokenizer):
    """Patch (0, 0) of the LL band by hand: two codes, pixel-shuffled from 12 numbers to 2x2x3."""
    tokens = torch.zeros(1, 16, 2, dtype=torch.int64)
    tokens[0, 0] = torch.tensor([3, 5])
    books = tokenizer.codebooks(0)
    patch = (books[0, 3] + books[1, 5]).view(3, 2, 2)
    # The mending networks start as the identity; an LL of two levels is four times the mean.
    decoded = tokenizer.decode(tokens)
    torch.testing.assert_close(decoded[0, :, :2, :2], patch / 4, atol=1e-5, rtol=0)


@torch.no_grad()
def test_each_code_brings_the_patch_nearer(tokenizer):
    images = F.interpolate(torch.rand(20, 3, 8, 8) * 2 - 1, 32, mode="bilinear")
    patches, tokens = tokenizer.patches(images)[0], tokenizer.encode(images, 1)
    books = tokenizer.codebooks(0)
    one = patches - books[0][tokens[..., 0]]
    two = one - books[1][tokens[..., 1]]
    assert patches.square().sum() > one.square().sum() > two.square().sum()


@torch.no_grad()
def test_low_scales_do_not_depend_on_detail_bands(tokenizer):
    images = torch.rand(5, 3, 32, 32) * 2 - 1
    scales = decompose(images, 2)
    other = reconstruct([scales[0], scales[1], torch.randn_like(scales[2])])
    assert torch.equal(tokenizer.encode(images, 2), tokenizer.encode(other, 2))
    assert not torch.equal(tokenizer.encode(images), tokenizer.encode(other))


def test_wrong_tokens_are_refused(tokenizer):
    with pytest.raises(UserError, match="16 tokens of 2 codes"):
        tokenizer.decode(torch.zeros(1, 17, 2, dtype=torch.int64))
    with pytest.raises(UserError, match="16 tokens of 2 codes"):
        tokenizer.decode(torch.zeros(1, 16, 3, dtype=torch.int64))
    with pytest.raises(UserError, match=r"0\.\.63"):
        tokenizer.decode(torch.full((1, 16, 2), 64))
    with pytest.raises(UserError, match="divide"):
        SpectralTokenizer(resolution=32, levels=2, grid=3)


def test_kmeans_ends_where_every_centre_is_the_mean_of_its_rows():
    rows = torch.randn(300, 2, generator=_seeded())
    found = kmeans(rows, 5, 100, _seeded())
    assigned = nearest(rows, found)
    for cluster in range(5):
        torch.testing.assert_close(found[cluster], rows[assigned == cluster].mean(0))
    start = rows[torch.randperm(300, generator=_seeded())[:5]]
    assert _error(rows, found) < 0.9 * _error(rows, start)


def test_kmeans_leaves_no_entry_unused_on_many_equal_rows():
    rows = torch.cat([torch.zeros(500, 2), torch.randn(20, 2, generator=_seeded())])
    found = kmeans(rows, 8, 30, _seeded())
    assert nearest(rows, found).unique().numel() >= 7


def _error(rows, centres):
    return (rows - centres[nearest(rows, centres)]).square().sum()


def test_kmeans_needs_enough_rows():
    with pytest.raises(UserError, match="at least"):
        kmeans(torch.zeros(3, 2), 4, 1, _seeded())


def _seeded():
    return torch.Generator().manual_seed(0)
