"""Layer rules: squared gradient norms and weighted gradient sums from kept activations.

For a layer with input ``a`` and output gradient ``g`` of record i, the weight gradient is a
sum over positions of outer products. Its norm follows from two Gram matrices,
``||sum_t g_t a_t^T||^2 = sum_{t,u} <a_t, a_u> <g_t, g_u>`` (Goodfellow 2015; Li et al. 2022),
or from the product itself, whichever is cheaper. The clipped sum over records is then one
matrix product with the rows of ``g`` scaled (Bu et al. 2022, "book-keeping").

Shapes: b records, t positions (all leading dimensions but the first, flattened), d inputs,
p outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Named = Iterator[tuple[str, Tensor]]


class Rule(Protocol):
    """How one kind of layer yields norms and sums; ``a`` and ``g`` keep the record first."""

    def squared_norms(self, layer: nn.Module, a: Tensor, g: Tensor) -> Tensor:
        """``[b]``: squared norm of all the layer's trainable gradients together."""

    def sums(self, layer: nn.Module, a: Tensor, g: Tensor, factors: Tensor) -> Named:
        """Parameter name in the layer, and ``sum_i factors_i * gradient_i``."""


def _positions(x: Tensor) -> Tensor:
    """``[b, ..., d] -> [b, t, d]``."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


class LinearRule:
    """``nn.Linear`` with any leading dimensions."""

    def squared_norms(self, layer: nn.Module, a: Tensor, g: Tensor) -> Tensor:
        a, g = _positions(a), _positions(g)
        total = g.new_zeros(len(g))
        if _needs(layer, "weight"):
            t, d, p = a.shape[1], a.shape[2], g.shape[2]
            if t * (d + p) <= d * p:
                total = total + ((a @ a.mT) * (g @ g.mT)).sum((1, 2))
            else:
                total = total + (g.mT @ a).square().sum((1, 2))
        if _needs(layer, "bias"):
            total = total + g.sum(1).square().sum(1)
        # Rounding can take a Gram norm that should be zero just below it.
        return total.clamp_min(0)

    def sums(self, layer: nn.Module, a: Tensor, g: Tensor, factors: Tensor) -> Named:
        weighted = _positions(g) * factors.view(-1, 1, 1)
        if _needs(layer, "weight"):
            yield "weight", weighted.flatten(0, 1).mT @ _positions(a).flatten(0, 1)
        if _needs(layer, "bias"):
            yield "bias", weighted.sum((0, 1))


class EmbeddingRule:
    """``nn.Embedding``: positions that share an id share a row of the gradient."""

    def squared_norms(self, layer: nn.Module, a: Tensor, g: Tensor) -> Tensor:
        ids, g = a.reshape(a.shape[0], -1), self._without_padding(layer, a, g)
        same = ids.unsqueeze(2) == ids.unsqueeze(1)
        return ((g @ g.mT) * same).sum((1, 2)).clamp_min(0)

    def sums(self, layer: nn.Module, a: Tensor, g: Tensor, factors: Tensor) -> Named:
        weighted = self._without_padding(layer, a, g) * factors.view(-1, 1, 1)
        assert isinstance(layer, nn.Embedding)
        total = torch.zeros(layer.weight.shape, dtype=g.dtype, device=g.device)
        yield "weight", total.index_add_(0, a.reshape(-1), weighted.flatten(0, 1))

    @staticmethod
    def _without_padding(layer: nn.Module, a: Tensor, g: Tensor) -> Tensor:
        g = _positions(g)
        padding = getattr(layer, "padding_idx", None)
        if padding is None:
            return g
        return g * (a.reshape(a.shape[0], -1, 1) != padding)


class NormRule:
    """``nn.LayerNorm`` and ``nn.RMSNorm`` over the last dimension."""

    def squared_norms(self, layer: nn.Module, a: Tensor, g: Tensor) -> Tensor:
        rows = dict(self._gradients(layer, a, g))
        return torch.stack([row.square().sum(1) for row in rows.values()]).sum(0)

    def sums(self, layer: nn.Module, a: Tensor, g: Tensor, factors: Tensor) -> Named:
        for name, rows in self._gradients(layer, a, g):
            yield name, factors @ rows

    @staticmethod
    def _gradients(layer: nn.Module, a: Tensor, g: Tensor) -> Named:
        if _needs(layer, "weight"):
            yield "weight", _positions(_normalised(layer, a) * g).sum(1)
        if _needs(layer, "bias"):
            yield "bias", _positions(g).sum(1)


def _normalised(layer: nn.Module, a: Tensor) -> Tensor:
    if isinstance(layer, nn.LayerNorm):
        return F.layer_norm(a, layer.normalized_shape, None, None, layer.eps)
    assert isinstance(layer, nn.RMSNorm)
    return F.rms_norm(a, layer.normalized_shape, None, layer.eps)


def _needs(layer: nn.Module, name: str) -> bool:
    return layer._parameters.get(name) is not None


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: LinearRule(),
    nn.Embedding: EmbeddingRule(),
    nn.LayerNorm: NormRule(),
    nn.RMSNorm: NormRule(),
}
