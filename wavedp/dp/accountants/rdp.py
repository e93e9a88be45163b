"""Renyi differential privacy (Mironov 2017), to compare: loose, by 8% of sigma at epsilon 1."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from wavedp.dp.accountants._events import composed

if TYPE_CHECKING:
    from wavedp.dp.accounting import Event

LIBRARY = "dp-accounting"


def epsilon(counts: Mapping[Event, int], delta: float, interval: float) -> float:
    """See :class:`wavedp.dp.accountants.Accountant`; there are orders instead of a grid."""
    from dp_accounting import NeighboringRelation
    from dp_accounting.rdp import RdpAccountant

    del interval
    tracker = RdpAccountant(neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE)
    # The library warns of every order that it leaves out. The rest still gives a bound.
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        return float(tracker.compose(composed(counts)).get_epsilon(delta))
    finally:
        log.setLevel(level)
