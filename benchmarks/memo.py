"""A memo of the last batch: metrics that look at the same images compute what they share once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from torch import Tensor

T = TypeVar("T")


class Memo(Generic[T]):
    """A function of a batch that gives the same object again as long as the batch is the same.

    That is, the same tensor, and nothing was written into it since.

    Args:
        function: of one tensor.
    """

    def __init__(self, function: Callable[[Tensor], T]) -> None:
        self._function = function
        self._last: tuple[Tensor, int, T] | None = None

    def __call__(self, batch: Tensor) -> T:
        """The function's result, computed only where it is not that of the last call."""
        if self._last is None or self._last[0] is not batch or self._last[1] != batch._version:
            self._last = batch, batch._version, self._function(batch)
        return self._last[2]

    def forget(self) -> None:
        """Let go of the last batch and its result."""
        self._last = None
