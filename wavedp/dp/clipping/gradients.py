"""Per-example gradients of one parameter, in the form that costs least.

Held, they are an array ``[b, p, d]``. As *terms*, the gradient of record i is a sum over
positions of outer products, ``sum_t l_t r_t^T``, which need not be formed: its norm follows
from two Gram matrices, ``sum_{t,u} <l_t, l_u> <r_t, r_u>`` (Goodfellow 2015; Li et al. 2022),
and the clipped sum over records is one matrix product with the rows of ``l`` scaled (Bu et al.
2022, "book-keeping"). A parameter that is used more than once has the sum of such forms, and
its norm needs their cross terms.

Operands may be bfloat16; products and sums are float32 or better. Where terms nearly cancel,
rounding may make the norm too small or the weighted sum too large, so what rounding may do is
added to the norm: a record is never scaled past the clip for it.

Shapes: b records, t positions, p rows and d columns of the parameter seen as a matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)
_WIDE_PRODUCTS = torch.torch_version.TorchVersion(torch.__version__) >= "2.8"

BLOCK = 128
"""Positions of a block of a Gram matrix: blocks below the diagonal mirror those above it."""


def full(x: Tensor) -> Tensor:
    """The tensor in float32 if it is in half precision, else as it is."""
    return x.float() if x.dtype in HALF else x


def product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right`` for matrices, or batches of them, added up in float32 or better."""
    if left.dtype not in HALF:
        return left @ right
    if left.is_cuda and _WIDE_PRODUCTS:
        multiply = torch.mm if left.dim() == 2 else torch.bmm
        return multiply(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


@dataclass(frozen=True)
class Gradients(ABC):
    """The gradients of one parameter for every record of a micro-batch."""

    TENSORS: ClassVar[tuple[str, ...]]
    """Fields that are tensors with one entry per record."""

    @abstractmethod
    def squared_norms(self) -> Tensor:
        """``[b]``, not negative."""

    @abstractmethod
    def weighted_sum(self, factors: Tensor) -> Tensor:
        """``sum_i factors_i * gradient_i`` for factors ``[b]``, in the parameter's layout."""

    @abstractmethod
    def rows(self) -> Tensor:
        """All of them, ``[b, ...]`` in the parameter's layout."""

    def tensors(self) -> tuple[Tensor, ...]:
        """What the form is made of, the record first."""
        return tuple(getattr(self, name) for name in self.TENSORS)

    def rebuilt(self, tensors: Sequence[Tensor]) -> Self:
        """The same form around other tensors."""
        return replace(self, **dict(zip(self.TENSORS, tensors, strict=True)))

    def cleared(self, sound: Tensor) -> Self:
        """With zeros for the records that are not ``sound`` (bool ``[b]``).

        Zero times NaN is NaN, so a weight of zero does not take a bad record out of a sum.
        """
        return self.rebuilt([x.where(_beside(sound, x), 0) for x in self.tensors()])


@dataclass(frozen=True)
class Held(Gradients):
    """The gradients themselves, ``[b, *shape]``."""

    TENSORS = ("held",)
    held: Tensor

    def squared_norms(self) -> Tensor:
        return torch.linalg.vector_norm(self.held.flatten(1), dim=1).square()

    def weighted_sum(self, factors: Tensor) -> Tensor:
        return (factors @ self.held.flatten(1)).view(self.held.shape[1:])

    def rows(self) -> Tensor:
        return self.held


@dataclass(frozen=True)
class Terms(Gradients):
    """Sums over positions of outer products.

    Attributes:
        left: ``[b, t, p]``, or int64 ``[b, t]`` where each l_t is a unit vector (an embedding).
        right: ``[b, t, d]``.
        entries: p.
    """

    TENSORS = ("left", "right")
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
        t, p, d = self.left.shape[1], self.left.shape[2], self.right.shape[2]
        if t * (p + d) > 2 * p * d:
            return self._norms_of_tiles()
        return self._gram_norms()

    def _gram_norms(self) -> Tensor:
        total, sizes = None, []
        blocks = list(zip(self.left.split(BLOCK, 1), self.right.split(BLOCK, 1), strict=True))
        for number, (left, right) in enumerate(blocks):
            own = product(left, left.mT), product(right, right.mT)
            part = (own[0] * own[1]).sum((1, 2))
            for other_left, other_right in blocks[:number]:
                mirrored = product(left, other_left.mT) * product(right, other_right.mT)
                part = part + 2 * mirrored.sum((1, 2))
            total = part if total is None else total + part
            sizes.append((_diagonal(own[0]) * _diagonal(own[1])).sqrt())
        assert total is not None
        return total.clamp_min(0) + self._rounding(torch.cat(sizes, 1))

    def _norms_of_tiles(self) -> Tensor:
        """By forming the gradients of a few records at a time."""
        tile = max(1, 2**22 // (self.left.shape[2] * self.right.shape[2]))
        parts = zip(self.left.split(tile), self.right.split(tile), strict=True)
        norms = [Held(product(left.mT, right)).squared_norms() for left, right in parts]
        return torch.cat(norms) + self._rounding(_lengths(self.left) * _lengths(self.right))

    def _rounding(self, sizes: Tensor) -> Tensor:
        """``[b]``: what rounding may do to squared norms, from the terms' sizes ``[b, t]``."""
        exact = torch.finfo(sizes.dtype).eps * sizes.sum(1).square()
        if self.right.dtype not in HALF or self.picks:
            return exact
        # Weighted operands are rounded to 8 bits, each term by itself: their errors add up like
        # random ones. 14 times as much keeps the sum within 1 % of the clip, whatever cancels.
        return exact + 200 * 2**-18 * sizes.square().sum(1)

    def inner(self, other: Terms) -> Tensor:
        """``[b]``: inner products with the same records' gradients in another form."""
        gram = product(self.right, other.right.mT) * self._left_gram(other)
        return gram.sum((1, 2))

    def _left_gram(self, other: Terms) -> Tensor:
        if self.picks and other.picks:
            return self.left.unsqueeze(2) == other.left.unsqueeze(1)
        if self.picks:
            return other._left_gram(self).mT
        if other.picks:
            index = other.left.unsqueeze(1).expand(-1, self.left.shape[1], -1)
            return self.left.gather(2, index)
        return product(self.left, other.left.mT)

    def _scattered_norms(self) -> Tensor:
        # Positions of a record that pick the same row add up before squaring: sorting finds
        # them in t log t, where the Gram matrix would compare all pairs.
        b, t = self.left.shape
        right = full(self.right)
        record = torch.arange(b, device=right.device).unsqueeze(1)
        keys, order = (self.left + record * self.entries).flatten().sort()
        segment = torch.zeros_like(keys)
        segment[1:] = (keys[1:] != keys[:-1]).cumsum(0)
        sums = right.new_zeros(b * t, right.shape[2])
        sums.index_add_(0, segment, right.flatten(0, 1)[order])
        owner = torch.zeros_like(segment).scatter_(0, segment, keys // self.entries)
        total = right.new_zeros(b).index_add_(0, owner, sums.square().sum(1))
        return total + self._rounding(_lengths(self.right))

    def weighted_sum(self, factors: Tensor) -> Tensor:
        weights = factors.view(-1, 1, 1)
        if self.picks:
            weighted = full(self.right) * weights
            total = weighted.new_zeros(self.entries, weighted.shape[2])
            return total.index_add_(0, self.left.flatten(), weighted.flatten(0, 1))
        left, right = self.left, self.right
        if left.shape[2] <= right.shape[2]:
            left = (left * weights).to(right.dtype)
        else:
            right = (right * weights).to(left.dtype)
        return product(left.flatten(0, 1).mT, right.flatten(0, 1))

    def rows(self) -> Tensor:
        if not self.picks:
            return product(self.left.mT, self.right)
        right = full(self.right)
        total = right.new_zeros(len(self.left), self.entries, right.shape[2])
        index = self.left.unsqueeze(2).expand_as(right)
        return total.scatter_add_(1, index, right)


@dataclass(frozen=True)
class Sum(Gradients):
    """Several terms of one parameter: a layer used twice, or weights that layers share."""

    TENSORS = ()
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

    def cleared(self, sound: Tensor) -> Self:
        return replace(self, parts=[part.cleared(sound) for part in self.parts])


def outer(left: Tensor, right: Tensor) -> Gradients:
    """``sum_t left_t right_t^T`` for ``[b, t, p]`` and ``[b, t, d]``, in the cheaper form."""
    t, p, d = left.shape[1], left.shape[2], right.shape[2]
    if worth_holding(t, p, d, left.is_cuda):
        return Held(product(left.mT, right))
    return Terms(left, right, p)


def worth_holding(t: int, p: int, d: int, cuda: bool) -> bool:
    """Whether held gradients take less time than terms, and no undue memory.

    Terms cost two Gram matrices more than the clipped sum, ``2 t^2 (p + d)`` operations; held
    gradients cost the time to write and read ``p d`` numbers, during which a processor does
    about 40 operations for each and a GPU about 3,000. What is held stands beside the t (p + d)
    numbers of the layer's own input and output gradient, which it replaces.
    """
    operations, share = (3000, 0.125) if cuda else (40, 1.0)
    return 2 * t * t * (p + d) > operations * p * d and p * d <= share * t * (p + d)


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


def _beside(flags: Tensor, x: Tensor) -> Tensor:
    return flags.view(-1, *[1] * (x.dim() - 1))


def _diagonal(gram: Tensor) -> Tensor:
    return gram.diagonal(dim1=1, dim2=2).clamp_min(0)


def _lengths(x: Tensor) -> Tensor:
    """Norms over the last dimension."""
    return torch.linalg.vector_norm(x, dim=-1, dtype=torch.promote_types(x.dtype, torch.float32))
