"""Opacus' hooks behind the engine interface: an independent implementation to check against."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from wavedp.dp.clipping import (
    Batch,
    Passes,
    PerExampleLoss,
    check_losses,
    trainable,
    zero_sums,
)
from wavedp.dp.clipping.per_example import add_clipped
from wavedp.dp.errors import UserError


class OpacusEngine:
    """``opacus.GradSampleModule`` holds per-example gradients; clipping is ours."""

    def __init__(self, model: nn.Module, loss: PerExampleLoss, clip: float, passes: Passes) -> None:
        if passes.views > 1 or passes.compiled:
            raise UserError(
                "engine=opacus takes one view of a record and is not compiled; use "
                "engine=bookkeeping."
            )
        self.sums = zero_sums(model)
        self._model, self._loss, self._clip = model, loss, clip
        self._parameters: dict[str, Any] = trainable(model)

    def add(self, batch: Batch, mask: Tensor) -> None:
        from opacus.grad_sample import GradSampleModule

        # Opacus refuses to hook a module twice, so its hooks stay for one pass only.
        wrapped = GradSampleModule(self._model, loss_reduction="sum")
        try:
            losses = self._loss(wrapped, batch)
            check_losses(losses, len(mask))
            losses.sum().backward()
        finally:
            wrapped.remove_hooks()
        gradients = {name: p.grad_sample for name, p in self._parameters.items()}
        add_clipped(self.sums, gradients, mask, self._clip)
        for parameter in self._parameters.values():
            parameter.grad_sample = None
            parameter.grad = None


def build(model: nn.Module, loss: PerExampleLoss, clip: float, passes: Passes) -> OpacusEngine:
    """See :func:`wavedp.dp.clipping.make_engine`."""
    return OpacusEngine(model, loss, clip, passes)
