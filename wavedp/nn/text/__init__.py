"""Text encoders: frozen, public, per caption. One file per kind.

A caption becomes ``slots`` vectors of ``width`` numbers; no text is all zeros, the null text of
classifier-free guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from wavedp.nn.text.hashed import HashedText

__all__ = ["HashedText", "TextEncoder"]


@runtime_checkable
class TextEncoder(Protocol):
    """Attributes:
    slots, width: shape of an encoded caption.
    key: names the encoder and its weights, for caches of what it made.
    """

    @property
    def slots(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def key(self) -> str: ...

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Captions to float32 ``[n, slots, width]``; longer ones are cut at a public length."""

    def too_long(self, captions: Sequence[str]) -> int | None:
        """Index of the first caption that would be cut, if any: for prompts, which are public."""
