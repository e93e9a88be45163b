"""Which cell a process takes next, where others take cells of the same grid."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.claims import Claim
from benchmarks.config import Cell
from benchmarks.console import console
from benchmarks.stopping import stop_if_asked

PAUSE = 2.0
"""Seconds between two looks at what other processes run."""


class Turn(NamedTuple):
    """A cell that is left to be run, or to be scored again."""

    number: int
    """Its place in the grid, from 1."""
    cell: Cell
    claim: Claim

    @property
    def method(self) -> str:
        """The name of its method, by which private records are encoded."""
        return str(self.cell.config.method.name)


def taken(turns: Sequence[Turn]) -> Iterator[Turn]:
    """Every turn once, its cell held by this process until it asks for the next one.

    For those that other processes have it waits, and takes over what one left that died.

    Raises:
        KeyboardInterrupt: between two turns, when somebody wants to stop.
    """
    left, last, told = list(turns), "", False
    while left:
        stop_if_asked()
        turn = next_of(left, last)
        with turn.claim.taken() as mine:
            if mine:
                left.remove(turn)
                last = last if turn.claim.settled() else turn.method
                yield turn
        if not mine and all(turn.claim.held for turn in left):
            if not told:
                console.print(f"waiting for {len(left)} cells that other processes run")
            told = True
            time.sleep(PAUSE)


def next_of(left: Sequence[Turn], last: str) -> Turn:
    """The turn that comes next.

    What another process has ended comes first, to be told while it is new, and what another one
    has last. Beside others, a process keeps to the method that it has encoded the private records
    for, and then takes one that no other process has. Of equals the first.

    Args:
        left: at least one.
        last: the method that this process ran before; empty if it ran none.
    """
    held = {turn.number for turn in left if turn.claim.held}
    methods = {turn.method for turn in left if turn.number in held}

    def rank(turn: Turn) -> tuple[bool, ...]:
        other = bool(methods) and turn.method != last
        return turn.number in held, turn.claim.settled() is None, other, turn.method in methods

    return min(left, key=rank)
