"""The network that takes noise away: a U-Net of diffusers that is given a text.

Shapes: b rows; c channels of h x w; captions of ``slots`` rows of ``width`` numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from wavedp.dp.errors import UserError
from wavedp.nn.belonging import Belonging

GROUPS = 8
"""Of the norms of small networks."""

ADAPTABLE = ("to_q", "to_k", "to_v", "to_out.0")
"""The linear layers of an attention of diffusers: where DP-LoRA puts its adapters."""


class Reader(nn.Module):
    """What reads encoded captions for a U-Net; this one hands them on as they are."""

    def forward(self, text: Tensor) -> Tensor:
        """``[b, slots, width]`` to what the U-Net attends to."""
        return text

    def without_text(self, text: Tensor) -> Tensor:
        """What stands for no text, in the shape of encoded captions."""
        return torch.zeros_like(text)


class Denoiser(Belonging):
    """A U-Net, and what reads the text for it.

    Args:
        unet: the network. Its ``encoder_hid_proj``, where it has one, is part of the conditioning.
        side: h, of what it is given.
        channels: c, of what it is given.
        reader: makes of encoded captions what the U-Net attends to; None takes them as they are.
        patch: pixels of a side that become one position of the U-Net, so that large images of few
            channels cost no more than latents.

    Attributes:
        shift, scale: per channel, which bring latents to mean 0 and deviation 1. From public images
            alone: a constant taken from private ones would be a release.

    Raises:
        UserError: the U-Net does not take such images.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        unet: UNet2DConditionModel,
        side: int,
        channels: int,
        reader: Reader | None = None,
        patch: int = 1,
    ) -> None:
        super().__init__()
        if side % patch or channels * patch**2 != unet.config.in_channels:
            raise UserError(
                f"The U-Net takes {unet.config.in_channels} channels and is given {channels} of "
                f"{side} px in patches of {patch} px; set denoiser.channels, side and patch."
            )
        self.unet, self.side, self.channels, self._patch = unet, side, channels, patch
        self.reader = reader if reader is not None else Reader()
        self.register_buffer("shift", torch.zeros(channels, 1, 1))
        self.register_buffer("scale", torch.ones(channels, 1, 1))

    @torch.no_grad()
    def standardise(self, latents: Tensor) -> None:
        """Set shift and scale by public latents ``[n, c, h, w]``."""
        channels = latents.float().transpose(0, 1).flatten(1)
        self.shift.copy_(channels.mean(1).view_as(self.shift))
        deviation = channels.std(1).view_as(self.scale)
        self.scale.copy_(deviation.where(deviation > 0, torch.ones_like(deviation)))

    def forward(self, x: Tensor, times: Tensor, text: Tensor) -> Tensor:
        """``[b, c, h, w]`` at noise levels ``[b]``, with captions, to what the process asks for."""
        return self.answer(x, times, self.reader(text))

    def answer(self, x: Tensor, times: Tensor, read: Tensor) -> Tensor:
        """The same, of captions that :attr:`reader` has read."""
        x = F.pixel_unshuffle(x, self._patch) if self._patch > 1 else x
        made = self.unet(x, times, read, return_dict=False)[0]
        return F.pixel_shuffle(made, self._patch) if self._patch > 1 else torch.as_tensor(made)

    def without_text(self, text: Tensor) -> Tensor:
        """See :class:`Reader`."""
        return self.reader.without_text(text)

    def conditioned(self) -> Iterator[nn.Module]:
        """What DP-LDM trains: the attention blocks (SpatialTransformer) and the conditioning."""
        yield self.reader
        yield from (m for m in self.unet.modules() if isinstance(m, Transformer2DModel))
        if self.unet.encoder_hid_proj is not None:
            yield self.unet.encoder_hid_proj


def small_denoiser(
    side: int,
    channels: int,
    text_width: int,
    widths: Sequence[int] = (32, 64),
    attention: Sequence[bool] = (False, True),
    layers: int = 1,
    heads: int = 4,
    cross_width: int = 64,
    patch: int = 1,
) -> Denoiser:
    """A denoiser in the size of the embedded data or of photographs at 64 px.

    Args:
        side, channels, patch: see :class:`Denoiser`.
        text_width: of encoded captions, which a linear layer takes to ``cross_width``.
        widths: channels per resolution, each half of the one before.
        attention: which resolutions have attention to the image and to the text.
        layers: residual blocks per resolution.
        heads: of every attention.
        cross_width: of captions, as the attentions see them.

    Raises:
        UserError: widths and attention are not one for one, the side cannot be halved so often, or
            a width does not divide into groups and heads.
    """
    if len(widths) != len(attention) or not any(attention):
        raise UserError(
            f"denoiser.widths has {len(widths)} resolutions and denoiser.attention "
            f"{len(attention)}; give one for one, with attention somewhere."
        )
    if side % (patch << (len(widths) - 1)):
        raise UserError(
            f"{side} px in patches of {patch} px cannot be halved {len(widths) - 1} times; set "
            "denoiser.widths or denoiser.patch."
        )
    if any(width % GROUPS or width % heads for width in widths):
        raise UserError(
            f"denoiser.widths={list(widths)} must divide by {GROUPS}, the groups of its norms, and "
            f"by denoiser.heads={heads}."
        )
    down = ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in attention]
    up = ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(attention)]
    unet = UNet2DConditionModel(
        sample_size=side // patch,
        in_channels=channels * patch**2,
        out_channels=channels * patch**2,
        block_out_channels=tuple(widths),
        layers_per_block=layers,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        cross_attention_dim=cross_width,
        attention_head_dim=heads,  # by its name a width, by its use the number of heads
        norm_num_groups=GROUPS,
        encoder_hid_dim=text_width,
        encoder_hid_dim_type="text_proj",
    )
    return Denoiser(unet, side, channels, patch=patch)
