"""The memory-lean engine: norms in one backward pass, the clipped sum in another.

Ghost clipping (Li et al. 2022, arXiv 2110.05679): nothing per example outlives a layer's
backward step but one number, so it needs no more memory than ordinary training, also under
activation checkpointing. It takes one more backward pass than book-keeping.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wavedp.dp.clipping import (
    Batch,
    Passes,
    PerExampleLoss,
    clip_factors,
    trainable,
    zero_sums,
)
from wavedp.dp.clipping.calls import Watch
from wavedp.dp.errors import UserError


class TwoPassEngine:
    """Exact flat clipping under the same conditions as book-keeping.

    Layers that share a parameter, or are called twice, are kept as book-keeping keeps them: their
    norm has cross terms.
    """

    def __init__(self, model: nn.Module, loss: PerExampleLoss, clip: float, passes: Passes) -> None:
        if passes.half:
            raise UserError(
                "engine=two_pass would round sums over records to bfloat16, by more than one "
                "record may change them; use engine=bookkeeping with amp, or no amp."
            )
        self.sums = zero_sums(model)
        self._parameters, self._clip = trainable(model), clip
        self._watch = Watch(model, loss, passes.views, norms_only=True)
        self._run = passes.compile(self._watch.run)
        self._gradients = passes.compile(self._watch.gradients)
        self._checked = False

    def add(self, batch: Batch, mask: Tensor) -> None:
        if not self._checked:
            self._checked = self._watch.probe({name: rows[:1] for name, rows in batch.items()})
        with self._watch.watching(len(mask)) as carriers:
            losses = self._run(batch)
            handed = torch.autograd.grad(losses.sum(), carriers, retain_graph=True)
            _, squared = self._gradients(handed)
            sound = squared.isfinite()
            if whole := bool(sound.all()):
                factors = clip_factors(squared, mask, self._clip)
                self._watch.reading = False
                self._add_weighted((losses * factors.to(losses.dtype)).sum())
        if not whole:
            self._add_sound(batch, mask, sound)

    def _add_weighted(self, loss: Tensor) -> None:
        parameters = list(self._parameters.values())
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        for name, gradient in zip(self._parameters, found, strict=True):
            if gradient is not None:
                self.sums[name] += gradient

    def _add_sound(self, batch: Batch, mask: Tensor, sound: Tensor) -> None:
        """Add the other records: a weight of zero does not take NaN out of a sum."""
        if bool(sound.any()):
            row = torch.arange(len(mask), device=mask.device)
            row = row.where(sound, int(sound.nonzero()[0]))
            self.add({name: rows[row] for name, rows in batch.items()}, mask & sound)


def build(model: nn.Module, loss: PerExampleLoss, clip: float, passes: Passes) -> TwoPassEngine:
    """See :func:`wavedp.dp.clipping.make_engine`."""
    return TwoPassEngine(model, loss, clip, passes)
