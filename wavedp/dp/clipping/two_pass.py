"""The memory-lean engine: norms in one pass, the clipped sum in another.

Ghost clipping (Li et al. 2022, arXiv 2110.05679): nothing per example outlives a layer's
backward step but one number, so it needs no more memory than ordinary training, also under
activation checkpointing. It computes the loss twice, with the same random draws.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wavedp.dp.clipping import Batch, Passes, PerExampleLoss, zero_sums
from wavedp.dp.clipping.calls import Watch, gradients_at, repeatable
from wavedp.dp.clipping.sites import clipping_weights
from wavedp.dp.errors import UserError


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
            self._checked = self._watch.probe(batch)
        with repeatable(self._model) as again:
            with self._watch.watching(len(mask)) as carriers:
                first = self._run(batch)
                handed = gradients_at(carriers, first)
            kept, squared = self._gradients(handed)
            weights = clipping_weights(squared, mask, self._clip)
            with torch.no_grad():
                for name, form in kept.items():
                    self.sums[name] += weights.sum(form).view_as(self.sums[name])
            again()
            with self._watch.watching(len(mask), weights) as carriers:
                second = self._run(batch)
                _check_same(first.detach(), second.detach())
                found = gradients_at(carriers, second) if carriers else ()
        for name, total in zip(self._watch.summed, found, strict=True):
            self.sums[name] += total


def _check_same(first: Tensor, second: Tensor) -> None:
    """What is summed must be what was measured.

    Raises:
        UserError: the second pass computed other losses.
    """
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-6, equal_nan=True):
        raise UserError(
            "The loss is not the same when it is computed again: it draws random numbers outside "
            "torch's default generator; draw them there, or use engine=bookkeeping."
        )


def build(model: nn.Module, loss: PerExampleLoss, clip: float, passes: Passes) -> TwoPassEngine:
    """See :func:`wavedp.dp.clipping.make_engine`."""
    return TwoPassEngine(model, loss, clip, passes)
