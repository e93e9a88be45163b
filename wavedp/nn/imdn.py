"""IMDN, a small super-resolution network (Hui et al. 2019, arXiv 1909.11856), and its reader.

Module names are those of the authors' state dicts, so that their weights load.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.dp.errors import UserError, one_line

BLOCKS = 6


class IMDN(nn.Module):
    """Images ``[n, 3, h, w]`` in 0..1 to ``[n, 3, factor h, factor w]``.

    Args:
        factor: 2, 3 or 4.
        width: channels; a quarter of them is kept at each step of a block.
    """

    def __init__(self, factor: int = 4, width: int = 64) -> None:
        super().__init__()
        self.fea_conv = nn.Conv2d(3, width, 3, padding=1)
        for number in range(1, BLOCKS + 1):
            self.add_module(f"IMDB{number}", Distillation(width))
        self.c = nn.Sequential(nn.Conv2d(width * BLOCKS, width, 1), nn.LeakyReLU(0.05))
        self.LR_conv = nn.Conv2d(width, width, 3, padding=1)
        out = nn.Conv2d(width, 3 * factor**2, 3, padding=1)
        self.upsampler = nn.Sequential(out, nn.PixelShuffle(factor))

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        first = self.fea_conv(images)
        x, outputs = first, []
        for number in range(1, BLOCKS + 1):
            x = self.get_submodule(f"IMDB{number}")(x)
            outputs.append(x)
        return torch.as_tensor(
            self.upsampler(self.LR_conv(self.c(torch.cat(outputs, dim=1))) + first)
        )


class Distillation(nn.Module):
    """The information multi-distillation block (section 3.2 of the paper)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kept = width // 4
        rest = width - self.kept
        self.c1 = nn.Conv2d(width, width, 3, padding=1)
        self.c2 = nn.Conv2d(rest, width, 3, padding=1)
        self.c3 = nn.Conv2d(rest, width, 3, padding=1)
        self.c4 = nn.Conv2d(rest, self.kept, 3, padding=1)
        self.cca = ContrastAttention(width)
        self.c5 = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, width, h, w]`` to the same."""
        rest, kept = x, []
        for layer in (self.c1, self.c2, self.c3):
            done = F.leaky_relu(layer(rest), 0.05)
            part, rest = done.split([self.kept, done.shape[1] - self.kept], dim=1)
            kept.append(part)
        kept.append(self.c4(rest))
        return torch.as_tensor(self.c5(self.cca(torch.cat(kept, dim=1))) + x)


class ContrastAttention(nn.Module):
    """Channels weighed by their mean plus their standard deviation over the image."""

    def __init__(self, width: int, reduction: int = 16) -> None:
        super().__init__()
        self.conv_du = nn.Sequential(
            nn.Conv2d(width, width // reduction, 1),
            nn.ReLU(),
            nn.Conv2d(width // reduction, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[n, width, h, w]`` to the same."""
        contrast = x.mean((2, 3), keepdim=True) + x.std((2, 3), correction=0, keepdim=True)
        return torch.as_tensor(x * self.conv_du(contrast))


def is_imdn(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has this architecture's names."""
    return {"fea_conv.weight", f"IMDB{BLOCKS}.cca.conv_du.0.weight", "upsampler.0.weight"} <= set(
        state
    )


def load_imdn(state: Mapping[str, Tensor]) -> tuple[IMDN, int]:
    """The network of a state dict, with its weights, and its factor.

    Raises:
        UserError: names or shapes do not fit.
    """
    try:
        factor = round((state["upsampler.0.weight"].shape[0] / 3) ** 0.5)
        network = IMDN(factor, state["fea_conv.weight"].shape[0])
        network.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise UserError(f"These are not the weights of an IMDN: {one_line(error)}") from error
    return network, factor
