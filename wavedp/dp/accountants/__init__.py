"""Accountants: one file each, named as in ``Budget.accountant``; a new file is a new accountant.

A file has two names: ``LIBRARY``, the distribution that computes, whose version is part of the
identity of a result; and ``epsilon(counts, delta, interval)``, an upper bound of epsilon at
``delta`` of all counted events together, adding or removing one record. Files whose name starts
with an underscore are not accountants.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from wavedp.dp.accounting import Event


class Accountant(Protocol):
    """What a file in this folder provides."""

    LIBRARY: str

    def epsilon(self, counts: Mapping[Event, int], delta: float, interval: float) -> float:
        """Upper bound of epsilon; ``interval`` is the grid's, for those that have one.

        Every count and every noise multiplier is positive.
        """


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Every accountant there is, sorted."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def load(name: str) -> Accountant:
    """The accountant called ``name``; its library is not imported before it computes."""
    module: Any = importlib.import_module(f"{__name__}.{name}")
    accountant: Accountant = module
    return accountant
