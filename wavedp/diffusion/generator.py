"""Generators that denoise: what methods of a denoiser share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from wavedp.data.schema import Records
from wavedp.diffusion.autoencoder import Autoencoder, LatentEncoder
from wavedp.diffusion.denoiser import Denoiser
from wavedp.diffusion.training import DiffusionTraining, ImageEncoder
from wavedp.dp.errors import UserError
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer
from wavedp.nn.images import to_float, to_uint8
from wavedp.wavelet.encoders import PIXELS_AT_ONCE
from wavedp.wavelet.training import check_prompts


class DiffusionGenerator(nn.Module):
    """A denoiser in what an autoencoder makes of images; implements ``protocol.ImageGenerator``.

    Args:
        autoencoder: frozen and public, or :class:`~wavedp.diffusion.autoencoder.Pixels`.
        denoiser: works in its latents.
        training: how the denoiser is trained and sampled.
        published: whether the denoiser is published, so that there is nothing to pretrain.

    Raises:
        UserError: the denoiser takes something else than the autoencoder makes.
    """

    conditioning: ClassVar[Literal["text", "none"]] = "text"

    def __init__(
        self,
        autoencoder: Autoencoder,
        denoiser: Denoiser,
        training: DiffusionTraining,
        published: bool = False,
    ) -> None:
        super().__init__()
        made = autoencoder.channels, autoencoder.side
        if made != (denoiser.channels, denoiser.side):
            raise UserError(
                f"The denoiser takes {denoiser.channels} channels of {denoiser.side} px and is "
                f"given {made[0]} of {made[1]} px; set denoiser.channels and denoiser.side."
            )
        assert isinstance(autoencoder, nn.Module)
        self.autoencoder, self.denoiser = autoencoder, denoiser
        self.resolution = autoencoder.resolution
        self._training, self._published = training, published
        self._parts = autoencoder.parts
        self._encode: ImageEncoder = LatentEncoder(autoencoder)

    @property
    def stages(self) -> Mapping[str, tuple[str, ...]]:
        """See :class:`wavedp.protocol.ImageGenerator`. Published parts are not trained."""
        if self._published:
            return {}
        return {"denoiser": tuple(f"autoencoder.{part}" for part in self._parts)}

    def pretrain(self, stage: str, public: Records, trainer: Trainer) -> None:
        """See :class:`wavedp.protocol.ImageGenerator`."""
        self._training.pretrain(self.denoiser, self._encode, public, trainer)

    def report(self, stage: str, held_out: Records) -> Mapping[str, float]:
        """See :class:`wavedp.protocol.ImageGenerator`."""
        return self._training.report(self.denoiser, self._encode, held_out)

    def check(self, prompts: Sequence[str]) -> None:
        """See :class:`wavedp.protocol.ImageGenerator`."""
        self.denoiser.check_encoders(self._encode.key, self._training.text.key)
        self._training.check()
        check_prompts(self._training.text, prompts)

    def finetune(self, private: PrivateRecords, trainer: Trainer) -> None:
        """DP-finetune what :meth:`choose` leaves trainable, or adapters that become part of it."""
        self.denoiser.requires_grad_(False)
        for module in self.choose():
            module.requires_grad_(True)
        self._training.finetune(self.denoiser, self._encode, private, trainer)

    def choose(self) -> Sequence[nn.Module]:
        """What is trained on private records, of the denoiser: all of it."""
        return [self.denoiser]

    @torch.no_grad()
    def generate(self, captions: Sequence[str], seed: int) -> Iterator[Tensor]:
        """Draw latents by their captions and decode them."""
        for latents in self._training.sample(self.denoiser, captions, seed):
            yield to_uint8(self.autoencoder.decode(latents))

    @torch.no_grad()
    def oracle(self, images: Tensor) -> Tensor:
        """What the autoencoder keeps of real images."""
        # In parts: an autoencoder of large images takes gigabytes for a few.
        parts = images.split(max(1, PIXELS_AT_ONCE // images[0, 0].numel()))
        encode, decode = self.autoencoder.encode, self.autoencoder.decode
        return torch.cat([to_uint8(decode(encode(to_float(part)))) for part in parts])
