"""The published text-to-image latent diffusion model, as diffusers keeps it on disk.

``CompVis/ldm-text2im-large-256`` (Rombach et al. 2022): a KL autoencoder, a U-Net of 872 million
parameters, and a BERT of 582 million that is part of the model: DP-LDM trains it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertModel
from torch import Tensor

from wavedp.diffusion.autoencoder import KLAutoencoder
from wavedp.diffusion.denoiser import Denoiser, Reader
from wavedp.dp.errors import UserError

MODEL = "CompVis/ldm-text2im-large-256"


def published_autoencoder(
    model: str = MODEL, resolution: int = 256, revision: str | None = None
) -> KLAutoencoder:
    """Its autoencoder, with the published scale of latents.

    Raises:
        UserError: it is not on this machine.
    """
    network = _network(AutoencoderKL, model, "vqvae", revision)
    autoencoder = KLAutoencoder(network, resolution)
    autoencoder.scale.fill_(1 / network.config.scaling_factor)
    return autoencoder.eval().requires_grad_(False)


def published_denoiser(
    model: str = MODEL, slots: int = 77, revision: str | None = None
) -> Denoiser:
    """Its U-Net and the BERT that reads for it.

    Args:
        slots: tokens of a caption.

    Raises:
        UserError: it is not on this machine, or its BERT takes fewer tokens.
    """
    unet = _network(UNet2DConditionModel, model, "unet", revision)
    bert = _loaded(LDMBertModel.from_pretrained, model, "bert", revision)
    none = BertTokens(model, slots, revision)([""])[0]
    reader = BertReader(bert, none)
    return Denoiser(unet, unet.config.sample_size, unet.config.in_channels, reader).eval()


class BertReader(Reader):
    """Token numbers to the hidden states of a BERT.

    Args:
        bert: the model; its head over the vocabulary is left out.
        none: what the empty caption is, ``[slots, 1]``.
    """

    none: Tensor

    def __init__(self, bert: LDMBertModel, none: Tensor) -> None:
        super().__init__()
        self.model = bert.model
        self.register_buffer("none", none, persistent=False)

    def forward(self, text: Tensor) -> Tensor:
        """``[b, slots, 1]`` to ``[b, slots, width]``."""
        return torch.as_tensor(self.model(text.squeeze(2).long(), return_dict=True)[0])

    def without_text(self, text: Tensor) -> Tensor:
        """The empty caption in every row."""
        return self.none.to(text).expand_as(text)


class BertTokens:
    """Captions as token numbers, int32 ``[n, slots, 1]``; a ``TextEncoder`` with nothing to learn.

    Args:
        model: a name on the Hugging Face Hub or a folder.
        slots: tokens kept of a caption.
        revision: of the tokenizer.

    Raises:
        UserError: it is not on this machine.
    """

    width = 1

    def __init__(self, model: str = MODEL, slots: int = 77, revision: str | None = None) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = _loaded(AutoTokenizer.from_pretrained, model, "tokenizer", revision)
        self.slots = slots

    @property
    def key(self) -> str:
        """See :class:`~wavedp.nn.text.TextEncoder`: the vocabulary is all there is."""
        return f"BertTokens 1 {self.slots} {sorted(self._tokenizer.get_vocab().items())}"

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Longer captions are cut, shorter ones padded."""
        read = self._tokenizer(
            list(captions),
            max_length=self.slots,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        return torch.as_tensor(read.input_ids).int().unsqueeze(2)

    def too_long(self, captions: Sequence[str]) -> int | None:
        """See :class:`~wavedp.nn.text.TextEncoder`."""
        for index, caption in enumerate(captions):
            if len(self._tokenizer(caption).input_ids) > self.slots:
                return index
        return None


def _network(kind: Any, model: str, part: str, revision: str | None) -> Any:
    # The other way needs accelerate, and warns where it is missing.
    return _loaded(partial(kind.from_pretrained, low_cpu_mem_usage=False), model, part, revision)


def _loaded(load: Callable[..., Any], model: str, part: str, revision: str | None) -> Any:
    try:
        return load(model, subfolder=part, revision=revision, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The part {part!r} of {model} is not on this machine (5.7 GB in all, Apache 2.0): "
            f"fetch it with `hf download {model}` or set model to a folder in the layout of "
            "diffusers."
        ) from error
