"""Metrics: one file and one config each, with the same small contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor

from wavedp.data.schema import Records


@runtime_checkable
class Metric(Protocol):
    """Accumulates samples, then gives one number.

    The value must not depend on the batch size or on the order of the updates.
    """

    direction: ClassVar[Literal["lower", "higher"]]
    needs_text: ClassVar[bool]
    """True if it compares images with their captions; skipped for unconditional methods."""
    protocol: str
    """One sentence: feature network, resizing, sample handling."""

    def prepare(self, reference: Records) -> None:
        """Take statistics of the reference images."""

    def update(self, images: Tensor, captions: Sequence[str]) -> None:
        """Add samples: uint8 ``[b, 3, H, W]`` and the captions they were drawn for."""

    def compute(self) -> float:
        """The score of everything added since the last call; then forget the samples."""
