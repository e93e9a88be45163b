"""Layer rules: per-example gradients of a layer from its inputs and output gradients.

For a layer with input ``a`` and output gradient ``g`` of record i, the weight gradient is a
sum over positions of outer products. Its norm follows from two Gram matrices,
``||sum_t g_t a_t^T||^2 = sum_{t,u} <a_t, a_u> <g_t, g_u>`` (Goodfellow 2015; Li et al. 2022),
and the clipped sum over records is then one matrix product with the rows of ``g`` scaled
(Bu et al. 2022, "book-keeping"). Where forming the per-example gradient costs less than the
Gram matrices, it is formed and kept, and serves both.

Shapes: b records, t positions (all leading dimensions but the first, flattened), d inputs,
p outputs, V entries of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Gradients(Protocol):
    """The gradients of one parameter for every record of a micro-batch, in some form."""

    def squared_norms(self) -> Tensor:
        """``[b]``, not negative."""

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """``sum_i factors_i * gradient_i`` for factors ``[b]``."""


Rule = Callable[[nn.Module, Tensor, Tensor], Mapping[str, Gradients]]
"""``(layer, a, g)``, record first, to the gradients of each of the layer's parameters by name."""


@dataclass(frozen=True)
class Held:
    """The gradients themselves, ``[b, *shape]``."""

    rows: Tensor

    def squared_norms(self) -> Tensor:
        return torch.linalg.vector_norm(self.rows.flatten(1), dim=1).square()

    def weighted_sum(self, factors: Tensor) -> Tensor:
        return (factors @ self.rows.flatten(1)).view(self.rows.shape[1:])


@dataclass(frozen=True)
class Outer:
    """Sums over positions of outer products: ``a`` ``[b, t, d]`` and ``g`` ``[b, t, p]``."""

    a: Tensor
    g: Tensor

    def squared_norms(self) -> Tensor:
        # Rounding can take a norm that should be zero just below it.
        return ((self.a @ self.a.mT) * (self.g @ self.g.mT)).sum((1, 2)).clamp_min(0)

    def weighted_sum(self, factors: Tensor) -> Tensor:
        weighted = self.g * factors.view(-1, 1, 1)
        return weighted.flatten(0, 1).mT @ self.a.flatten(0, 1)


@dataclass(frozen=True)
class Scattered:
    """Rows of an embedding: ``g`` ``[b, t, d]`` belongs to entries ``ids`` ``[b, t]`` of V."""

    ids: Tensor
    g: Tensor
    entries: int

    def squared_norms(self) -> Tensor:
        # Positions of a record that share an id share a row: add them up before squaring.
        b, t = self.ids.shape
        record = torch.arange(b, device=self.g.device).unsqueeze(1)
        keys, order = (self.ids + record * self.entries).flatten().sort()
        segment = torch.zeros_like(keys)
        segment[1:] = (keys[1:] != keys[:-1]).cumsum(0)
        rows = self.g.new_zeros(b * t, self.g.shape[2])
        rows.index_add_(0, segment, self.g.flatten(0, 1)[order])
        owner = torch.zeros_like(segment).scatter_(0, segment, keys // self.entries)
        return self.g.new_zeros(b).index_add_(0, owner, rows.square().sum(1))

    def weighted_sum(self, factors: Tensor) -> Tensor:
        weighted = self.g * factors.view(-1, 1, 1)
        total = self.g.new_zeros(self.entries, self.g.shape[2])
        return total.index_add_(0, self.ids.flatten(), weighted.flatten(0, 1))


def linear(layer: nn.Module, a: Tensor, g: Tensor) -> dict[str, Gradients]:
    """``nn.Linear`` with any leading dimensions."""
    a, g = _positions(a), _positions(g)
    found: dict[str, Gradients] = {}
    if _has(layer, "weight"):
        found["weight"] = Held(g.mT @ a) if _hold_is_cheaper(a, g) else Outer(a, g)
    if _has(layer, "bias"):
        found["bias"] = Held(g.sum(1))
    return found


def _hold_is_cheaper(a: Tensor, g: Tensor) -> bool:
    """Whether ``[b, p, d]`` takes less time than ``[b, t, t]`` and no undue memory."""
    t, d, p = a.shape[1], a.shape[2], g.shape[2]
    # 16 multiplications of the Gram matrices take as long as one number written and read twice.
    return t * t * (d + p) > 16 * d * p and d * p <= 4 * t * (d + p)


def embedding(layer: nn.Module, a: Tensor, g: Tensor) -> dict[str, Gradients]:
    """``nn.Embedding`` on ids of any shape; the padding entry has no gradient."""
    assert isinstance(layer, nn.Embedding)
    ids, g = a.reshape(a.shape[0], -1), _positions(g)
    if layer.padding_idx is not None:
        g = g * (ids != layer.padding_idx).unsqueeze(2)
    return {"weight": Scattered(ids, g, layer.num_embeddings)}


def norm(layer: nn.Module, a: Tensor, g: Tensor) -> dict[str, Gradients]:
    """``nn.LayerNorm`` and ``nn.RMSNorm`` over the last dimension."""
    found: dict[str, Gradients] = {}
    if _has(layer, "weight"):
        found["weight"] = Held((_positions(_normalised(layer, a)) * _positions(g)).sum(1))
    if _has(layer, "bias"):
        found["bias"] = Held(_positions(g).sum(1))
    return found


def _normalised(layer: nn.Module, a: Tensor) -> Tensor:
    if isinstance(layer, nn.LayerNorm):
        return F.layer_norm(a, layer.normalized_shape, None, None, layer.eps)
    assert isinstance(layer, nn.RMSNorm)
    return F.rms_norm(a, layer.normalized_shape, None, layer.eps)


def _positions(x: Tensor) -> Tensor:
    """``[b, ..., d] -> [b, t, d]``."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _has(layer: nn.Module, name: str) -> bool:
    return layer._parameters.get(name) is not None


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear,
    nn.Embedding: embedding,
    nn.LayerNorm: norm,
    nn.RMSNorm: norm,
}
