"""The text tower of an open-clip model: its last hidden states, one per token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wavedp.dp.errors import UserError
from wavedp.nn.text.batched import BatchedText, device_or_default


class ClipText(BatchedText):
    """Hidden states of a frozen CLIP text tower after its final norm, zeros behind the caption.

    Args:
        model: architecture that open-clip knows, such as ``ViT-L-14``.
        pretrained: a file of weights. A path, so that nothing is downloaded on the way.
        slots: tokens kept of a caption; at most the tower's own length, 77.
        batch: captions at once.
        device: where the tower runs; None for a GPU where there is one.

    Raises:
        UserError: open-clip or the weights are missing, ``slots`` is out of range, or the model's
            text tower is not of CLIP's own kind.
    """

    def __init__(
        self,
        model: str = "ViT-L-14",
        pretrained: str = "",
        slots: int = 77,
        batch: int = 64,
        device: str | None = None,
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
        self._device = device_or_default(device)
        self._clip = clip.eval().requires_grad_(False).to(self._device)
        self._tokenizer = open_clip.get_tokenizer(model)
        if not isinstance(getattr(clip, "token_embedding", None), nn.Embedding):
            raise UserError(
                f"The text tower of {model} is another library's; choose a model with CLIP's own, "
                "such as text.model=ViT-L-14."
            )
        length = int(self._clip.context_length)
        if not 0 < slots <= length:
            raise UserError(f"text.slots must lie in 1..{length} for {model}, got {slots}.")
        width = int(self._clip.token_embedding.weight.shape[1])
        tower = nn.Module()
        tower.tokens, tower.positions = clip.token_embedding, clip.positional_embedding
        tower.transformer, tower.norm = clip.transformer, clip.ln_final
        # The name stands for what is in no weight: heads, activation, vocabulary.
        super().__init__(tower, slots, width, batch, model)

    def hidden(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """See :class:`BatchedText`."""
        tokens = self._tokenizer(list(captions)).to(self._device)
        clip = self._clip
        x = clip.token_embedding(tokens) + clip.positional_embedding
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask)).float().cpu()
        # The end-of-text token has the highest number; nothing behind it is read.
        end = tokens.argmax(1, keepdim=True).cpu()
        inside = torch.arange(tokens.shape[1]) <= end
        return x[:, : self.slots], inside[:, : self.slots]

    def length(self, caption: str) -> int:
        """See :class:`BatchedText`."""
        return len(self._tokenizer.encode(caption)) + 2  # start and end
