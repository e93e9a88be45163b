"""Which cell comes next, beside other processes."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import OmegaConf

from benchmarks.config import Cell
from benchmarks.turn import Turn, next_of


@dataclass
class Claimed:
    """What others do with a cell."""

    held: bool = False
    ended: bool = False

    def settled(self):
        return "a record" if self.ended else None


def grid(*methods, held=(), ended=()):
    turns = []
    for number, method in enumerate(methods, 1):
        cell = Cell(OmegaConf.create({"method": {"name": method}}), "private", 1.0, 0)
        turns.append(Turn(number, cell, Claimed(number in held, number in ended)))
    return turns


def order(turns, last=""):
    """The numbers in the order in which one process would take them, if others stood still."""
    left, taken = list(turns), []
    while left:
        turn = next_of(left, last)
        left.remove(turn)
        taken.append(turn.number)
        last = turn.method if not (turn.claim.held or turn.claim.ended) else last
    return taken


def test_alone_a_process_takes_cells_in_their_order():
    assert order(grid("a", "b", "a", "b")) == [1, 2, 3, 4]


def test_beside_others_it_keeps_to_its_method_and_leaves_theirs():
    turns = grid("a", "a", "a", "b", "b", "c", held={1})
    assert order(turns) == [4, 5, 6, 2, 3, 1]
    assert order(turns, last="a") == [2, 3, 4, 5, 6, 1]


def test_what_others_ended_is_told_first_and_what_they_have_comes_last():
    assert order(grid("a", "a", "b", "b", held={1, 3}, ended={3, 4})) == [4, 2, 3, 1]
