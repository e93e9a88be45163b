"""DP-VAE: its loss beside torch.distributions, and colours that it learns."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from baselines.dp_vae import DPVae
from wavedp.dp import Ledger, NonPrivatePlan, PrivateRecords, Trainer, UserError

RECORDS = 40


def made(**settings):
    torch.manual_seed(0)
    small = {"resolution": 8, "side": 4, "latent": 3, "width": 16, "rate": 0.01}
    return DPVae(**(small | settings))


def test_the_loss_is_minus_the_evidence_lower_bound():
    """But for a constant: the noise of a pixel has variance 1/10."""
    method, low = made(), torch.rand(5, 48) * 2 - 1
    mean, log_variance = method.encoder(low).chunk(2, dim=1)
    posterior, prior = Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)
    torch.manual_seed(1)
    latent = posterior.rsample()
    pixels = Normal(method.decoder(latent), 0.1**0.5)
    bound = pixels.log_prob(low).sum(1) - kl_divergence(posterior, prior).sum(1)
    constant = Normal(0.0, 0.1**0.5).log_prob(torch.zeros(48)).sum()
    torch.manual_seed(1)
    torch.testing.assert_close(method(low), constant - bound, rtol=1e-4, atol=1e-4)


def test_without_noise_it_takes_the_colour_of_the_records(tmp_path):
    spread = torch.randint(-20, 20, (RECORDS, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    images = (spread + torch.tensor([200, 60, 60]).view(3, 1, 1)).to(torch.uint8)
    method, plan = made(), NonPrivatePlan(RECORDS, 100)
    before = torch.cat(list(method.generate([""] * 50, 0))).float().mean((0, 2, 3))
    private = PrivateRecords({"images": images.numpy()}, name="toy", records=RECORDS)
    trainer = Trainer(plan, ledger=Ledger(tmp_path / "ledger.jsonl", plan.budget))
    method.finetune(private, trainer)
    after = torch.cat(list(method.generate([""] * 50, 0))).float().mean((0, 2, 3))
    wanted = images.float().mean((0, 2, 3))
    assert (after - wanted).abs().max() < 15
    assert (before - wanted).abs().max() > 50


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"side": 3}, "3 px"),
        ({"latent": 0}, "latent"),
        ({"width": -1}, "width"),
        ({"rate": 0.0}, "rate"),
    ],
)
def test_bad_settings_are_refused_by_name(change, named):
    with pytest.raises(UserError, match=named):
        made(**change)
