"""LlamaGen's tokenizer, VQ-16 (Sun et al. 2024, arXiv 2406.06525, section 2.1): a VQGAN.

The encoder and decoder of VQGAN (Esser et al. 2021, arXiv 2012.09841, appendix) around a codebook
of unit vectors. Module names are those of the authors' state dicts, so that their weights load.

Shapes: n images, d channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.dp.errors import UserError, one_line
from wavedp.nn.quantizer import Quantizer
from wavedp.nn.raster import Raster
from wavedp.nn.state import read_state
from wavedp.nn.untrained import drawn

BLOCKS = 2
"""Residual blocks per resolution on the way down; one more on the way up."""


class VQGAN(Raster):
    """Images in [-1, 1] to a grid of tokens of one code each, and back.

    Args:
        resolution: image height and width in pixels.
        width: channels at the full resolution.
        multipliers: of the channels at each resolution; each after the first halves the image.
        rows: channels of the grid before the quantiser.
        codebook_size, code_width: of the quantiser.
        groups: of every norm.
    """

    def __init__(
        self,
        resolution: int = 256,
        width: int = 128,
        multipliers: Sequence[int] = (1, 1, 2, 2, 4),
        rows: int = 256,
        codebook_size: int = 16384,
        code_width: int = 8,
        groups: int = 32,
    ) -> None:
        halvings = len(multipliers) - 1
        if resolution % 2**halvings:
            raise UserError(
                f"{resolution} pixels cannot be halved {halvings} times; choose a resolution that "
                f"divides by {2**halvings}."
            )
        widths = [width * factor for factor in multipliers]
        down = nn.Sequential(Encoder(widths, rows, groups), nn.Conv2d(rows, code_width, 1))
        up = nn.Sequential(nn.Conv2d(code_width, rows, 1), Decoder(widths, rows, groups))
        codebook = Quantizer(code_width, codebook_size, normalize=True)
        super().__init__(down, codebook, up, resolution, resolution >> halvings)


class Encoder(nn.Module):
    """Images ``[n, 3, R, R]`` to ``[n, rows, grid, grid]``; arguments as in :class:`VQGAN`."""

    def __init__(self, widths: Sequence[int], rows: int, groups: int) -> None:
        super().__init__()
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.conv_blocks = nn.ModuleList(
            Level(low, high, BLOCKS, groups, level == last, downsample=level < last)
            for level, (low, high) in enumerate(itertools.pairwise([widths[0], *widths]))
        )
        self.mid = middle(widths[-1], groups)
        self.norm_out = norm(groups, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], rows, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.conv_in(x)
        for part in (*self.conv_blocks, *self.mid):
            x = part(x)
        return torch.as_tensor(self.conv_out(F.silu(self.norm_out(x))))


class Decoder(nn.Module):
    """``[n, rows, grid, grid]`` to images ``[n, 3, R, R]``; arguments as in :class:`VQGAN`."""

    def __init__(self, widths: Sequence[int], rows: int, groups: int) -> None:
        super().__init__()
        back, last = list(reversed(widths)), len(widths) - 1
        self.conv_in = nn.Conv2d(rows, back[0], 3, padding=1)
        self.mid = middle(back[0], groups)
        self.conv_blocks = nn.ModuleList(
            Level(low, high, BLOCKS + 1, groups, level == 0, upsample=level < last)
            for level, (low, high) in enumerate(itertools.pairwise([back[0], *back]))
        )
        self.norm_out = norm(groups, back[-1])
        self.conv_out = nn.Conv2d(back[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.conv_in(x)
        for part in (*self.mid, *self.conv_blocks):
            x = part(x)
        return torch.as_tensor(self.conv_out(F.silu(self.norm_out(x))))


class Level(nn.Module):
    """The blocks of one resolution, and the step to the next.

    Args:
        low, high: channels before and after.
        blocks: how many residual blocks.
        groups: of the norms.
        attention: each block is followed by attention; at the smallest resolution.
        downsample, upsample: how it ends, if it is not the last.
    """

    def __init__(
        self,
        low: int,
        high: int,
        blocks: int,
        groups: int,
        attention: bool,
        downsample: bool = False,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        sizes = itertools.pairwise([low, *[high] * blocks])
        self.res = nn.ModuleList(Block(before, after, groups) for before, after in sizes)
        self.attn = nn.ModuleList(
            Attention(high, groups) if attention else nn.Identity() for _ in range(blocks)
        )
        self.downsample = Downsample(high) if downsample else nn.Identity()
        self.upsample = Upsample(high) if upsample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[n, low, h, w]`` to ``[n, high, ...]``."""
        for block, attention in zip(self.res, self.attn, strict=True):
            x = attention(block(x))
        return torch.as_tensor(self.upsample(self.downsample(x)))


class Block(nn.Module):
    """Two convolutions around a skip; a third fits the skip where the channels change."""

    def __init__(self, low: int, high: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(groups, low), norm(groups, high)
        self.conv1 = nn.Conv2d(low, high, 3, padding=1)
        self.conv2 = nn.Conv2d(high, high, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(low, high, 1) if low != high else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[n, low, h, w]`` to ``[n, high, h, w]``."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return torch.as_tensor(self.nin_shortcut(x) + y)


class Attention(nn.Module):
    """One head over all places, around a skip."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = norm(groups, width)
        self.q, self.k, self.v = (nn.Conv2d(width, width, 1) for _ in range(3))
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, width, h, w]`` to the same."""
        y = self.norm(x)
        q, k, v = (layer(y).flatten(2).mT for layer in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v)
        return torch.as_tensor(x + self.proj_out(attended.mT.unflatten(2, x.shape[2:])))


class Downsample(nn.Module):
    """Half the side; padded on the right and below alone, as the authors' weights expect."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, width, h, w]`` to ``[n, width, h / 2, w / 2]``."""
        return torch.as_tensor(self.conv(F.pad(x, (0, 1, 0, 1))))


class Upsample(nn.Module):
    """Twice the side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, width, h, w]`` to ``[n, width, 2 h, 2 w]``."""
        return torch.as_tensor(self.conv(F.interpolate(x, scale_factor=2.0)))


def middle(width: int, groups: int) -> nn.ModuleList:
    """What lies between encoder and quantiser, and after it."""
    first, second = (Block(width, width, groups) for _ in range(2))
    return nn.ModuleList([first, Attention(width, groups), second])


def norm(groups: int, width: int) -> nn.GroupNorm:
    """The group norm of all layers here."""
    return nn.GroupNorm(groups, width, eps=1e-6)


# Published weights ----------------------------------------------------------------------------

_PLACES = {
    "encoder.": "encoder.0.",
    "quant_conv.": "encoder.1.",
    "post_quant_conv.": "decoder.0.",
    "decoder.": "decoder.1.",
}


def published_vqgan(path: str, resolution: int = 256) -> VQGAN:
    """LlamaGen's VQ-16, ``vq_ds16_t2i.pt`` of ``peizesun/llamagen_t2i``; frozen, in eval mode.

    Args:
        path: a file of weights.
        resolution: image height and width in pixels; the weights fit any that divides by 16.

    Raises:
        UserError: the file is missing, damaged, or holds other weights.
    """
    settings = drawn("vqgan", {})
    network = VQGAN(resolution, **settings or {})
    if settings is None:
        load_vqgan(network, read_state(path, "tokenizer.path"))
    network.requires_grad_(False)
    return network.eval()


def load_vqgan(network: VQGAN, state: Mapping[str, Tensor]) -> None:
    """Load a state dict with the published names.

    Raises:
        UserError: names or shapes do not fit.
    """
    try:
        # They are trained free and scaled whenever they are used.
        entries = F.normalize(state["quantize.embedding.weight"].float(), dim=-1)
        own = {_our_name(name): v for name, v in state.items() if not name.startswith("quantize.")}
        network.load_state_dict({**own, "codebook.codebooks": entries.unsqueeze(0)})
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"These are not the weights of LlamaGen's tokenizer: {one_line(error)}"
        ) from error


def _our_name(name: str) -> str:
    for theirs, ours in _PLACES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
