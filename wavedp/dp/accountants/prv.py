"""Privacy loss random variables (Gopi et al. 2021), by Opacus: what many papers report.

Opacus gives the upper end of an interval of +-0.01 around epsilon, so sigma comes out 0.8% above
that of PLD at epsilon 1 (q = 0.01, T = 1000).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from wavedp.dp.accountants import rdp

if TYPE_CHECKING:
    from wavedp.dp.accounting import Event

LIBRARY = "opacus"

# Where Opacus' PRV arithmetic in float64 can be relied on: beyond, it takes seconds and gigabytes,
# exp() overflows, or rounding reaches delta.
LARGEST_EPSILON = 100.0
SMALLEST_DELTA = 1e-11


def epsilon(counts: Mapping[Event, int], delta: float, interval: float) -> float:
    """See :class:`wavedp.dp.accountants.Accountant`; Opacus chooses the grid.

    Where RDP's bound is smaller (an epsilon of hundredths), or PRV beyond the reach of its
    arithmetic (epsilon above 100, delta below 1e-11, noise multipliers of thousands), it is RDP's
    bound, which holds as well.
    """
    from opacus.accountants import PRVAccountant

    other = rdp.epsilon(counts, delta, interval)
    if other > LARGEST_EPSILON or delta < SMALLEST_DELTA:
        return other
    tracker = PRVAccountant()
    tracker.history = [(e.noise_multiplier, e.sampling_probability, n) for e, n in counts.items()]
    with warnings.catch_warnings():
        # The largest order of its own RDP was the best, and log(1 - q) at q = 1: both harmless.
        warnings.simplefilter("ignore")
        try:
            return min(other, float(tracker.get_epsilon(delta)))
        except (ValueError, RuntimeError):  # "The result of subtraction must be non-negative."
            return other
