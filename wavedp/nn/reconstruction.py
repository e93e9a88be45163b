"""What tokenizers and upsamplers are trained with on public images: how near, and how real.

SIT (arXiv 2412.09607) weighs squared error 1, a perceptual distance 0.1, an adversarial loss 0.1
and the commitment of the quantiser 0.25, all in pixel space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.nn.critic import Critic

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""Two batches of images in [-1, 1] to a distance ``[n]``, differentiable in the first."""


class Reconstruction(nn.Module):
    """A network with what judges it, as one module for one training loop.

    Args:
        network: makes the images.
        critic: scores them, or None for no adversarial loss.
        perceptual: a frozen public distance, or None.
        adversarial_weight, perceptual_weight: in units of the squared error.
        absolute_weight: of the mean absolute error, which blurs edges less.
    """

    def __init__(
        self,
        network: nn.Module,
        critic: Critic | None = None,
        perceptual: Perceptual | None = None,
        adversarial_weight: float = 0.1,
        perceptual_weight: float = 0.1,
        absolute_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.network, self.critic, self._perceptual = network, critic, perceptual
        self._weights = (adversarial_weight, perceptual_weight, absolute_weight)

    def loss(self, made: Tensor, images: Tensor, given: Tensor | None = None) -> Tensor:
        """Of images ``[n, 3, H, W]``, per image ``[n]``.

        Args:
            given: more channels that the critic sees, such as what the images were made from.
        """
        adversarial, perceptual, absolute = self._weights
        difference = made - images
        total = difference.square().mean((1, 2, 3))
        if absolute:
            total = total + absolute * difference.abs().mean((1, 2, 3))
        if self._perceptual is not None:
            total = total + perceptual * self._perceptual(made, images)
        if self.critic is not None and adversarial:
            seen = [x if given is None else torch.cat([x, given], 1) for x in (made, images)]
            total = total + adversarial * self.critic.judged(seen[0])
            total = total + self.critic.mistaken(*seen)
        return torch.as_tensor(total)

    def groups(self, rate: float, critic_rate: float) -> list[dict[str, object]]:
        """Parameter groups for an optimizer."""
        groups: list[dict[str, object]] = [
            {"params": [p for p in self.network.parameters() if p.requires_grad], "lr": rate}
        ]
        if self.critic is not None:
            groups.append({"params": list(self.critic.parameters()), "lr": critic_rate})
        return groups


def pyramid_error(made: Sequence[Tensor], images: Tensor) -> Tensor:
    """Mean squared error of smaller images against the averages of ``images``, summed ``[n]``."""
    total = torch.zeros(len(images), device=images.device)
    for image in made:
        target = F.adaptive_avg_pool2d(images, image.shape[-1])
        total = total + (image - target).square().mean((1, 2, 3))
    return total
