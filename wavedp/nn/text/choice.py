"""Which caption of a record trains in a step, and when none does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def draw_captions(captions: Sequence[Sequence[str]], records: Tensor, most: int) -> list[str]:
    """One of the first ``most`` captions of each of the numbered records; fewer are repeated."""
    lists = [captions[record] for record in records.tolist()]
    choice = torch.randint(most, (len(lists),)).tolist()
    return [own[i % len(own)] for own, i in zip(lists, choice, strict=True)]


def draw_text(texts: Tensor, dropout: float, without_text: Callable[[Tensor], Tensor]) -> Tensor:
    """One encoded caption per record, or what stands for none.

    Args:
        texts: ``[b, captions, slots, width]``.
        dropout: chance that a record trains without its caption, for classifier-free guidance.
        without_text: what stands in the place of encoded captions ``[b, slots, width]``.

    Returns:
        ``[b, slots, width]``.
    """
    rows = torch.arange(len(texts), device=texts.device)
    choice = torch.randint(texts.shape[1], (len(texts),), device=texts.device)
    keep = torch.rand(len(texts), 1, 1, device=texts.device) >= dropout
    text = texts[rows, choice]
    text = text.float() if text.is_floating_point() else text
    return text.where(keep, without_text(text))
