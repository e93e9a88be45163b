"""The reference engine: ``torch.func`` gradients of each record, held in memory.

Slow and memory-hungry, but it follows the definition and knows no layers, so it handles any
module whose forward pass vmaps. The other engines are tested against it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from wavedp.dp.clipping import (
    Batch,
    Passes,
    PerExampleLoss,
    check_losses,
    clip_factors,
    trainable,
    zero_sums,
)
from wavedp.dp.clipping.gradients import full


class PerExampleEngine:
    """``vmap(grad(loss))`` over single records."""

    def __init__(self, model: nn.Module, loss: PerExampleLoss, clip: float, passes: Passes) -> None:
        self.sums = zero_sums(model)
        self._model, self._clip = model, clip

        def one(parameters: dict[str, Tensor], row: Batch) -> Tensor:
            single = {name: value.unsqueeze(0) for name, value in row.items()}

            def call(module: nn.Module, batch: Batch) -> Tensor:
                return functional_call(_Loss(module, loss), _prefixed(parameters), (batch,))

            losses = call(model, single)
            check_losses(losses, 1)
            return losses[0]

        self._gradients = passes.compile(vmap(grad(one), in_dims=(None, 0), randomness="different"))

    def add(self, batch: Batch, mask: Tensor) -> None:
        parameters = {name: p.detach() for name, p in trainable(self._model).items()}
        gradients = self._gradients(parameters, dict(batch))
        add_clipped(self.sums, gradients, mask, self._clip)


class _Loss(nn.Module):
    """The loss as a module, so that ``functional_call`` can swap the model's parameters."""

    def __init__(self, model: nn.Module, loss: PerExampleLoss) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, batch: Batch) -> Tensor:
        return self._loss(self.model, batch)


def _prefixed(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"model.{name}": value for name, value in parameters.items()}


def add_clipped(
    sums: dict[str, Tensor], gradients: dict[str, Tensor], mask: Tensor, clip: float
) -> None:
    """Clip rows of held gradients ``[b, *shape]`` and add them up."""
    squared = torch.stack([full(g).flatten(1).square().sum(1) for g in gradients.values()]).sum(0)
    factors = clip_factors(squared, mask, clip)
    for name, gradient in gradients.items():
        rows = full(gradient)
        rows = rows.where((factors > 0).view(-1, *[1] * (rows.dim() - 1)), 0.0)
        sums[name] += torch.einsum("n,n...->...", factors, rows)


def build(model: nn.Module, loss: PerExampleLoss, clip: float, passes: Passes) -> PerExampleEngine:
    """See :func:`wavedp.dp.clipping.make_engine`."""
    return PerExampleEngine(model, loss, clip, passes)
