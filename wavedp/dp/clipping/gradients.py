"""Per-example gradients of one parameter, in the form that costs least.

Held, they are an array ``[b, p, d]``. As *terms*, the gradient of record i is a sum over
positions of outer products, ``sum_t l_t r_t^T``, which need not be formed: its norm follows
from two Gram matrices, ``sum_{t,u} <l_t, l_u> <r_t, r_u>`` (Goodfellow 2015; Li et al. 2022),
and the clipped sum over records is one matrix product with the rows of ``l`` scaled (Bu et al.
2022, "book-keeping"). A parameter that is used more than once has the sum of such forms, and
its norm needs their cross terms.

Shapes: b records, t positions, p rows and d columns of the parameter seen as a matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Gradients(Protocol):
    """The gradients of one parameter for every record of a micro-batch."""

    def squared_norms(self) -> Tensor:
        """``[b]``, not negative."""

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """``sum_i factors_i * gradient_i`` for factors ``[b]``, as ``[p, d]`` or flat."""

    def rows(self) -> Tensor:
        """All of them, ``[b, p, d]``."""


@dataclass(frozen=True)
class Held:
    """The gradients themselves, ``[b, *shape]``."""

    held: Tensor

    def squared_norms(self) -> Tensor:
        return torch.linalg.vector_norm(self.held.flatten(1), dim=1).square()

    def weighted_sum(self, factors: Tensor) -> Tensor:
        return (factors @ self.held.flatten(1)).view(self.held.shape[1:])

    def rows(self) -> Tensor:
        return self.held


@dataclass(frozen=True)
class Terms:
    """Sums over positions of outer products.

    Attributes:
        left: ``[b, t, p]``, or int64 ``[b, t]`` where each l_t is a unit vector (an embedding).
        right: ``[b, t, d]``.
        entries: p.
    """

    left: Tensor
    right: Tensor
    entries: int

    @property
    def picks(self) -> bool:
        """Whether ``left`` holds indices."""
        return not self.left.is_floating_point()

    def squared_norms(self) -> Tensor:
        if self.picks:
            return self._scattered_norms()
        # Rounding can take a norm that should be zero just below it.
        return self.inner(self).clamp_min(0)

    def inner(self, other: Terms) -> Tensor:
        """``[b]``: inner products with the same records' gradients in another form."""
        return ((self.right @ other.right.mT) * self._left_gram(other)).sum((1, 2))

    def _left_gram(self, other: Terms) -> Tensor:
        if self.picks and other.picks:
            return (self.left.unsqueeze(2) == other.left.unsqueeze(1)).to(self.right.dtype)
        if self.picks:
            return other._left_gram(self).mT
        if other.picks:
            index = other.left.unsqueeze(1).expand(-1, self.left.shape[1], -1)
            return self.left.gather(2, index)
        return self.left @ other.left.mT

    def _scattered_norms(self) -> Tensor:
        # Positions of a record that pick the same row add up before squaring: sorting finds
        # them in t log t, where the Gram matrix would compare all pairs.
        b, t = self.left.shape
        record = torch.arange(b, device=self.right.device).unsqueeze(1)
        keys, order = (self.left + record * self.entries).flatten().sort()
        segment = torch.zeros_like(keys)
        segment[1:] = (keys[1:] != keys[:-1]).cumsum(0)
        sums = self.right.new_zeros(b * t, self.right.shape[2])
        sums.index_add_(0, segment, self.right.flatten(0, 1)[order])
        owner = torch.zeros_like(segment).scatter_(0, segment, keys // self.entries)
        return self.right.new_zeros(b).index_add_(0, owner, sums.square().sum(1))

    def weighted_sum(self, factors: Tensor) -> Tensor:
        if self.picks:
            weighted = self.right * factors.view(-1, 1, 1)
            total = self.right.new_zeros(self.entries, self.right.shape[2])
            return total.index_add_(0, self.left.flatten(), weighted.flatten(0, 1))
        weighted = self.left * factors.view(-1, 1, 1)
        return weighted.flatten(0, 1).mT @ self.right.flatten(0, 1)

    def rows(self) -> Tensor:
        if not self.picks:
            return self.left.mT @ self.right
        total = self.right.new_zeros(len(self.left), self.entries, self.right.shape[2])
        index = self.left.unsqueeze(2).expand_as(self.right)
        return total.scatter_add_(1, index, self.right)


@dataclass(frozen=True)
class Sum:
    """Several terms of one parameter: a layer used twice, or weights that layers share."""

    parts: Sequence[Terms]

    def squared_norms(self) -> Tensor:
        total = torch.stack([part.squared_norms() for part in self.parts]).sum(0)
        for number, part in enumerate(self.parts):
            for other in self.parts[:number]:
                total = total + 2 * part.inner(other)
        return total.clamp_min(0)

    def weighted_sum(self, factors: Tensor) -> Tensor:
        return torch.stack([part.weighted_sum(factors) for part in self.parts]).sum(0)

    def rows(self) -> Tensor:
        return torch.stack([part.rows() for part in self.parts]).sum(0)


def outer(left: Tensor, right: Tensor) -> Gradients:
    """``sum_t left_t right_t^T`` for ``[b, t, p]`` and ``[b, t, d]``, in the cheaper form."""
    t, p, d = left.shape[1], left.shape[2], right.shape[2]
    # About 16 multiplications of the Gram matrices take as long as one number that is written
    # and read twice; what is held may take no undue memory beside the activations.
    if t * t * (d + p) > 16 * d * p and d * p <= 4 * t * (d + p):
        return Held(left.mT @ right)
    return Terms(left, right, p)


def total(parts: Sequence[Gradients]) -> Gradients:
    """The gradient of a parameter from all its uses."""
    if len(parts) == 1:
        return parts[0]
    terms = [part for part in parts if isinstance(part, Terms)]
    if len(terms) == len(parts):
        return Sum(terms)
    held = parts[0].rows()
    for part in parts[1:]:
        held = held + part.rows().view_as(held)
    return Held(held)
