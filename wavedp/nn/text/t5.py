"""The encoder half of a Hugging Face T5, as LlamaGen and Imagen read captions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wavedp.dp.errors import UserError
from wavedp.nn.fingerprint import fingerprint


class T5Text:
    """Last hidden states of a frozen T5 encoder, zeros behind the caption.

    Args:
        model: a name on the Hugging Face Hub or a folder, such as ``google/flan-t5-xl`` (2048).
        slots: tokens kept of a caption.
        batch: captions at once.
        device: where the encoder runs.

    Raises:
        UserError: transformers or the weights are missing.
    """

    def __init__(
        self,
        model: str = "google/flan-t5-xl",
        slots: int = 120,
        batch: int = 32,
        device: str = "cpu",
    ) -> None:
        try:
            from transformers import AutoTokenizer, T5EncoderModel
        except ModuleNotFoundError as error:
            raise UserError(
                'T5 text needs transformers; install it with `pip install "wavedp[paper]"`.'
            ) from error
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
            encoder = T5EncoderModel.from_pretrained(model, local_files_only=True)
        except (OSError, ValueError) as error:
            raise UserError(
                f"The text encoder {model} is not on this machine; fetch it with "
                f"`hf download {model}` or set text.model to a folder."
            ) from error
        self._encoder = encoder.eval().requires_grad_(False).to(device)
        self.slots, self.width = slots, int(encoder.config.d_model)
        self._batch, self._device = batch, device
        self._name = f"T5Text 1 {slots} {fingerprint(encoder)}"

    @property
    def key(self) -> str:
        """See :class:`~wavedp.nn.text.TextEncoder`."""
        return self._name

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> Tensor:
        """See :class:`~wavedp.nn.text.TextEncoder`."""
        parts = [
            self._encode(captions[start : start + self._batch])
            for start in range(0, len(captions), self._batch)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, self.slots, self.width)

    def _encode(self, captions: Sequence[str]) -> Tensor:
        read = self._tokenizer(
            list(captions),
            max_length=self.slots,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).to(self._device)
        hidden = self._encoder(**read).last_hidden_state.float().cpu()
        given = torch.tensor([bool(caption.strip()) for caption in captions])
        mask = read.attention_mask.cpu().bool() & given.unsqueeze(1)
        return torch.as_tensor(hidden * mask.unsqueeze(2))

    def too_long(self, captions: Sequence[str]) -> int | None:
        """See :class:`~wavedp.nn.text.TextEncoder`."""
        for index, caption in enumerate(captions):
            if len(self._tokenizer(caption).input_ids) > self.slots:
                return index
        return None
