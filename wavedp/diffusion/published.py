"""The published text-to-image latent diffusion model, as diffusers keeps it on disk.

``CompVis/ldm-text2im-large-256`` (Rombach et al. 2022): a KL autoencoder, a U-Net of 872 million
parameters, and a BERT of 542 million that is part of the model: DP-LDM trains it, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
    LDMBertConfig,
    LDMBertModel,
)
from torch import Tensor

from wavedp.diffusion.autoencoder import KLAutoencoder
from wavedp.diffusion.denoiser import Denoiser, Reader
from wavedp.dp.errors import UserError
from wavedp.nn.text.batched import first_longer, tokens_of
from wavedp.nn.untrained import drawn, wordless

MODEL = "CompVis/ldm-text2im-large-256"
LATENT_SCALE = 0.18215
"""What the model's latents are multiplied by."""

AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 256,
}
"""``vqvae/config.json``."""

UNET: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 32,
    "layers_per_block": 2,
    "cross_attention_dim": 1280,
    "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
"""``unet/config.json``."""

BERT: dict[str, Any] = {}
"""``bert/config.json`` has what diffusers takes where nothing is said."""


def published_autoencoder(path: str, resolution: int = 256) -> KLAutoencoder:
    """Its autoencoder.

    Args:
        path: the file of weights; ``config.json`` lies beside it.

    Raises:
        UserError: it is not on this machine, or damaged.
    """
    if (settings := drawn("ldm_autoencoder", AUTOENCODER)) is not None:
        return KLAutoencoder(AutoencoderKL(**settings), resolution)
    return KLAutoencoder(_network(AutoencoderKL, path, low_cpu_mem_usage=False), resolution)


def published_denoiser(unet: str, bert: str, tokenizer: str, slots: int = 77) -> Denoiser:
    """Its U-Net and the BERT that reads for it.

    Args:
        unet, bert: files of weights; ``config.json`` lies beside each.
        tokenizer: a folder.
        slots: tokens of a caption.

    Raises:
        UserError: they are not on this machine, or damaged, or the BERT takes fewer tokens.
    """
    none = BertTokens(tokenizer, slots)([""])[0]
    if (settings := drawn("ldm_unet", UNET)) is not None:
        network = UNet2DConditionModel(**settings)
        reader = BertReader(LDMBertModel(LDMBertConfig(**drawn("ldm_bert", BERT) or {})), none)
    else:
        network = _network(UNet2DConditionModel, unet, low_cpu_mem_usage=False)
        reader = BertReader(_network(LDMBertModel, bert), none)
    denoiser = Denoiser(network, network.config.sample_size, network.config.in_channels, reader)
    denoiser.scale.fill_(1 / LATENT_SCALE)
    return denoiser.eval()


class BertReader(Reader):
    """Token numbers to the hidden states of a BERT.

    Args:
        bert: the model; its head over the vocabulary is left out.
        none: what the empty caption is, ``[slots, 1]``.

    Raises:
        UserError: the BERT takes fewer tokens.
    """

    none: Tensor

    def __init__(self, bert: LDMBertModel, none: Tensor) -> None:
        super().__init__()
        most = bert.config.max_position_embeddings
        if len(none) > most:
            raise UserError(f"denoiser.slots={len(none)} is more than the {most} of the BERT.")
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
        folder: of the tokenizer.
        slots: tokens kept of a caption.

    Raises:
        UserError: it is not on this machine.
    """

    width = 1

    def __init__(self, folder: str, slots: int = 77) -> None:
        from transformers import AutoTokenizer

        if drawn("ldm_tokenizer", {}) is not None:
            self._tokenizer = wordless(slots)
        else:
            self._tokenizer = _loaded(AutoTokenizer.from_pretrained, Path(folder))
        self.slots = slots

    @property
    def key(self) -> str:
        """See :class:`~wavedp.nn.text.TextEncoder`: the vocabulary is all there is."""
        words = repr(sorted(self._tokenizer.get_vocab().items()))
        return f"BertTokens 1 {self.slots} {hashlib.sha256(words.encode()).hexdigest()}"

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Longer captions are cut, shorter ones padded."""
        read = tokens_of(self._tokenizer, captions, self.slots)
        return torch.as_tensor(read.input_ids).int().unsqueeze(2)

    def too_long(self, captions: Sequence[str]) -> int | None:
        """See :class:`~wavedp.nn.text.TextEncoder`."""
        lengths = (len(self._tokenizer(caption).input_ids) for caption in captions)
        return first_longer(lengths, self.slots)


def _network(kind: Any, path: str, **settings: Any) -> Any:
    """The network of a file of weights, each of them and no other."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise _missing(file)
    chosen = {"use_safetensors": file.suffix == ".safetensors", "output_loading_info": True}
    network, found = _loaded(kind.from_pretrained, file.parent, **chosen, **settings)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = sorted(str(name) for name in found[problem])
        if names:
            raise UserError(
                f"{file.parent.name}/{file.name} has {problem.replace('_', ' ')}: "
                f"{', '.join(names[:5])}{' and more' if len(names) > 5 else ''}; it is incomplete "
                f"or of another kind, fetch {MODEL} anew."
            )
    return network


def _loaded(load: Callable[..., Any], folder: Path, **settings: Any) -> Any:
    if not folder.expanduser().is_dir():
        raise _missing(folder)
    try:
        return load(folder.expanduser(), local_files_only=True, **settings)
    except Exception as error:  # of many kinds, by what is damaged
        raise UserError(
            f"{folder.name} cannot be read as a part of {MODEL} in the layout of diffusers: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error


def _missing(place: Path) -> UserError:
    return UserError(
        f"There is no {place.parent.name}/{place.name}, a part of {MODEL} (5.7 GB in all, Apache "
        f"2.0): fetch it with `hf download {MODEL} --local-dir ldm-text2im` and set method.model "
        "to that folder."
    )
