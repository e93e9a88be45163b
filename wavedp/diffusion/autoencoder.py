"""What diffusion works in: the latents of a frozen public autoencoder, or pixels.

Shapes: n images of R px; latents ``[n, c, side, side]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from wavedp.data.schema import Records
from wavedp.dp.clipping import Batch
from wavedp.dp.errors import UserError
from wavedp.dp.trainer import Trainer
from wavedp.nn.fingerprint import fingerprint
from wavedp.nn.images import as_tensor, to_float
from wavedp.nn.reconstruction import Judge, Reconstruction
from wavedp.nn.schedule import cosine
from wavedp.wavelet.reports import images_in, psnr

PIXELS_AT_ONCE = 512 * 32**2


class Autoencoder(Protocol):
    """Attributes:
    resolution: R.
    side, channels: shape of the latents.
    key: names it and its weights, for caches of what it made.
    """

    resolution: int
    side: int
    channels: int

    @property
    def key(self) -> str: ...

    def encode(self, images: Tensor) -> Tensor:
        """Images in [-1, 1], ``[n, 3, R, R]``, to latents of about unit variance."""

    def decode(self, latents: Tensor) -> Tensor:
        """Its inverse."""


class Pixels(nn.Module):
    """No autoencoder: the images themselves.

    Args:
        resolution: R.
    """

    channels = 3

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


class KLAutoencoder(nn.Module):
    """diffusers' ``AutoencoderKL`` (Rombach et al. 2022), with latents brought to unit variance.

    An image is encoded as the mean of its posterior, from which latent diffusion draws.

    Args:
        network: the autoencoder.
        resolution: R.

    Attributes:
        shift, scale: per channel, so that public latents have mean 0 and deviation 1. From public
            images alone; a constant taken from private ones would be a release.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: AutoencoderKL, resolution: int) -> None:
        super().__init__()
        halvings = len(network.config.block_out_channels) - 1
        if resolution % 2**halvings:
            raise UserError(
                f"{resolution} pixels cannot be halved {halvings} times; change "
                "autoencoder.widths or the resolution."
            )
        self.network, self.resolution = network, resolution
        self.side, self.channels = resolution >> halvings, int(network.config.latent_channels)
        self.register_buffer("shift", torch.zeros(self.channels, 1, 1))
        self.register_buffer("scale", torch.ones(self.channels, 1, 1))

    @property
    def key(self) -> str:
        """See :class:`Autoencoder`."""
        return fingerprint(self, type(self).__name__, self.resolution)

    def encode(self, images: Tensor) -> Tensor:
        """See :class:`Autoencoder`.

        Raises:
            UserError: images of another size.
        """
        if images.shape[-2:] != (self.resolution, self.resolution):
            raise UserError(
                f"The autoencoder takes images of {self.resolution} px, got "
                f"{images.shape[-2]}x{images.shape[-1]}; prepare them at "
                f"dataset.resolution={self.resolution}."
            )
        return torch.as_tensor(
            (self.network.encode(images).latent_dist.mean - self.shift) / self.scale
        )

    def decode(self, latents: Tensor) -> Tensor:
        """See :class:`Autoencoder`."""
        return torch.as_tensor(self.network.decode(latents * self.scale + self.shift).sample)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images drawn from the posterior and back, and its KL to a unit Gaussian ``[n]``."""
        posterior = self.network.encode(images).latent_dist
        # From torch's own generator: the posterior's draws from none that a trainer could fork.
        drawn = posterior.mean + posterior.std * torch.randn_like(posterior.mean)
        return self.network.decode(drawn).sample, posterior.kl()

    @torch.no_grad()
    def standardise(self, images: Tensor) -> None:
        """Set shift and scale by what is made of public images in [-1, 1]."""
        parts = [self.network.encode(part).latent_dist.mean for part in images.split(250)]
        latents = torch.cat(parts).transpose(0, 1).flatten(1)
        self.shift.copy_(latents.mean(1).view_as(self.shift))
        self.scale.copy_(latents.std(1).view_as(self.scale))


def small_autoencoder(
    resolution: int, channels: int = 4, widths: Sequence[int] = (16, 32, 64), layers: int = 1
) -> KLAutoencoder:
    """One in the size of the embedded data or of photographs at 64 px.

    Args:
        channels: of the latents.
        widths: channels per resolution, each half of the one before.
        layers: residual blocks per resolution.
    """
    network = AutoencoderKL(
        block_out_channels=tuple(widths),
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        latent_channels=channels,
        layers_per_block=layers,
        norm_num_groups=8,
        sample_size=resolution,
        mid_block_add_attention=False,
    )
    return KLAutoencoder(network, resolution)


@dataclass(frozen=True)
class AutoencoderTraining:
    """How an autoencoder is trained on public images (Rombach et al. 2022, arXiv 2112.10752).

    Attributes:
        judge: rates and weights of reconstruction.
        divergence: weight of the KL term, a sum over latents, beside squared error per pixel.
        first_images: how many public images the latents are standardised by.
    """

    judge: Judge
    divergence: float = 1e-6
    first_images: int = 2000

    def pretrain(self, autoencoder: KLAutoencoder, public: Records, trainer: Trainer) -> None:
        """Train it on public images; it is left in eval mode, frozen."""
        images = as_tensor(public.images)
        autoencoder.train()
        whole = self.judge.over(autoencoder, trainer.device)
        label = "pretraining the autoencoder"
        trainer.fit(whole, self._loss, {"images": images}, whole.optimizer(), cosine(), label)
        autoencoder.eval().requires_grad_(False)
        autoencoder.standardise(to_float(images[: self.first_images].to(trainer.device)))

    def _loss(self, model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, Reconstruction)
        images = to_float(batch["images"])
        made, divergence = model.network(images)
        return model.loss(made, images) + self.divergence * divergence


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
        images = torch.from_numpy(np.array(columns["images"]))
        device = _device_of(self.autoencoder)
        # As much memory at every size: 512 images of 32 px, 8 of 256 px.
        batch = max(1, PIXELS_AT_ONCE // images[0, 0].numel())
        parts = [
            self.autoencoder.encode(to_float(part.to(device))).half().cpu()
            for part in images.split(batch)
        ]
        return {"latents": torch.cat(parts)}


@torch.no_grad()
def report_autoencoder(autoencoder: Autoencoder, held_out: Records) -> dict[str, float]:
    """PSNR in dB of unseen public images, decoded from their latents."""
    error = 0.0
    for images in images_in(held_out, _device_of(autoencoder)):
        made = autoencoder.decode(autoencoder.encode(images)).clamp(-1, 1)
        error += float((made - images).square().mean((1, 2, 3)).sum())
    return {"psnr": psnr(error / len(held_out))}


def _device_of(autoencoder: Autoencoder) -> torch.device:
    assert isinstance(autoencoder, nn.Module)
    return next(autoencoder.parameters()).device
