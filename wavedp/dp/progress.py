"""How long work tells how far it is: the caller decides whether and how to show it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Progress = Callable[[Iterable[int], str], Iterable[int]]
"""``(steps, label)`` to the same steps, shown as they are taken."""


def silent(steps: Iterable[int], label: str) -> Iterable[int]:
    """Shows nothing."""
    del label
    return steps
