"""What makers and critics learn from one shared loss."""

import pytest
import torch
from torch import nn

from wavedp.nn.critic import Critic
from wavedp.nn.reconstruction import Judge, Reconstruction, pyramid_error


@pytest.fixture
def critic():
    torch.manual_seed(0)
    made = Critic(width=8, layers=2)
    for _ in range(20):  # lets the power iteration settle
        made(torch.randn(2, 3, 16, 16))
    return made.eval()


def test_the_maker_learns_nothing_from_the_critics_loss_and_the_other_way_round(critic):
    made = torch.randn(4, 3, 16, 16, requires_grad=True)
    critic.mistaken(made, torch.randn(4, 3, 16, 16)).sum().backward()
    assert made.grad is None
    assert all(p.grad.abs().sum() > 0 for p in critic.parameters() if p.ndim > 1)
    critic.zero_grad()
    critic.judged(made).sum().backward()
    assert made.grad.abs().sum() > 0
    assert all(p.grad is None for p in critic.parameters())


def test_the_makers_gradient_is_that_of_the_score(critic):
    made = torch.randn(4, 3, 16, 16, requires_grad=True)
    (found,) = torch.autograd.grad(critic.judged(made).sum(), made)
    (expected,) = torch.autograd.grad(-critic(made).mean(1).sum(), made)
    torch.testing.assert_close(found, expected)


def test_the_hinge_by_hand():
    class Brightness(Critic):
        def forward(self, images):
            return images.mean((1, 2, 3)).unsqueeze(1)

    critic = Brightness(8, 1)
    fake = torch.full((1, 3, 4, 4), -0.25)
    real = torch.full((1, 3, 4, 4), 3.0)
    assert critic.judged(fake).item() == 0.25
    # relu(1 - 0.25) for the fake, relu(1 - 3) = 0 for the real one.
    assert critic.mistaken(fake, real).item() == 0.75


def test_scores_are_steady_because_the_layers_are_normalised(critic):
    """Spectral norms near 1: a score cannot change much faster than the image."""
    with torch.no_grad():
        for layer in [*critic.layers, critic.score]:
            norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
            assert norm.item() == pytest.approx(1, abs=0.1)


def test_a_critic_and_a_maker_train_in_one_loop():
    """The maker learns the brightness of real images from the critic alone."""

    class Grey(nn.Module):
        def __init__(self):
            super().__init__()
            self.level = nn.Parameter(torch.tensor(-0.8))

        def forward(self, n):
            return self.level.expand(n, 3, 8, 8)

    torch.manual_seed(0)
    grey = Grey()
    judge = Judge(0.02, 0.02, adversarial=1.0, critic_width=8, critic_layers=1)
    whole = judge.over(grey, torch.device("cpu"))
    optimizer = whole.optimizer()
    levels = []
    for _ in range(300):
        real = torch.full((8, 3, 8, 8), 0.5) + 0.05 * torch.randn(8, 3, 8, 8)
        made = grey(8) + 0.05 * torch.randn(8, 3, 8, 8)
        # Compared with itself, so that only the critic's opinion is left.
        loss = whole.loss(made, real) - (made - real).square().mean((1, 2, 3))
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        levels.append(grey.level.item())
    assert sum(levels[-100:]) / 100 == pytest.approx(0.5, abs=0.25)


def test_the_pieces_of_the_loss_add_up():
    judge = Judge(
        adversarial=0.0,
        absolute=2.0,
        perceptual=lambda a, b: torch.full((len(a),), 5.0),
        perceptual_weight=0.1,
    )
    whole = Reconstruction(nn.Identity(), None, judge)
    made, images = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5)
    assert whole.loss(made, images).tolist() == pytest.approx([0.25 + 2 * 0.5 + 0.5] * 2)


def test_smaller_images_are_compared_with_block_averages():
    images = torch.rand(3, 3, 8, 8)
    half = torch.nn.functional.avg_pool2d(images, 2)
    assert pyramid_error([half], images).abs().max() < 1e-12
    assert pyramid_error([half + 0.5, half], images).tolist() == pytest.approx([0.25] * 3)
