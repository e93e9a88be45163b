"""DP-Wavelet's own promise: the detail bands of private images never matter."""

import numpy as np
import pytest
import torch

from benchmarks.cell import make_generator, seed_everything
from benchmarks.config import cells, make
from wavedp.data.toyfaces import ToyFaces
from wavedp.dp import DPPlan, Ledger, PrivateRecords, Trainer, UserError
from wavedp.wavelet.generator import DPWavelet
from wavedp.wavelet.upsamplers.continuation import Continuation


def released(images, captions, folder, *overrides, noise_seed=1):
    """Weights and samples after finetuning with fixed noise."""
    seed_everything(0)
    generator = make_generator(cells(["method=dp_wavelet", "dataset=toyfaces", *overrides])[0])
    plan = DPPlan.calibrate(
        epsilon=5, delta=1e-5, records=len(images), expected_batch=16, steps=2, clip=1.0
    )
    ledger = Ledger(folder / f"{len(list(folder.iterdir()))}.jsonl", plan.budget)
    trainer = Trainer(plan, ledger=ledger, micro_batch=16, noise_seed=noise_seed, sampling_seed=2)
    private = PrivateRecords(
        {"images": images, "captions": captions}, name="toy", records=len(images)
    )
    generator.finetune(private, trainer)
    drawn = torch.cat(list(generator.generate(["a person with red hair"] * 3, 0)))
    return generator.state_dict(), drawn


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    toy = ToyFaces(
        private_records=8, evaluation_records=40, cache_dir=str(tmp_path_factory.mktemp("c"))
    )
    return toy.evaluation()


def with_other_details(images):
    """The same averages of 2x2 blocks, hence the same LL band, and different details."""
    changed = images.astype(np.int16)
    step = np.minimum(changed[..., ::2, ::2], 255 - changed[..., ::2, 1::2]).clip(0, 40)
    changed[..., ::2, ::2] -= step
    changed[..., ::2, 1::2] += step
    return changed.astype(np.uint8)


def test_only_the_low_band_of_private_images_matters(faces, tmp_path):
    images, captions = np.array(faces.images), list(faces.captions)
    other = with_other_details(images)
    assert np.abs(images.astype(int) - other).mean() > 2
    (weights, drawn), (weights2, drawn2) = (
        released(x, captions, tmp_path) for x in (images, other)
    )
    assert torch.equal(drawn, drawn2)
    assert all(torch.equal(weights[k], weights2[k]) for k in weights)
    # The test can fail: other low bands do give other weights.
    weights3, _ = released(255 - images, captions, tmp_path)
    assert any(not torch.equal(weights[k], weights3[k]) for k in weights)


def test_adapters_move_the_blocks_of_the_prior_alone(faces, tmp_path):
    images, captions = np.array(faces.images), list(faces.captions)
    before = make_generator(cells(["method=dp_wavelet", "dataset=toyfaces"])[0]).state_dict()
    after, _ = released(images, captions, tmp_path, "+method.generator.training.lora_rank=2")
    assert after.keys() == before.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(moved) == 3 * 4
    assert all(name.startswith("prior.transformer.blocks.") for name in moved)
    assert {name.split(".")[-2] for name in moved} == {"qkv", "out", "up", "down"}


def test_the_public_prior_can_be_the_upsampler():
    """Its weights are files of the same name, and finetuning the other prior leaves it alone."""
    seed_everything(0)
    generator = make_generator(cells(["method=dp_wavelet_continuation"])[0])
    generator.check(["a person"])
    assert set(generator.stages) == {"tokenizer", "prior"}
    weights = generator.state_dict()
    assert torch.equal(weights["upsampler.prior.text.weight"], weights["prior.text.weight"])
    low = next(generator.generate_low(["a person with red hair"] * 2, 0))
    drawn = torch.cat(list(generator.generate(["a person with red hair"] * 2, 0)))
    assert drawn.shape == (2, 3, 32, 32)
    averages = torch.nn.functional.avg_pool2d(drawn.float(), 2)
    # The upsampler reads the low band as tokens, so it is kept up to their error.
    assert (averages / 127.5 - 1 - low).abs().mean() < 0.1


def test_scales_that_there_are_not_are_refused():
    with pytest.raises(UserError, match=r"private_scales=4 must lie in 1\.\.3"):
        make_generator(cells(["method=dp_wavelet", "method.generator.private_scales=4"])[0])


def test_a_wrong_upsampling_factor_is_refused():
    with pytest.raises(UserError, match="factor 4 or set private_scales"):
        make_generator(cells(["method=dp_wavelet", "method.generator.private_scales=1"])[0])


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_tokenizer_of_whole_images_has_no_low_band_to_train(part):
    setting = f"+method.generator.tokenizer.causal_{part}=false"
    with pytest.raises(UserError, match=f"{part} is not scale-causal.*causal_{part}=true"):
        make_generator(cells(["method=dp_wavelet", setting])[0])


def test_an_upsampler_that_shares_the_private_prior_is_refused():
    config = cells(["method=dp_wavelet_continuation"])[0].config.method.generator
    made = make(config)
    shared = Continuation(made.tokenizer, made.prior, made._training, 2)
    with pytest.raises(UserError, match="shares weights with the prior"):
        DPWavelet(made.tokenizer, made.prior, shared, made._tokenizer_training, made._training)


def test_an_upsampler_for_another_size_is_refused():
    """64 px parts behind a 32 px prior: the factor fits, the sizes do not."""
    made = make(cells(["method=dp_wavelet"])[0].config.method.generator)
    other = make(cells(["method=px64/dp_wavelet"])[0].config.method.generator)
    upsampler = Continuation(other.tokenizer, other.prior, other._training, 2)
    with pytest.raises(UserError, match="takes images of 32 px and the low band has 16 px"):
        DPWavelet(made.tokenizer, made.prior, upsampler, made._tokenizer_training, made._training)
