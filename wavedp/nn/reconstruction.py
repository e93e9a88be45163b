"""What tokenizers and upsamplers are trained with on public images: how near, and how real.

SIT (arXiv 2412.09607) weighs squared error 1, a perceptual distance 0.1, an adversarial loss 0.1
and the commitment of the quantiser 0.25, all in pixel space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.nn.critic import Critic

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""Two batches of images in [-1, 1] to a distance ``[n]``, differentiable in the first."""


@dataclass(frozen=True)
class Judge:
    """What a network that makes images is judged by, and how fast it learns from that.

    Attributes:
        rate, critic_rate: AdamW learning rates of the network and of its critic.
        adversarial: weight of the critic's opinion; 0 for no critic.
        absolute: weight of the mean absolute error, which blurs edges less.
        perceptual: a frozen public distance, or None; ``perceptual_weight`` is its weight.
        critic_width, critic_layers: see :class:`~wavedp.nn.critic.Critic`.
    """

    rate: float = 1e-3
    critic_rate: float = 5e-4
    adversarial: float = 0.1
    absolute: float = 0.0
    perceptual: Perceptual | None = None
    perceptual_weight: float = 0.1
    critic_width: int = 32
    critic_layers: int = 3

    def over(self, network: nn.Module, device: torch.device, given: int = 0) -> Reconstruction:
        """The network with a new critic, which also sees ``given`` more channels."""
        layers = (self.critic_width, self.critic_layers, 3 + given)
        critic = Critic(*layers) if self.adversarial else None
        return Reconstruction(network, critic, self).to(device)


class Reconstruction(nn.Module):
    """A network with its critic, as one module for one training loop.

    Args:
        network: makes the images.
        critic: scores them, or None.
        judge: the weights of what it is judged by.
    """

    def __init__(self, network: nn.Module, critic: Critic | None, judge: Judge) -> None:
        super().__init__()
        self.network, self.critic, self._judge = network, critic, judge

    def loss(self, made: Tensor, images: Tensor, given: Tensor | None = None) -> Tensor:
        """Of images ``[n, 3, H, W]``, per image ``[n]``.

        Args:
            given: more channels that the critic sees, such as what the images were made from.
        """
        judge, difference = self._judge, made - images
        total = difference.square().mean((1, 2, 3))
        if judge.absolute:
            total = total + judge.absolute * difference.abs().mean((1, 2, 3))
        if judge.perceptual is not None:
            total = total + judge.perceptual_weight * judge.perceptual(made, images)
        if self.critic is not None:
            seen = [x if given is None else torch.cat([x, given], 1) for x in (made, images)]
            total = total + judge.adversarial * self.critic.judged(seen[0])
            total = total + self.critic.mistaken(*seen)
        return torch.as_tensor(total)

    def optimizer(self) -> torch.optim.AdamW:
        """Of both, with the rates of the judge."""
        own = [p for p in self.network.parameters() if p.requires_grad]
        groups = [{"params": own, "lr": self._judge.rate}]
        if self.critic is not None:
            critic = list(self.critic.parameters())
            groups.append({"params": critic, "lr": self._judge.critic_rate})
        return torch.optim.AdamW(groups, betas=(0.8, 0.99), weight_decay=1e-4)


def pyramid_error(made: Sequence[Tensor], images: Tensor) -> Tensor:
    """Mean squared error of smaller images against the averages of ``images``, summed ``[n]``."""
    total = torch.zeros(len(images), device=images.device)
    for image in made:
        target = F.adaptive_avg_pool2d(images, image.shape[-1])
        total = total + (image - target).square().mean((1, 2, 3))
    return total
