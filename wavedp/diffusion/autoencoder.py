"""What diffusion works in: the latents of a frozen public autoencoder, or pixels.

Shapes: n images of R px; latents ``[n, c, side, side]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from wavedp.dp.errors import UserError
from wavedp.nn.fingerprint import fingerprint
from wavedp.nn.raster import Raster
from wavedp.wavelet.encoders import in_parts


class Autoencoder(Protocol):
    """Attributes:
    resolution: R.
    side, channels: shape of the latents.
    parts: names of its submodules that are public checkpoints of this project.
    key: names it and its weights, for caches of what it made.
    """

    resolution: int
    side: int
    channels: int
    parts: tuple[str, ...]

    @property
    def key(self) -> str: ...

    def encode(self, images: Tensor) -> Tensor:
        """Images in [-1, 1], ``[n, 3, R, R]``, to latents."""

    def decode(self, latents: Tensor) -> Tensor:
        """Its inverse."""


class Pixels(nn.Module):
    """No autoencoder: the images themselves.

    Args:
        resolution: R.
    """

    channels = 3
    parts: tuple[str, ...] = ()

    def __init__(self, resolution: int) -> None:
        super().__init__()
        self.resolution = self.side = resolution

    @property
    def key(self) -> str:
        """See :class:`Autoencoder`."""
        return "Pixels 1"

    def encode(self, images: Tensor) -> Tensor:
        """The images."""
        return images

    def decode(self, latents: Tensor) -> Tensor:
        """The images."""
        return latents


class VQAutoencoder(nn.Module):
    """The latents of a VQ tokenizer before they are quantised, which its decoder does.

    As the VQ-regularised autoencoders of latent diffusion (Rombach et al. 2022, section 3.1), which
    DP-LDM finetunes class-conditional models in.

    Codes seldom fill the space that they lie in. Diffusion gets the directions in which they vary,
    and not the others: there it would spend a narrow network on noise that quantising takes away.

    Args:
        tokenizer: public and frozen.
        channels: c, how many of the principal axes of the codebooks; None takes them all.

    Raises:
        UserError: codes have fewer numbers than ``channels``.
    """

    parts: tuple[str, ...] = ("tokenizer",)

    def __init__(self, tokenizer: Raster, channels: int | None = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer.requires_grad_(False)
        self.resolution, self.side = tokenizer.resolution, tokenizer.grid
        width = tokenizer.codebook.codebooks.shape[-1]
        self.channels = width if channels is None else channels
        if not 1 <= self.channels <= width:
            raise UserError(
                f"autoencoder.channels={channels} must lie in 1..{width}, the numbers of a code of "
                "its tokenizer."
            )

    @property
    def key(self) -> str:
        """See :class:`Autoencoder`."""
        return f"VQAutoencoder 2 {self.channels} {self.tokenizer.key}"

    def encode(self, images: Tensor) -> Tensor:
        """See :class:`Autoencoder`."""
        centre, axes = self._axes()
        return torch.einsum("ndhw,dc->nchw", self.tokenizer.latents(images) - centre, axes)

    def decode(self, latents: Tensor) -> Tensor:
        """See :class:`Autoencoder`."""
        centre, axes = self._axes()
        return self.tokenizer.decode_latents(torch.einsum("nchw,dc->ndhw", latents, axes) + centre)

    def _axes(self) -> tuple[Tensor, Tensor]:
        """The mean code ``[d, 1, 1]`` and orthonormal axes ``[d, c]`` from it."""
        codebooks = self.tokenizer.codebook.codebooks.double()
        mean = codebooks.mean(1, keepdim=True)
        _, _, axes = torch.linalg.svd((codebooks - mean).flatten(0, 1), full_matrices=False)
        # An axis has no sign of its own: another library would turn some round.
        largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
        axes = (axes * largest.sign())[: self.channels].mT
        return mean.sum(0).mT.unsqueeze(2).float(), axes.float()


class KLAutoencoder(nn.Module):
    """diffusers' ``AutoencoderKL`` (Rombach et al. 2022).

    An image is encoded as the mean of its posterior, from which latent diffusion draws.

    Args:
        network: public and frozen.
        resolution: R.

    Raises:
        UserError: the autoencoder cannot halve that resolution so often.
    """

    parts: tuple[str, ...] = ()

    def __init__(self, network: AutoencoderKL, resolution: int) -> None:
        super().__init__()
        halvings = len(network.config.block_out_channels) - 1
        if resolution % 2**halvings:
            raise UserError(f"{resolution} pixels cannot be halved {halvings} times.")
        self.network, self.resolution = network.eval().requires_grad_(False), resolution
        self.side, self.channels = resolution >> halvings, int(network.config.latent_channels)

    @property
    def key(self) -> str:
        """See :class:`Autoencoder`."""
        return fingerprint(self, type(self).__name__, self.resolution)

    def encode(self, images: Tensor) -> Tensor:
        """See :class:`Autoencoder`."""
        return torch.as_tensor(self.network.encode(images).latent_dist.mean)

    def decode(self, latents: Tensor) -> Tensor:
        """See :class:`Autoencoder`."""
        return torch.as_tensor(self.network.decode(latents).sample)


class PixelEncoder:
    """``images`` to ``latents`` that are the images, uint8 ``[b, 3, R, R]``."""

    key = "PixelEncoder 1"

    def __call__(self, columns: Mapping[str, Any]) -> dict[str, Tensor]:
        """Half the size of what :class:`LatentEncoder` would make of them."""
        return {"latents": torch.from_numpy(np.array(columns["images"]))}


@dataclass(frozen=True)
class LatentEncoder:
    """``images`` to ``latents`` ``[b, c, side, side]``, in float16.

    Attributes:
        autoencoder: public, in eval mode.
    """

    autoencoder: Autoencoder

    @property
    def key(self) -> str:
        """Names this function for a store; raise its number when the encoding changes."""
        return f"LatentEncoder 1 {self.autoencoder.key}"

    @torch.no_grad()
    def __call__(self, columns: Mapping[str, Any]) -> dict[str, Tensor]:
        assert isinstance(self.autoencoder, nn.Module)

        def encode(images: Tensor) -> Tensor:
            return self.autoencoder.encode(images).half()

        return {"latents": in_parts(columns["images"], self.autoencoder, encode)}
