"""Privacy loss distributions (Koskela et al. 2020; Doroshenko et al. 2022): the tightest.

Losses are discretised pessimistically, so the result is an upper bound on any grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wavedp.dp.accountants._events import composed

if TYPE_CHECKING:
    from wavedp.dp.accounting import Event

LIBRARY = "dp-accounting"


def epsilon(counts: Mapping[Event, int], delta: float, interval: float) -> float:
    """See :class:`wavedp.dp.accountants.Accountant`; infinite for a delta below about 1e-15."""
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import PLDAccountant

    tracker = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, interval)
    return float(tracker.compose(composed(counts)).get_epsilon(delta))
