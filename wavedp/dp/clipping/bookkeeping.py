"""The default engine: one forward and one backward pass (Bu et al. 2022, arXiv 2210.00038).

The layers' inputs and output gradients are kept, or the per-example gradients themselves where
that costs less; norms and the clipped sum are computed from them. Parameters do not require
gradients during the pass, so autograd never forms the ordinary weight gradients that would be
thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wavedp.dp.clipping import (
    Batch,
    Passes,
    PerExampleLoss,
    zero_sums,
)
from wavedp.dp.clipping.calls import Watch, gradients_at
from wavedp.dp.clipping.sites import clipping_weights


class BookkeepingEngine:
    """Exact flat clipping for any model whose trainable parameters sit in called modules.

    Once, on the first record, its gradients are compared with autograd's. So a parameter that
    is used without its module being called (as in ``nn.MultiheadAttention``) is refused and
    not left out of the norm.
    """

    def __init__(self, model: nn.Module, loss: PerExampleLoss, clip: float, passes: Passes) -> None:
        self.sums = zero_sums(model)
        self._clip = clip
        self._watch = Watch(model, loss, passes.views)
        self._run, self._add = passes.compile(self._watch.run), passes.compile(self._clipped)
        self._checked = False

    def add(self, batch: Batch, mask: Tensor) -> None:
        if not self._checked:
            self._checked = self._watch.probe(batch)
        with self._watch.watching(len(mask)) as carriers:
            losses = self._run(batch)
            handed = gradients_at(carriers, losses)
        for name, clipped in self._add(handed, mask).items():
            self.sums[name] += clipped.view_as(self.sums[name])

    @torch.no_grad()
    def _clipped(self, handed: Sequence[Tensor], mask: Tensor) -> dict[str, Tensor]:
        gradients, squared = self._watch.gradients(handed)
        weights = clipping_weights(squared, mask, self._clip)
        return {name: weights.sum(form) for name, form in gradients.items()}


def build(model: nn.Module, loss: PerExampleLoss, clip: float, passes: Passes) -> BookkeepingEngine:
    """See :func:`wavedp.dp.clipping.make_engine`."""
    return BookkeepingEngine(model, loss, clip, passes)
