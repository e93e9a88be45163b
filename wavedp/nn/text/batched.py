"""What text encoders that are networks share: batches, null text, captions that are cut."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from wavedp.nn.fingerprint import fingerprint


def device_or_default(device: str | None) -> torch.device:
    """The device that is named, else a GPU where there is one."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def tokens_of(tokenizer: Any, captions: Sequence[str], slots: int) -> Any:
    """What a tokenizer of transformers makes of captions, padded or cut to ``slots``."""
    return tokenizer(
        list(captions),
        max_length=slots,
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    )


def first_longer(lengths: Iterable[int], slots: int) -> int | None:
    """The index of the first length above ``slots``."""
    return next((index for index, length in enumerate(lengths) if length > slots), None)


class BatchedText(ABC):
    """A frozen network that reads tokens; see :class:`~wavedp.nn.text.TextEncoder`.

    Args:
        encoder: all weights that decide what is made of a caption; the key names them.
        settings: what else decides it, such as the vocabulary.
        slots, width: shape of an encoded caption.
        batch: captions at once.
    """

    def __init__(
        self, encoder: nn.Module, slots: int, width: int, batch: int, *settings: object
    ) -> None:
        self.slots, self.width, self._batch = slots, width, batch
        self._hashed = encoder, settings

    @cached_property  # gigabytes are read for it
    def key(self) -> str:
        """See :class:`~wavedp.nn.text.TextEncoder`."""
        encoder, settings = self._hashed
        return f"{type(self).__name__} 2 {self.slots} {fingerprint(encoder, *settings)}"

    @abstractmethod
    def hidden(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States ``[n, slots, width]`` on the CPU, and which of them belong to the caption."""

    @abstractmethod
    def length(self, caption: str) -> int:
        """Tokens of a caption, with all that the network adds."""

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> Tensor:
        """See :class:`~wavedp.nn.text.TextEncoder`."""
        rows = torch.zeros(len(captions), self.slots, self.width)
        for start in range(0, len(captions), self._batch):
            part = captions[start : start + self._batch]
            states, inside = self.hidden(part)
            given = torch.tensor([bool(caption.strip()) for caption in part])
            rows[start : start + len(part)] = states * (inside & given[:, None]).unsqueeze(2)
        return rows

    def too_long(self, captions: Sequence[str]) -> int | None:
        """See :class:`~wavedp.nn.text.TextEncoder`."""
        return first_longer(map(self.length, captions), self.slots)
