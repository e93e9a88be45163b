"""The text tower of an open-clip model: its last hidden states, one per token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wavedp.dp.errors import UserError
from wavedp.nn.fingerprint import fingerprint


class ClipText:
    """Hidden states of a frozen CLIP text tower after its final norm, zeros behind the caption.

    Args:
        model: architecture that open-clip knows, such as ``ViT-L-14``.
        pretrained: a file of weights. A path, so that nothing is downloaded on the way.
        slots: tokens kept of a caption; at most the tower's own length, 77.
        batch: captions at once.
        device: where the tower runs.

    Raises:
        UserError: open-clip or the weights are missing, or ``slots`` is out of range.
    """

    def __init__(
        self,
        model: str = "ViT-L-14",
        pretrained: str = "",
        slots: int = 77,
        batch: int = 64,
        device: str = "cpu",
    ) -> None:
        try:
            import open_clip
        except ModuleNotFoundError as error:
            raise UserError(
                'CLIP text needs open-clip-torch; install it with `pip install "wavedp[paper]"`.'
            ) from error
        if not Path(pretrained).expanduser().is_file():
            raise UserError(
                f"There are no CLIP weights at {pretrained or '(not set)'}; set text.pretrained "
                "to a file of open-clip weights."
            )
        clip: Any = open_clip.create_model(model, pretrained=str(Path(pretrained).expanduser()))
        self._clip = clip.eval().requires_grad_(False).to(device)
        self._tokenizer = open_clip.get_tokenizer(model)
        length = int(self._clip.context_length)
        if not 0 < slots <= length:
            raise UserError(f"text.slots must lie in 1..{length} for {model}, got {slots}.")
        self.slots, self.width = slots, int(self._clip.token_embedding.weight.shape[1])
        self._batch, self._device = batch, device
        self._name = f"ClipText 1 {slots} {fingerprint(self._clip.transformer)}"

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
        tokens = self._tokenizer(list(captions)).to(self._device)
        clip = self._clip
        x = clip.token_embedding(tokens) + clip.positional_embedding
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask)).float().cpu()
        # The end-of-text token has the highest number; nothing behind it is read.
        end = tokens.argmax(1, keepdim=True).cpu()
        given = torch.tensor([bool(caption.strip()) for caption in captions])
        mask = (torch.arange(tokens.shape[1]) <= end) & given.unsqueeze(1)
        return torch.as_tensor(x * mask.unsqueeze(2))[:, : self.slots]

    def too_long(self, captions: Sequence[str]) -> int | None:
        """See :class:`~wavedp.nn.text.TextEncoder`."""
        for index, caption in enumerate(captions):
            # Start and end tokens are two more.
            if len(self._tokenizer.encode(caption)) + 2 > self.slots:
                return index
        return None
