"""Counted events in the words of ``dp-accounting``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wavedp.dp.accounting import Event


def composed(counts: Mapping[Event, int]) -> Any:
    """One ``DpEvent`` for all of them: Poisson-sampled Gaussian mechanisms, each repeated."""
    import dp_accounting

    parts: list[Any] = []
    for event, count in counts.items():
        gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
        sampled = dp_accounting.PoissonSampledDpEvent(event.sampling_probability, gaussian)
        parts.append(dp_accounting.SelfComposedDpEvent(sampled, count))
    return dp_accounting.ComposedDpEvent(parts)
