"""Metrics: one file and one config each, with the same small contract."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks import bootstrap
from benchmarks.evaluation import Evaluation
from benchmarks.memo import Memo
from benchmarks.record import Direction
from wavedp.data.schema import Records
from wavedp.dp.private import PrivateRecords

Reads = Literal["nothing", "evaluation", "private"]
"""Which real images a metric reads beside the samples. Neither side is covered by epsilon:
``evaluation`` is the split that is kept for evaluation, ``private`` the private records."""

Scores = float | dict[str, float]
"""One number, or several by the name of the part."""


class Metric(ABC):
    """Accumulates samples, then gives one number or a few named ones.

    A metric keeps one row of numbers per sample (:meth:`describe`) and scores all rows at once
    (:meth:`score`), so its value does not depend on batches, workers or order beyond rounding:
    the rows are sorted by the content of the images before they are scored.

    Attributes:
        direction: what is better; by part where there are several numbers.
        needs_text: True if it compares images with their captions; skipped for unconditional
            methods.
        paired: True if it compares each sample with the real image of its caption.
        reads: which real images it reads.
        unlike: the published measure that it must not be taken for; empty if there is none.
        protocol: one sentence: feature network, resizing, sample handling.
        weights: names of its public weights in :mod:`benchmarks.registry`.
        least: the fewest samples, and the fewest reference images, that it can score.
    """

    direction: ClassVar[Direction | Mapping[str, Direction]]
    needs_text: ClassVar[bool] = False
    paired: ClassVar[bool] = False
    reads: ClassVar[Reads] = "evaluation"
    unlike: ClassVar[str] = ""
    protocol: str
    weights: tuple[str, ...] = ()
    least: int = 1
    replicates: int = 100
    """Bootstrap replicates behind the standard error."""

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []
        self._keys: list[bytes] = []

    def applies_to(self, conditioning: str) -> bool:
        """Whether it says anything of a method that is conditioned on "text" or on "none"."""
        return conditioning == "text" or not (self.needs_text or self.paired)

    def lacks(self, evaluation: Evaluation) -> str:
        """Why it says nothing of such prompts and reference images; empty if it does."""
        del evaluation
        return ""

    def open(self, device: torch.device) -> None:  # noqa: B027 - many need nothing
        """Load the networks.

        Raises:
            MissingWeights: public weights are not on this machine.
            UserError: a package is not installed, or a file is damaged.
        """

    def prepare(self, reference: Records) -> None:  # noqa: B027
        """Take statistics of the reference images."""

    def prepare_private(self, private: PrivateRecords) -> None:  # noqa: B027
        """Read the private records: for metrics whose ``reads`` is ``private`` only."""

    @abstractmethod
    def describe(
        self, images: Tensor, captions: Sequence[str], real: Tensor | None = None
    ) -> np.ndarray:
        """What is kept of each sample, ``[b, d]``; see :meth:`update`."""

    @abstractmethod
    def score(self, rows: np.ndarray) -> Scores:
        """The value of rows ``[n, d]`` of :meth:`describe`."""

    def standard_error(self, rows: np.ndarray) -> Scores:
        """The standard deviation that the value would have over other draws of n samples.

        NaN where that cannot be estimated from one set of samples: then none is stated.
        """
        return bootstrap.standard_error(rows, self.score, self.replicates)

    def update(self, images: Tensor, captions: Sequence[str], real: Tensor | None = None) -> None:
        """Add samples: uint8 ``[b, 3, H, W]`` and the captions they were drawn for.

        Args:
            real: the real image of each caption, for paired metrics.
        """
        self._rows.append(self.describe(images, captions, real))
        self._keys += content_keys(images)

    def take(self) -> np.ndarray:
        """The rows of all samples since the last call, sorted by content; then forget them."""
        rows, keys = np.concatenate(self._rows), self._keys
        self._rows, self._keys = [], []
        order: np.ndarray = np.argsort(np.array(keys, dtype="S16"), kind="stable")
        return rows[order]

    def forget(self) -> None:
        """Drop what is left of a scoring that did not come to its end."""
        self._rows, self._keys = [], []

    def compute(self) -> Scores:
        """The score of everything added since the last call; then forget the samples."""
        return self.score(self.take())


@Memo  # for all metrics that see the batch
def content_keys(images: Tensor) -> list[bytes]:
    """A key per image from its pixels alone, the same in any batch. Printable, 16 bytes."""
    pixels = images.cpu().contiguous().numpy()
    return [hashlib.blake2b(x.data, digest_size=8).hexdigest().encode() for x in pixels]


def named(name: str, scores: Scores) -> dict[str, float]:
    """Scores under the names that records use: ``fid``, or ``prdc_recall`` for a part."""
    if isinstance(scores, dict):
        return {f"{name}_{part}": value for part, value in scores.items()}
    return {name: scores}


def directions(name: str, metric: Metric) -> dict[str, Direction]:
    """The direction of every number of a metric, under the names that records use."""
    if isinstance(metric.direction, str):
        return {name: metric.direction}
    return {f"{name}_{part}": direction for part, direction in metric.direction.items()}
