"""Clipping at infinity is the ordinary gradient of the summed loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wavedp.dp.clipping import Batch, Passes, PerExampleLoss, check_losses, trainable, zero_sums


class OrdinaryEngine:
    """One backward pass of the masked sum of losses, for plans without privacy."""

    def __init__(self, model: nn.Module, loss: PerExampleLoss) -> None:
        self.sums = zero_sums(model)
        self._model, self._loss = model, loss
        self._parameters = trainable(model)

    def add(self, batch: Batch, mask: Tensor) -> None:
        losses = self._loss(self._model, batch)
        check_losses(losses, len(mask))
        total = (losses * mask).sum()
        gradients = torch.autograd.grad(total, list(self._parameters.values()), allow_unused=True)
        for name, gradient in zip(self._parameters, gradients, strict=True):
            if gradient is not None:
                self.sums[name] += gradient


def build(model: nn.Module, loss: PerExampleLoss, clip: float, passes: Passes) -> OrdinaryEngine:
    """See :func:`wavedp.dp.clipping.make_engine`."""
    del clip  # infinite
    return OrdinaryEngine(model, passes.compile(loss))
