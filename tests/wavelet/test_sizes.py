"""Configs beyond the embedded size: parameter counts of the paper, and chains that fit."""

import pytest
import torch

from benchmarks.config import compose, make
from wavedp.wavelet.training import check_together
from wavedp.wavelet.upsamplers.diffusion import DiffusionUpsampler


def method(name, *overrides):
    return compose([f"method={name}", *overrides]).method


def on_meta(config):
    with torch.device("meta"):
        return make(config)


@pytest.mark.parametrize(("size", "millions"), [("350m", 350), ("650m", 650)])
def test_priors_of_the_paper_have_its_parameters(size, millions):
    config = method("paper/dp_wavelet", f"parts/prior@method={size}").generator
    prior = on_meta(config.prior)
    count = sum(p.numel() for p in prior.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.02)


def test_the_tokenizer_of_the_paper_has_four_scales_of_256_tokens():
    """SIT-4: 1024 tokens, two codebooks of 8192, 8 and 32 blocks of width 1280."""
    tokenizer = on_meta(method("paper/dp_wavelet").generator.tokenizer)
    assert tokenizer.scales * tokenizer.tokens_per_scale == 1024
    assert [tokenizer.side(s) for s in range(1, 5)] == [32, 64, 128, 256]
    assert [tuple(book.codebooks.shape) for book in tokenizer.codebooks] == [(1, 8192, 32)] * 2
    assert (len(tokenizer.encoder.blocks), len(tokenizer.decoder.blocks)) == (8, 32)


@pytest.mark.parametrize("text", ["hashed", "t5", "clip"])
def test_a_prior_takes_what_its_text_encoder_gives(text):
    config = method("paper/dp_wavelet", f"parts/text@method={text}").generator
    widths = {"hashed": (4, 96), "t5": (120, 2048), "clip": (77, 768)}
    assert (config.prior.text_slots, config.prior.text_width) == widths[text]


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("px64/dp_wavelet_quarter", 16, 64),
        ("px64/dp_wavelet", 32, 64),
        ("paper/dp_wavelet_ll32", 32, 256),
        ("paper/dp_wavelet", 64, 256),
    ],
)
def test_every_chain_leads_from_its_low_band_to_the_image(name, low, high):
    config = method(name).generator
    tokenizer = on_meta(config.tokenizer)
    if config.upsampler["_target_"].endswith("DiffusionUpsampler"):
        factor = DiffusionUpsampler.factor
    elif "levels" in config.upsampler:
        factor = 2**config.upsampler.levels
    else:
        factor = 2 ** (tokenizer.scales - config.upsampler.given_scales)
    assert tokenizer.side(config.private_scales) == low
    assert low * factor == tokenizer.resolution == high


def test_the_parts_at_64_px_fit_each_other():
    config = method("px64/dp_wavelet").generator
    check_together(make(config.prior), make(config.tokenizer), make(config.training.text))
