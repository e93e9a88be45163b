"""What samples are compared with: reference images, held-out real images and prompts.

The *held-out* images are those that the prompts describe; the oracle row is made of them, and real
images are scored by them. The *reference* gives the statistics; unless a protocol takes all
evaluation records for it, the two do not meet, so no image is compared with itself. Prompts never
come from private captions.

Neither side is copied: both are rows of the memory-mapped evaluation records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from benchmarks.batches import Batches, read
from benchmarks.digest import sha256_of_lines
from benchmarks.protocol import Protocol
from wavedp.data.schema import Dataset, Records
from wavedp.dp.errors import UserError

QUICK = Protocol(name="quick")


@dataclass(frozen=True)
class Evaluation:
    """Attributes:
    reference: real images whose statistics samples are compared with.
    records: all evaluation records.
    held: the rows of ``records`` that are held out; prompt i describes row ``held[i]`` as long as
        there are held-out rows.
    prompts: one caption per sample.
    rows: for each prompt the row of ``records`` that it describes.
    protocol: where all this comes from.
    """

    reference: Records
    records: Records
    held: Sequence[int]
    prompts: tuple[str, ...]
    rows: tuple[int, ...]
    protocol: Protocol = QUICK

    @property
    def prompts_sha256(self) -> str:
        """Digest of the prompts in order, one per line."""
        return sha256_of_lines(self.prompts)

    @property
    def overlapping(self) -> bool:
        """True if held-out images are in the reference: real images cannot be scored then."""
        return self.protocol.reference == "all"

    @property
    def held_images(self) -> Batches:
        """The held-out images, in the order of their prompts."""
        return Batches(self.records.images, self.held)

    def real(self, prompts: slice) -> Tensor:
        """The real image of each of some prompts, uint8 ``[b, 3, H, W]``."""
        return read(self.records.images, self.rows[prompts])


def make_evaluation(dataset: Dataset, samples: int, protocol: Protocol = QUICK) -> Evaluation:
    """Prompts and reference of a data set's evaluation records, for ``samples`` samples.

    Raises:
        UserError: fewer than four evaluation records, or fewer captions than prompts to draw.
    """
    records = dataset.evaluation()
    if len(records) < 4:
        raise UserError(
            f"{dataset.name} has {len(records)} evaluation records; at least 4 are needed."
        )
    count = protocol.count(samples, len(records))
    room = len(records) if protocol.reference == "all" else len(records) // 2
    pick = {"in_order": _in_order, "at_random": _at_random}[protocol.draw]
    held, prompts, rows = pick(records.slice(0, room), count, protocol.seed)
    # Behind the last held-out row, so that the sides never meet and the reference stays a view.
    start = 0 if protocol.reference == "all" else max(held) + 1
    reference = records.slice(start, len(records))
    return Evaluation(reference, records, held, prompts, rows, protocol)


Picked = tuple[Sequence[int], tuple[str, ...], tuple[int, ...]]
"""Held-out rows, prompts, and the row of each prompt."""


def _in_order(records: Records, count: int, seed: int) -> Picked:
    """One caption of each record; different captions where an image serves more than once."""
    del seed
    held = range(min(count, len(records)))
    rows = tuple(i % len(held) for i in range(count))
    captions = [records.captions[i] for i in held]
    prompts = tuple(
        captions[row][(i // len(held)) % len(captions[row])] for i, row in enumerate(rows)
    )
    return held, prompts, rows


def _at_random(records: Records, count: int, seed: int) -> Picked:
    """Captions without replacement; the first of each image lead, so that prompt i has image i."""
    captions = [(i, text) for i in range(len(records)) for text in records.captions[i]]
    if count > len(captions):
        raise UserError(
            f"{records.name} has {len(captions)} captions and the protocol draws {count}; use "
            "another suite.protocol."
        )
    drawn = np.random.default_rng(seed).choice(len(captions), count, replace=False)
    turns: dict[int, int] = {}
    ordered = []
    for number in sorted(drawn.tolist()):
        image, text = captions[number]
        turns[image] = turns.get(image, -1) + 1
        ordered.append((turns[image], image, text))
    ordered.sort(key=lambda item: item[:2])
    prompts = tuple(text for _, _, text in ordered)
    return sorted(turns), prompts, tuple(image for _, image, _ in ordered)
