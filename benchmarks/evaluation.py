"""What samples are compared with: reference images, held-out real images and prompts.

The evaluation split is cut in two. The *reference* side gives the statistics; the *held-out*
side gives the prompts, the images of the oracle row and the score that real images get, so no
image is compared with itself. Prompts never come from private captions.
"""

from __future__ import annotations

from dataclasses import dataclass

from wavedp.data.schema import Dataset, Records
from wavedp.dp.errors import UserError


@dataclass(frozen=True)
class Evaluation:
    """Attributes:
    reference: real images whose statistics samples are compared with.
    held_out: other real images, at most as many as samples are drawn.
    prompts: one caption per sample; prompt i describes held-out image ``i % len``.
    """

    reference: Records
    held_out: Records
    prompts: tuple[str, ...]


def make_evaluation(dataset: Dataset, samples: int) -> Evaluation:
    """Split a data set's evaluation records for ``samples`` samples.

    Raises:
        UserError: fewer than four evaluation records.
    """
    records = dataset.evaluation()
    if len(records) < 4:
        raise UserError(
            f"{dataset.name} has {len(records)} evaluation records; at least 4 are needed."
        )
    held = min(samples, len(records) // 2)
    held_out = records.slice(0, held)
    captions = [held_out.captions[i] for i in range(held)]
    # Different captions of an image serve where it has to be used more than once.
    prompts = tuple(
        captions[i % held][(i // held) % len(captions[i % held])] for i in range(samples)
    )
    return Evaluation(records.slice(held, len(records)), held_out, prompts)
