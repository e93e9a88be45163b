"""What every dataset is made of: images with all their captions.

One record is one image together with *all* its captions; it is the privacy unit.
A dataset answers three questions: which records are private (and it hands them over
sealed), which records are for evaluation, and how many private records there are by
declaration (a number in the dataset's config, never a count of files).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from wavedp.dp.errors import UserError
from wavedp.dp.private import PrivateRecords
from wavedp.dp.progress import Progress, silent


@dataclass(frozen=True)
class Records:
    """Public (or evaluation) images with captions, freely indexable.

    Attributes:
        images: uint8 array ``[n, 3, H, W]`` in 0..255, possibly memory-mapped.
        captions: for each record, a non-empty tuple of captions.
        name: where they come from, for messages and records.
    """

    images: np.ndarray
    captions: Sequence[tuple[str, ...]]
    name: str

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[1] != 3 or self.images.dtype != np.uint8:
            raise UserError(
                f"{self.name}: images must be uint8 [n, 3, H, W], "
                f"got {self.images.dtype} {list(self.images.shape)}."
            )
        if len(self.captions) != len(self.images):
            raise UserError(
                f"{self.name}: {len(self.images)} images but {len(self.captions)} caption "
                "lists; every image needs its captions."
            )

    def __len__(self) -> int:
        return len(self.images)

    def slice(self, start: int, stop: int) -> Records:
        """Records ``start`` to ``stop`` (exclusive) as a view."""
        return Records(self.images[start:stop], self.captions[start:stop], self.name)

    def chunks(self, size: int) -> Iterator[Records]:
        """Consecutive slices of at most ``size`` records."""
        for start in range(0, len(self), size):
            yield self.slice(start, start + size)


@runtime_checkable
class Dataset(Protocol):
    """A dataset with a private side and an evaluation side that never meet."""

    name: str
    version: str
    resolution: int
    private_records: int
    """N, the declared number of private records: public, from the config."""
    redistributable: bool
    """False for photographs: reports that show them stay in a git-ignored folder."""

    def check(self, progress: Progress = silent) -> None:
        """Draw or decode what is not cached yet.

        Raises:
            UserError: anything needed is missing or damaged.
        """

    def private(self) -> PrivateRecords:
        """The private records, sealed."""

    def evaluation(self) -> Records:
        """Evaluation records, disjoint from the private ones, in a fixed order."""


@runtime_checkable
class PublicDataset(Protocol):
    """A public corpus for pretraining."""

    name: str
    version: str
    resolution: int

    def records(self, start: int, stop: int, progress: Progress = silent) -> Records:
        """Records ``start`` to ``stop`` (exclusive), drawn or decoded if not cached yet."""
