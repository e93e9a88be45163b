"""Data parallel training: what the ranks of a ``torchrun`` share.

Every rank draws the same logical batch, from the same stream, and takes its part of it. The sums
of all ranks are added up at the first one, which adds the noise, once, and gives the result to all.
A rank without records takes part like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from wavedp.dp.errors import UserError

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """The ranks of this run: one, unless ``torch.distributed`` is initialised."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """The default process group's."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())
        return cls()

    @property
    def leads(self) -> bool:
        """Whether this rank adds noise, writes the ledger and saves."""
        return self.rank == 0

    def part(self, rows: np.ndarray) -> np.ndarray:
        """This rank's rows of a logical batch; perhaps none."""
        return rows[self.rank :: self.size]

    def add_up(self, sums: Mapping[str, Tensor]) -> None:
        """Make the first rank's tensors the sum over ranks, in place."""
        if self.size > 1:
            for total in sums.values():
                torch.distributed.reduce(total, 0)

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Make every rank's tensors the first rank's, in place."""
        if self.size > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor.data, 0)

    def all(self, value: Value) -> list[Value]:
        """The values of all ranks, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def together(self, work: Callable[[], Value]) -> Value:
        """Do this rank's work; if it fails on one rank it fails on all, so that none waits.

        Raises:
            UserError: this rank's, or another's.
        """
        error: UserError | None = None
        try:
            result = work()
        except UserError as raised:
            error = raised
        others = self.all(None if error is None else str(error))
        if error is not None:
            raise error
        if any(others):
            raise UserError(next(text for text in others if text))
        return result

    def agreed(self, value: Value) -> Value:
        """The first rank's value, on every rank."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        torch.distributed.broadcast_object_list(box)
        agreed: Value = box[0]
        return agreed

    def stop(self) -> NoReturn:
        """Leave what all ranks do together.

        Raises:
            KeyboardInterrupt: on every rank, once all are here. A launcher ends the others as soon
                as one has left, so nobody leaves while the first one saves.
        """
        self.all(None)
        raise KeyboardInterrupt
