"""Stage 2: what each upsampler takes and gives, and what it refuses."""

import types

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from wavedp.data.toyworld import ToyWorld
from wavedp.dp import NonPrivatePlan, Trainer, UserError
from wavedp.nn.images import to_float
from wavedp.nn.imdn import IMDN
from wavedp.nn.reconstruction import Judge
from wavedp.nn.text import HashedText
from wavedp.wavelet.prior import SpectralPrior
from wavedp.wavelet.tokenizer import SpectralTokenizer
from wavedp.wavelet.training import PriorTraining
from wavedp.wavelet.transform import low_band
from wavedp.wavelet.upsamplers import Upsampler, check_factor
from wavedp.wavelet.upsamplers.continuation import Continuation
from wavedp.wavelet.upsamplers.detail import DetailNetwork, DetailTraining
from wavedp.wavelet.upsamplers.published import PublishedUpsampler


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    public = ToyWorld(resolution=32, cache_dir=str(tmp_path_factory.mktemp("c")))
    return public.records(0, 300)


def continuation():
    torch.manual_seed(0)
    sizes = {"codes": 2, "codebook_size": 16, "width": 16, "heads": 2}
    tokenizer = SpectralTokenizer(**sizes, code_width=4).eval()
    prior = SpectralPrior(**sizes, text_slots=2, text_width=8, depth=1)
    for parameter in prior.parameters():  # wide logits, so that the text matters
        parameter.data.mul_(4)
    return Continuation(tokenizer, prior, PriorTraining(HashedText(2, 8), batch=3), given_scales=2)


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_a_new_detail_network_repeats_pixels(levels):
    network = DetailNetwork(levels, width=8, depth=1)
    low = torch.rand(2, 3, 8, 8)
    expected = F.interpolate(low, scale_factor=2**levels)
    torch.testing.assert_close(network.upsample(low, ["", ""], 0), expected)
    assert isinstance(network, Upsampler)
    assert network.factor == 2**levels


@pytest.mark.parametrize("adversarial", [0.0, 0.05])
def test_training_brings_made_details_nearer_to_real_ones(world, adversarial):
    torch.manual_seed(0)
    network = DetailNetwork(1, width=16, depth=1)
    images = to_float(torch.tensor(world.images[:100]))
    low = low_band(images, 1)

    def error():
        with torch.no_grad():
            return float((network.upsample(low, [""] * 100, 0) - images).square().mean())

    before = error()
    seen = []

    def degrade(batch):
        seen.append(len(batch))
        return low_band(batch, 1)

    trainer = Trainer(NonPrivatePlan(32, 60), micro_batch=32, sampling_seed=0)
    DetailTraining(Judge(2e-3, adversarial=adversarial, absolute=0.2)).pretrain(
        network, degrade, world, trainer
    )
    assert error() < 0.9 * before
    assert len(seen) >= 60
    assert all(p.requires_grad for p in network.parameters())


def test_the_spectral_prior_continues_the_tokens_of_the_low_band():
    upsampler = continuation()
    low = torch.rand(5, 3, 16, 16) * 2 - 1
    made = upsampler.upsample(low, ["a red hat"] * 5, 3)
    assert made.shape == (5, 3, 32, 32)
    assert upsampler.factor == 2
    # What was given is decoded as it is: the average of each block stays.
    kept = upsampler.tokenizer.decode(upsampler.tokenizer.encode(low))
    torch.testing.assert_close(low_band(made, 1), kept)
    assert torch.equal(made, upsampler.upsample(low, ["a red hat"] * 5, 3))
    assert not torch.equal(made, upsampler.upsample(low, ["a red hat"] * 5, 4))
    assert not torch.equal(made, upsampler.upsample(low, ["two blue dogs"] * 5, 3))


@pytest.mark.parametrize("made", [2, 4])
def test_published_weights_are_recognised_and_averaged_down_to_the_factor(tmp_path, made):
    torch.manual_seed(0)
    network = IMDN(made)
    save_file(network.state_dict(), tmp_path / "sr.safetensors")
    upsampler = PublishedUpsampler(str(tmp_path / "sr.safetensors"), factor=2)
    low = torch.rand(3, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        expected = network((low + 1) / 2).clamp(0, 1) * 2 - 1
    found = upsampler.upsample(low, [""] * 3, 0)
    torch.testing.assert_close(found, F.avg_pool2d(expected, made // 2))
    assert not upsampler.state_dict()  # the weights stay in their own file


def test_what_spandrel_knows_is_read_by_it(tmp_path):
    compact = pytest.importorskip("spandrel.architectures.Compact.__arch.SRVGG")
    torch.manual_seed(0)
    network = compact.SRVGGNetCompact(num_feat=8, num_conv=2, upscale=2)
    torch.save({"params_ema": network.state_dict()}, tmp_path / "compact.pth")
    upsampler = PublishedUpsampler(str(tmp_path / "compact.pth"), factor=2)
    low = torch.rand(2, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        expected = network((low + 1) / 2).clamp(0, 1) * 2 - 1
    torch.testing.assert_close(upsampler.upsample(low, [""] * 2, 0), expected)


class Evil:
    def __reduce__(self):
        return (open, ("evil-ran", "w"))


def test_weights_that_cannot_be_used_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no weights at .*none\.pth"):
        PublishedUpsampler("none.pth", 2)
    torch.save({"weights": Evil()}, "evil.pth")
    with pytest.raises(UserError, match=r"evil\.pth cannot be read"):
        PublishedUpsampler("evil.pth", 2)
    assert not (tmp_path / "evil-ran").exists()
    (tmp_path / "torn.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    with pytest.raises(UserError, match=r"torn\.safetensors cannot be read"):
        PublishedUpsampler("torn.safetensors", 2)
    state = IMDN(2).state_dict()
    save_file(state, "two.safetensors")
    with pytest.raises(UserError, match="enlarges 2 times and 4 times are asked for"):
        PublishedUpsampler("two.safetensors", 4)
    del state["IMDB3.c5.weight"]
    save_file(state, "part.safetensors")
    with pytest.raises(UserError, match=r"not the weights of an IMDN.*IMDB3\.c5\.weight"):
        PublishedUpsampler("part.safetensors", 2)
    torch.save({"a": torch.zeros(3)}, "other.pth")
    with pytest.raises(UserError, match="no architecture"):
        PublishedUpsampler("other.pth", 2)


def test_a_wrong_factor_is_refused():
    check_factor(DetailNetwork(2), 8, 32)
    with pytest.raises(UserError, match=r"16 px into 64 px, not into the 32 px.*factor 2"):
        check_factor(DetailNetwork(2), 16, 32)


def test_the_diffusion_upsampler_says_what_is_missing(monkeypatch, tmp_path):
    pytest.importorskip("diffusers")
    from wavedp.wavelet.upsamplers.diffusion import DiffusionUpsampler

    with pytest.raises(UserError, match="not on this machine"):
        DiffusionUpsampler(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"noise_level=400 must lie in 0\.\.350"):
        DiffusionUpsampler(noise_level=400)


class Pipeline:
    """Stands in for a pipeline of diffusers: four times larger, with what it was given noted."""

    def __init__(self):
        self.calls = []

    @classmethod
    def from_pretrained(cls, model, **settings):
        assert settings["local_files_only"]
        return cls()

    def set_progress_bar_config(self, **settings):
        assert settings == {"disable": True}

    def to(self, device):
        return self

    def tokenizer(self, prompt):
        return types.SimpleNamespace(input_ids=[0, *prompt.split(), 1])

    def __call__(self, prompt, image, generator, **settings):
        self.calls.append((prompt, image, settings))
        noise = 0.01 * torch.rand(image.shape[0], 1, 1, 1, generator=generator)
        images = F.interpolate(image, scale_factor=4) + noise
        return types.SimpleNamespace(images=images)


def test_the_diffusion_pipeline_is_called_in_batches_with_its_own_range(monkeypatch):
    diffusers = pytest.importorskip("diffusers")
    from wavedp.wavelet.upsamplers.diffusion import DiffusionUpsampler

    Pipeline.tokenizer.model_max_length = 5
    monkeypatch.setattr(diffusers, "StableDiffusionUpscalePipeline", Pipeline, raising=False)
    upsampler = DiffusionUpsampler("folder", steps=3, guidance=2.0, noise_level=7, batch=2)
    low = torch.rand(5, 3, 4, 4) * 2 - 1
    captions = [f"caption {i}" for i in range(5)]
    made = upsampler.upsample(low, captions, 0)
    assert made.shape == (5, 3, 16, 16)
    torch.testing.assert_close(F.avg_pool2d(made, 4), low, atol=0.02, rtol=0)
    calls = upsampler._pipeline.calls
    assert [prompt for given, _, _ in calls for prompt in given] == captions
    assert [len(image) for _, image, _ in calls] == [2, 2, 1]
    assert all(0 <= image.min() <= image.max() <= 1 for _, image, _ in calls)
    expected = {"num_inference_steps": 3, "guidance_scale": 2.0, "noise_level": 7}
    assert all({**expected, "output_type": "pt"} == settings for _, _, settings in calls)
    assert torch.equal(made, upsampler.upsample(low, captions, 0))
    assert not torch.equal(made, upsampler.upsample(low, captions, 1))
    upsampler.check(["one two three"])
    with pytest.raises(UserError, match="Prompt 2 is longer than the 5 tokens"):
        upsampler.check(["one two", "one two three four"])


def test_details_can_begin_as_those_of_bicubic_interpolation():
    """With the low band as it was given, and untrained that is all."""
    torch.manual_seed(0)
    low = torch.rand(2, 3, 8, 8) * 2 - 1
    plain, smooth = DetailNetwork(levels=1), DetailNetwork(levels=1, interpolated=True)
    assert torch.equal(plain(low), F.interpolate(low, scale_factor=2))
    made = smooth(low)
    torch.testing.assert_close(F.avg_pool2d(made, 2), low)
    bicubic = F.interpolate(low, scale_factor=2, mode="bicubic")
    blocks = [F.interpolate(F.avg_pool2d(x, 2), scale_factor=2) for x in (made, bicubic)]
    torch.testing.assert_close(made - blocks[0], bicubic - blocks[1])
