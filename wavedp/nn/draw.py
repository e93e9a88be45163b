"""How a code is drawn from its logits: guidance, temperature, top-k and top-p.

Shapes: b rows, K entries of a codebook.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draw:
    """A draw from logits ``[b, K]``, with guidance ``[2 b, K]``; see `CodePrior.sample`."""

    generator: torch.Generator
    guidance: float
    temperature: float
    top_k: int
    top_p: float = 1.0

    def __call__(self, logits: Tensor) -> Tensor:
        """Indices ``[b]``."""
        if self.guidance != 1.0:
            with_text, without = logits.chunk(2)
            logits = without + self.guidance * (with_text - without)
        if self.temperature == 0:
            return logits.argmax(-1)
        if 0 < self.top_k < logits.shape[-1]:
            threshold = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < threshold, -torch.inf)
        probabilities = (logits / self.temperature).softmax(-1)
        if self.top_p < 1:
            probabilities = nucleus(probabilities, self.top_p)
        return torch.multinomial(probabilities, 1, generator=self.generator).squeeze(1)


def nucleus(probabilities: Tensor, share: float) -> Tensor:
    """Zero all but the fewest most likely entries that hold ``share`` (Holtzman et al. 2020).

    Args:
        probabilities: ``[b, K]``.
    """
    ordered, order = probabilities.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(probabilities).scatter(-1, order, ordered * (before < share))
