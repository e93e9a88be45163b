"""Tokens: round trips, partial images, and what the scales do not look at."""

import pytest
import torch
import torch.nn.functional as F

from wavedp.dp import UserError
from wavedp.wavelet.tokenizer import SpectralTokenizer
from wavedp.wavelet.transform import decompose, reconstruct

SIZES = {
    "codes": 2,
    "codebook_size": 64,
    "code_width": 8,
    "width": 32,
    "heads": 2,
    "encoder_depth": 2,
    "decoder_depth": 2,
}


def make(**changes):
    torch.manual_seed(0)
    made = SpectralTokenizer(**(SIZES | changes))
    for parameter in made.parameters():  # wide activations, so that everything matters
        parameter.data.mul_(2)
    made.fit_codebooks(smooth(200))
    return made.eval()


def smooth(n):
    return F.interpolate(torch.rand(n, 3, 8, 8) * 2 - 1, 32, mode="bilinear")


@pytest.fixture(scope="module")
def tokenizer():
    return make()


@torch.no_grad()
def test_forward_is_encoding_and_decoding_at_every_resolution(tokenizer):
    images = smooth(6)
    tokens = tokenizer.encode(images)
    assert tokens.shape == (6, 48, 2)
    assert tokens.unique().numel() > 20
    made, commitment = tokenizer(images)
    assert commitment.shape == (6,)
    for scales, image in enumerate(made, 1):
        assert image.shape == (6, 3, 32 >> (3 - scales), 32 >> (3 - scales))
        torch.testing.assert_close(image, tokenizer.decode(tokens[:, : 16 * scales]))


@torch.no_grad()
@pytest.mark.parametrize("scales", [1, 2])
def test_finer_inputs_never_change_coarser_tokens(tokenizer, scales):
    images = torch.rand(5, 3, 32, 32) * 2 - 1
    bands = decompose(images, 2)
    other = reconstruct([*bands[:scales], *(torch.randn_like(b) for b in bands[scales:])])
    first, second = tokenizer.encode(images), tokenizer.encode(other)
    assert torch.equal(first[:, : 16 * scales], second[:, : 16 * scales])
    assert not torch.equal(first, second)
    assert torch.equal(tokenizer.encode(other, scales), first[:, : 16 * scales])


@torch.no_grad()
@pytest.mark.parametrize("scales", [1, 2])
def test_a_smaller_image_has_the_tokens_of_the_larger_one(tokenizer, scales):
    images = torch.rand(5, 3, 32, 32) * 2 - 1
    small = F.avg_pool2d(images, 2 ** (3 - scales))
    assert torch.equal(tokenizer.encode(small), tokenizer.encode(images)[:, : 16 * scales])


@torch.no_grad()
def test_decoding_the_first_scales_is_the_low_band_of_decoding_all(tokenizer):
    """Finer bands cannot change the average of a block, so the whole image has it, too."""
    tokens = tokenizer.encode(torch.rand(4, 3, 32, 32) * 2 - 1)
    whole = tokenizer.decode(tokens)
    for scales in (1, 2):
        part = tokenizer.decode(tokens[:, : 16 * scales])
        torch.testing.assert_close(F.avg_pool2d(whole, 2 ** (3 - scales)), part)


@torch.no_grad()
def test_without_scale_causal_attention_finer_inputs_do_change_coarser_tokens():
    """So the tests above can fail, and partial images are refused."""
    free = make(causal_encoder=False, causal_decoder=False)
    images = torch.rand(20, 3, 32, 32) * 2 - 1
    bands = decompose(images, 2)
    other = reconstruct([bands[0], *(torch.randn_like(b) for b in bands[1:])])
    assert not torch.equal(free.encode(images)[:, :16], free.encode(other)[:, :16])
    tokens = free.encode(images)
    changed = torch.cat([tokens[:, :16], (tokens[:, 16:] + 1) % 64], dim=1)
    low = [F.avg_pool2d(free.decode(t), 4) for t in (tokens, changed)]
    assert not torch.allclose(*low, atol=1e-4)
    with pytest.raises(UserError, match="causal_encoder=true"):
        free.encode(images, 2)
    with pytest.raises(UserError, match="causal_decoder=true"):
        free.decode(tokens[:, :16])


@torch.no_grad()
def test_approximation_and_details_have_their_own_codebooks(tokenizer):
    images = smooth(4)
    tokens = tokenizer.encode(images)
    before = tokenizer.decode(tokens)
    kept = tokenizer.codebooks[1].codebooks.clone()
    tokenizer.codebooks[1].codebooks.zero_()
    low, whole = tokenizer.decode(tokens[:, :16]), tokenizer.decode(tokens)
    tokenizer.codebooks[1].codebooks.copy_(kept)
    torch.testing.assert_close(low, F.avg_pool2d(before, 4))
    assert not torch.allclose(whole, before, atol=1e-3)


def test_training_learns_to_reconstruct_and_moves_the_codebooks():
    torch.manual_seed(0)
    learner = SpectralTokenizer(**SIZES).train()
    images = smooth(64)
    learner.fit_codebooks(images)
    before = learner.codebooks[0].codebooks.clone()
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    errors = []
    for _ in range(60):
        made, commitment = learner(images)
        error = (made[-1] - images).square().mean()
        optimizer.zero_grad()
        (error + 0.25 * commitment.mean()).backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.5 * errors[0]
    assert not torch.equal(before, learner.codebooks[0].codebooks)


def test_encoding_moves_no_codebook_even_in_training_mode():
    learner = make().train()
    before = {name: value.clone() for name, value in learner.named_buffers()}
    learner.encode(smooth(50))
    assert all(torch.equal(value, before[name]) for name, value in learner.named_buffers())
    learner(smooth(50))
    assert any(not torch.equal(value, before[name]) for name, value in learner.named_buffers())


def test_wrong_input_is_refused(tokenizer):
    with pytest.raises(UserError, match="16 tokens of 2 codes"):
        tokenizer.decode(torch.zeros(1, 17, 2, dtype=torch.int64))
    with pytest.raises(UserError, match="16 tokens of 2 codes"):
        tokenizer.decode(torch.zeros(1, 16, 3, dtype=torch.int64))
    with pytest.raises(UserError, match=r"0\.\.63"):
        tokenizer.decode(torch.full((1, 16, 2), 64))
    with pytest.raises(UserError, match=r"0\.\.63"):
        tokenizer.decode(torch.full((1, 16, 2), -1))
    with pytest.raises(UserError, match="8, 16, 32 px, got 24x24"):
        tokenizer.encode(torch.zeros(1, 3, 24, 24))
    with pytest.raises(UserError, match="divide by 8"):
        SpectralTokenizer(resolution=36, levels=3)
    with pytest.raises(UserError, match="grid"):
        SpectralTokenizer(resolution=32, levels=2, grid=3)
