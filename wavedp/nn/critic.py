"""The adversarial loss: a critic of patches, trained in the same loop as what it judges.

A hinge loss (Lim and Ye 2017) with a spectrally normalised discriminator (Miyato et al. 2018).
Maker and critic share one loss and one optimizer. The loss holds the images twice: detached, so
that the critic learns from them, and through a critic whose weights are detached, so that the
maker does. One backward pass then gives each of the two its own gradient.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm


class Critic(nn.Module):
    """Scores patches of images; positive where they look real.

    Args:
        width: channels of the first layer; doubled at every further one.
        layers: each halves the image.
        channels: 3, or more where the critic also sees what an image was made from.
    """

    def __init__(self, width: int = 32, layers: int = 3, channels: int = 3) -> None:
        super().__init__()
        sizes = [channels, *(width * 2**layer for layer in range(layers))]
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(low, high, 4, stride=2, padding=1))
            for low, high in itertools.pairwise(sizes)
        )
        self.score = spectral_norm(nn.Conv2d(sizes[-1], 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """``[n, channels, H, W]`` to scores ``[n, patches]``."""
        for layer in self.layers:
            images = F.leaky_relu(layer(images), 0.2)
        return torch.as_tensor(self.score(images).flatten(1))

    def judged(self, made: Tensor) -> Tensor:
        """The maker's loss ``[n]``; the critic gets no gradient from it."""
        detached = {name: p.detach() for name, p in self.named_parameters()}
        return -functional_call(self, detached, (made,)).mean(1)

    def mistaken(self, made: Tensor, real: Tensor) -> Tensor:
        """The critic's loss ``[n]``; what made the images gets no gradient from it."""
        scores = self(torch.cat([made.detach(), real]))
        fake, true = scores.chunk(2)
        return (F.relu(1 + fake) + F.relu(1 - true)).mean(1)
