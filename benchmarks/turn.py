"""Which cell a process takes next, where others take cells of the same grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.claims import Claim
from benchmarks.config import Cell


class Turn(NamedTuple):
    """A cell that is left to be run."""

    number: int
    """Its place in the grid, from 1."""
    cell: Cell
    claim: Claim

    @property
    def method(self) -> str:
        """The name of its method, by which private records are encoded."""
        return str(self.cell.config.method.name)


def next_of(left: Sequence[Turn], last: str) -> Turn:
    """The turn that comes next.

    What another process has ended comes first, to be told while it is new, and what another one
    runs last. Beside others, a process keeps to the method that it has encoded the private records
    for, and then takes one that no other process has. Of equals the first.

    Args:
        left: at least one.
        last: the method that this process ran before; empty if it ran none.
    """
    held = {turn.number for turn in left if turn.claim.held}
    methods = {turn.method for turn in left if turn.number in held}

    def rank(turn: Turn) -> tuple[bool, ...]:
        other = bool(methods) and turn.method != last
        return turn.claim.settled() is None, turn.number in held, other, turn.method in methods

    return min(left, key=rank)
