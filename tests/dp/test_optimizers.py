"""The bias-corrected optimizer against a worked example and against AdamW."""

import pytest
import torch
from torch import nn

from wavedp.dp.optimizers import DPAdamW


def test_without_noise_it_is_adamw():
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(5)) for _ in range(2))
    settings = {"lr": 0.05, "betas": (0.8, 0.95), "weight_decay": 0.1}
    mine = DPAdamW([ours], noise_std=0.0, floor=1e-8, **settings)
    adamw = torch.optim.AdamW([theirs], eps=0.0, **settings)
    for _ in range(20):
        gradient = torch.randn(5)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        adamw.step()
    torch.testing.assert_close(ours, theirs)


def test_hand_worked_step():
    """First step, gradient 5, noise 3: m = 5, v - 9 = 16, so the step is 5/4 of the rate."""
    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.tensor([5.0])
    DPAdamW([weight], lr=0.1, noise_std=3.0).step()
    assert weight.item() == pytest.approx(-0.1 * 5 / 4)


def test_pure_noise_is_divided_by_the_floor_and_not_by_itself():
    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.tensor([2.0])
    DPAdamW([weight], lr=0.1, noise_std=3.0, floor=0.5).step()
    assert weight.item() == pytest.approx(-0.1 * 2 / 0.5)


def test_removes_the_bias_of_the_noise_from_the_second_moment():
    """Coordinates with gradients 1 and 3 under noise 4: AdamW steps 1:2.2 apart, this one 1:1."""
    torch.manual_seed(0)
    signal = torch.tensor([1.0, 3.0]).repeat_interleave(2000)
    moved = {}
    for name, noise in (("corrected", 4.0), ("plain", 0.0)):
        weight = nn.Parameter(torch.zeros(4000))
        optimizer = DPAdamW([weight], lr=1e-3, noise_std=noise, betas=(0.99, 0.99), floor=0.5)
        generator = torch.Generator().manual_seed(1)
        for _ in range(600):
            weight.grad = signal + 4.0 * torch.randn(4000, generator=generator)
            optimizer.step()
        low, high = weight.detach().view(2, 2000).mean(1).tolist()
        moved[name] = high / low
    assert moved["plain"] > 2
    assert moved["corrected"] < 1.6


@pytest.mark.parametrize("bad", [{"lr": -1}, {"noise_std": -1}, {"floor": 0}, {"betas": (1, 0)}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match="must"):
        DPAdamW([nn.Parameter(torch.zeros(1))], **({"noise_std": 1.0} | bad))
