"""What samples are compared with: reference images, held-out real images and prompts.

The *held-out* side gives the prompts, the real image of each, the images of the oracle row and
the score that real images get. The *reference* side gives the statistics; under the protocol
``quick`` the two sides do not meet, so no image is compared with itself. Prompts never come
from private captions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.digest import sha256_of_lines
from benchmarks.protocol import Protocol
from wavedp.data.schema import Dataset, Records
from wavedp.dp.errors import UserError

QUICK = Protocol(name="quick")


@dataclass(frozen=True)
class Evaluation:
    """Attributes:
    reference: real images whose statistics samples are compared with.
    held_out: the real images that the prompts describe.
    prompts: one caption per sample.
    rows: for each prompt the held-out image that it describes; prompt i describes image i as
        long as there are images.
    protocol: where all this comes from.
    """

    reference: Records
    held_out: Records
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
    chosen, prompts, rows = pick(records.slice(0, room), count, protocol.seed)
    reference = records if protocol.reference == "all" else records.slice(len(chosen), len(records))
    return Evaluation(reference, chosen, prompts, rows, protocol)


def _in_order(
    records: Records, count: int, seed: int
) -> tuple[Records, tuple[str, ...], tuple[int, ...]]:
    """One caption of each record; different captions where an image serves more than once."""
    del seed
    held = min(count, len(records))
    rows = tuple(i % held for i in range(count))
    captions = [records.captions[i] for i in range(held)]
    prompts = tuple(captions[row][(i // held) % len(captions[row])] for i, row in enumerate(rows))
    return records.slice(0, held), prompts, rows


def _at_random(
    records: Records, count: int, seed: int
) -> tuple[Records, tuple[str, ...], tuple[int, ...]]:
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
    images = sorted(turns)
    place = {image: row for row, image in enumerate(images)}
    held = Records(records.images[images], [records.captions[i] for i in images], records.name)
    return held, tuple(text for _, _, text in ordered), tuple(place[i] for _, i, _ in ordered)
