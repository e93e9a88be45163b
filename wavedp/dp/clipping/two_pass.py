"""The memory-lean engine: norms in one pass, the clipped sum in another.

Ghost clipping (Li et al. 2022, arXiv 2110.05679): nothing per example outlives a layer's
backward step but one number, so it needs no more memory than ordinary training, also under
activation checkpointing. It computes the loss twice, with the same random draws.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wavedp.dp.clipping import Batch, Passes, PerExampleLoss, zero_sums
from wavedp.dp.clipping.calls import Watch, clipping_weights, repeatable


class TwoPassEngine:
    """Exact flat clipping under the same conditions as book-keeping.

    Layers that share a parameter, or are called twice, are kept as book-keeping keeps them: their
    norm has cross terms.
    """

    def __init__(self, model: nn.Module, loss: PerExampleLoss, clip: float, passes: Passes) -> None:
        self.sums = zero_sums(model)
        self._model, self._clip = model, clip
        self._watch = Watch(model, loss, passes.views, norms_only=True)
        self._run = passes.compile(self._watch.run)
        self._gradients = passes.compile(self._watch.gradients)
        self._checked = False

    def add(self, batch: Batch, mask: Tensor) -> None:
        if not self._checked:
            self._checked = self._watch.probe({name: rows[:1] for name, rows in batch.items()})
        with repeatable(self._model) as again:
            with self._watch.watching(len(mask)) as carriers:
                handed = torch.autograd.grad(self._run(batch).sum(), carriers)
            kept, squared = self._gradients(handed)
            weights = clipping_weights(squared, mask, self._clip)
            with torch.no_grad():
                for name, form in kept.items():
                    self.sums[name] += weights.sum(form).view_as(self.sums[name])
            again()
            with self._watch.watching(len(mask), weights) as carriers:
                losses = self._run(batch)
                found = torch.autograd.grad(losses.sum(), carriers) if carriers else ()
        for name, total in zip(self._watch.summed, found, strict=True):
            self.sums[name] += total


def build(model: nn.Module, loss: PerExampleLoss, clip: float, passes: Passes) -> TwoPassEngine:
    """See :func:`wavedp.dp.clipping.make_engine`."""
    return TwoPassEngine(model, loss, clip, passes)
