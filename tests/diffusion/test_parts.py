"""Autoencoders and denoisers in the size of the embedded data."""

import pytest
import torch

from baselines.dp_ldm import DPLDM
from baselines.dp_pixel_diffusion import DPPixelDiffusion
from benchmarks.cell import make_generator
from benchmarks.config import cells, compose, make
from wavedp.data.schema import Records
from wavedp.diffusion.autoencoder import Pixels, VQAutoencoder
from wavedp.diffusion.denoiser import small_denoiser
from wavedp.diffusion.process import DDPM, EDM
from wavedp.diffusion.training import DiffusionTraining
from wavedp.dp import DPPlan, Ledger, NonPrivatePlan, PrivateRecords, Trainer, UserError
from wavedp.nn import tiny_autoencoder
from wavedp.nn.raster import RasterTokenizer
from wavedp.nn.text import HashedText
from wavedp.nn.tiny_autoencoder import _decoder, _encoder

CAPTIONS = ["a red disc", "a blue disc"]
HIGH = EDM(log_mean=0.5)
"""Most noise levels are such that a colour is not to be seen without the caption."""


def discs(count):
    """Flat images, red and blue in turn, with captions that say so."""
    images = torch.full((count, 3, 16, 16), 40, dtype=torch.uint8)
    images[0::2, 0], images[1::2, 2] = 220, 220
    return Records(images.numpy(), [(CAPTIONS[i % 2],) for i in range(count)], "discs")


def autoencoder():
    tokenizer = RasterTokenizer(16, halvings=1, codes=2, codebook_size=8, code_width=4, width=8)
    return VQAutoencoder(tokenizer).eval()


def training(**settings):
    given = {"process": EDM(), "text": HashedText(2, 8), "steps": 5, "batch": 64}
    return DiffusionTraining(**given | settings)


def denoiser(**settings):
    given = {"side": 8, "channels": 4, "text_width": 8, "widths": (16, 16), "cross_width": 16}
    return small_denoiser(**given | settings)


def test_latents_that_come_back_unchanged_are_decoded_as_the_tokens_of_the_image():
    torch.manual_seed(0)
    coder, images = autoencoder(), torch.rand(3, 3, 16, 16) * 2 - 1
    latents = coder.encode(images)
    assert latents.shape == (3, coder.channels, coder.side, coder.side) == (3, 4, 8, 8)
    tokens = coder.tokenizer.encode(images)
    assert torch.equal(coder.decode(latents), coder.tokenizer.decode(tokens))


def test_the_axes_of_the_codes_hold_what_the_decoder_can_tell_apart():
    """Codes that lie in a plane: two channels decode as all four do, whatever lies across it."""
    torch.manual_seed(0)
    coder, images = autoencoder(), torch.rand(3, 3, 16, 16) * 2 - 1
    plane = torch.linalg.qr(torch.randn(4, 2)).Q
    with torch.no_grad():
        coder.tokenizer.codebook.codebooks.copy_(
            coder.tokenizer.codebook.codebooks @ plane @ plane.T
        )
    flat = VQAutoencoder(coder.tokenizer, channels=2).eval()
    latents = flat.encode(images)
    assert latents.shape == (3, 2, 8, 8)
    assert torch.equal(flat.decode(latents), coder.decode(coder.encode(images)))


@pytest.mark.parametrize("channels", [0, 5])
def test_an_autoencoder_has_no_more_channels_than_a_code_has_numbers(channels):
    with pytest.raises(UserError, match=f"autoencoder.channels={channels} must lie in 1..4"):
        VQAutoencoder(autoencoder().tokenizer, channels=channels)


def test_a_denoiser_sees_public_latents_of_mean_0_and_deviation_1():
    """And what it draws is brought back: a channel far from there does not change anything."""
    torch.manual_seed(0)
    network = denoiser(channels=4)
    latents = 3 + 5 * torch.randn(200, 4, 8, 8) * torch.arange(1, 5).view(4, 1, 1)
    network.standardise(latents)
    seen = (latents - network.shift) / network.scale
    channels = seen.transpose(0, 1).flatten(1)
    torch.testing.assert_close(channels.mean(1), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(channels.std(1), torch.ones(4), atol=1e-3, rtol=0)
    drawn = torch.cat(list(training().sample(network, ["a"] * 20, 0)))
    network.shift += 7
    again = torch.cat(list(training().sample(network, ["a"] * 20, 0)))
    torch.testing.assert_close(again, drawn + 7)


def test_the_key_of_an_autoencoder_follows_its_weights():
    coder = autoencoder()
    key = coder.key
    with torch.no_grad():
        coder.tokenizer.get_parameter("encoder.0.bias").add_(1)
    assert coder.key != key


def test_a_diffusion_model_draws_what_its_captions_say():
    """Pixels in patches."""
    torch.manual_seed(0)
    network = denoiser(side=16, channels=3, patch=4)
    method = DPPixelDiffusion(network, training(process=HIGH, pretraining_rate=5e-3, steps=8))
    trainer = Trainer(NonPrivatePlan(32, 150), ema_decay=0.9)
    method.pretrain("denoiser", discs(64), trainer)
    assert method.report("denoiser", discs(32))["loss"] < 0.7  # knowing nothing is 1
    red, blue = (
        torch.cat(list(method.generate([caption] * 10, 0))).float().mean((0, 2, 3))
        for caption in CAPTIONS
    )
    assert red[0] > red[2] + 60
    assert blue[2] > blue[0] + 60


def test_guidance_goes_further_from_what_is_drawn_without_a_caption():
    torch.manual_seed(0)
    network = denoiser(side=16, channels=3, patch=4)
    method = DPPixelDiffusion(network, training(process=HIGH, pretraining_rate=5e-3))
    method.pretrain("denoiser", discs(64), Trainer(NonPrivatePlan(32, 80), ema_decay=0.5))
    redness = []
    for guidance in (0.0, 1.0, 3.0):
        drawing = training(process=HIGH, guidance=guidance)
        drawn = torch.cat(list(drawing.sample(network, [CAPTIONS[0]] * 40, 0)))
        redness.append((drawn[:, 0] - drawn[:, 2]).mean().item())
    assert redness[0] < redness[1] < redness[2]


@pytest.mark.parametrize("rank", [0, 4])
def test_dp_ldm_moves_the_attention_and_the_conditioning_alone(rank, tmp_path):
    torch.manual_seed(0)
    method = DPLDM(autoencoder(), denoiser(), training(process=DDPM(), lora_rank=rank)).eval()
    before = {name: p.clone() for name, p in method.named_parameters()}
    plan = DPPlan.calibrate(epsilon=5, delta=1e-5, records=24, expected_batch=8, steps=2)
    trainer = Trainer(plan, ledger=Ledger(tmp_path / "ledger", plan.budget), views=2)
    columns = {"images": discs(24).images, "captions": discs(24).captions}
    method.finetune(PrivateRecords(columns, name="discs", records=24), trainer)
    after = dict(method.named_parameters())
    assert after.keys() == before.keys()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    adapters = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")
    if rank:
        expected = {name for name in before if name.endswith(adapters)}
    else:
        expected = {name for name in before if ".attentions." in name or "encoder_hid" in name}
    assert moved == expected


def test_each_view_of_a_record_is_noised_on_its_own():
    """So that K of them are an average over noise levels, as noise multiplicity wants."""
    seen = []

    def spy(module, args):
        seen.append(args)

    torch.manual_seed(0)
    network = denoiser(side=16, channels=3, patch=4)
    network.register_forward_pre_hook(spy)
    columns = {"latents": torch.zeros(4, 3, 16, 16), "text": torch.zeros(4, 1, 2, 8)}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    trainer = Trainer(NonPrivatePlan(4, 1), views=3, micro_batch=4)
    trainer.fit(network, training().loss(0.1), columns, optimizer)
    x, times, _ = seen[-1]
    assert len(x) == 12
    assert len(times.unique()) == 12


def uneven():
    return training(process=DDPM(), steps=15)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: denoiser(attention=(True,)), "2 resolutions and denoiser.attention 1"),
        (lambda: denoiser(attention=(False, False)), "attention somewhere"),
        (lambda: denoiser(side=9), "9 px in patches of 1 px cannot be halved 1 times"),
        (lambda: DPLDM(autoencoder(), denoiser(channels=3), training()), "given 4 of 8 px"),
        (lambda: DDPM(prediction_type="x"), "prediction_type='x' must be"),
        (lambda: DPLDM(autoencoder(), denoiser(), uneven()).check([]), "steps=15 must divide"),
        (lambda: denoiser(widths=(12, 16)), "must divide by 8"),
        (lambda: training(steps=0), "training.steps=0 is out of range"),
        (lambda: training(condition_dropout=1.5), "training.condition_dropout=1.5"),
        (lambda: training(lora_rank=-1), "training.lora_rank=-1"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(UserError, match=message):
        wrong()


def test_a_denoiser_knows_whose_latents_and_texts_it_was_trained_on():
    torch.manual_seed(0)
    ours, other = autoencoder(), autoencoder()
    method = DPLDM(ours, denoiser(), training(process=DDPM()))
    method.check([])  # trained on nothing yet
    method.pretrain("denoiser", discs(8), Trainer(NonPrivatePlan(4, 1)))
    method.check([])
    state = method.denoiser.state_dict()
    for wrong in (
        DPLDM(other, denoiser(), training(process=DDPM())),
        DPLDM(ours, denoiser(), training(process=DDPM(), text=HashedText(3, 8))),
    ):
        wrong.denoiser.load_state_dict(state)
        with pytest.raises(UserError, match="Denoiser was trained with another"):
            wrong.check([])


@pytest.mark.parametrize("method", ["px64/dp_ldm", "px64/dp_pixel_diffusion"])
def test_configs_for_photographs_can_be_made(method, monkeypatch):
    """The public corpus, too, as far as it needs no file."""
    monkeypatch.setattr(tiny_autoencoder, "read_state", lambda path, _: FRESH[path])
    chosen = [f"+method.published.{part}={part}" for part in FRESH]
    chosen = [c.lstrip("+") if method.endswith("ldm") else c for c in chosen]
    config = compose([f"method={method}", "method.public.photos.root=photos", *chosen]).method
    made = make(config.generator)
    assert made.resolution == make(config.public).resolution == 64
    assert list(made.stages) == ["denoiser"]


FRESH = {"encoder": _encoder().state_dict(), "decoder": _decoder().state_dict()}


def test_pixels_are_the_images():
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(Pixels(8).decode(Pixels(8).encode(images)), images)


@pytest.mark.parametrize("method", ["dp_ldm", "dp_pixel_diffusion"])
def test_what_public_weights_draw_is_as_large_as_what_they_were_trained_on(method):
    """A denoiser that is wrong at high noise levels draws too much contrast, or too little."""
    generator = make_generator(cells([f"method={method}", "dataset=toyfaces"])[0])
    network, captions = generator.denoiser, ["a red disc on a plain background"] * 40
    drawn = generator._training.sample(network, captions, 0)
    latents = (torch.cat(list(drawn)) - network.shift) / network.scale
    assert 0.6 < latents.std() < 1.4
