"""Events to epsilon, and calibration of the noise to a budget.

A mechanism is described by an :class:`Event`; the ledger counts events; this module
turns counts into epsilon with ``dp-accounting``. The default accountant composes privacy
loss distributions (PLD, Koskela et al. 2020; Doroshenko et al. 2022), which is the tightest;
``rdp`` (Mironov 2017) is there to compare.

Relation: add or remove one record. REPLACE_ONE at the same noise costs nearly twice as
much, so the relation is part of every number reported here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from wavedp.dp.errors import UserError

RELATION = "add_or_remove_one"

# The PLD grid: a coarse one to search, a fine one for every number that is reported.
# Both are pessimistic (losses are rounded up), so a finer grid never reports more.
SEARCH_INTERVAL = 1e-3
SCORE_INTERVAL = 1e-4


@dataclass(frozen=True)
class Budget:
    """The most that may be spent: ``(epsilon, delta)`` under ``relation``.

    ``epsilon=inf`` marks a run that is not private; ``epsilon=0`` one that must not touch
    private records at all.
    """

    epsilon: float
    delta: float
    relation: str = RELATION
    accountant: str = "pld"

    def __post_init__(self) -> None:
        if not self.epsilon >= 0:
            raise UserError(
                f"epsilon must be positive, got {self.epsilon}; use inf for no privacy."
            )
        if not 0 < self.delta < 1:
            raise UserError(f"delta must lie between 0 and 1, got {self.delta}; 1e-5 is usual.")
        if self.relation != RELATION:
            raise UserError(
                f"neighbouring relation {self.relation!r} is not known; use {RELATION}."
            )
        if self.accountant not in ACCOUNTANTS:
            known = ", ".join(sorted(ACCOUNTANTS))
            raise UserError(f"accountant {self.accountant!r} is not known; choose one of: {known}.")


@dataclass(frozen=True)
class Spent:
    """What the queries in a ledger cost together."""

    epsilon: float
    delta: float
    relation: str
    accountant: str


@dataclass(frozen=True)
class Event:
    """One query: a Gaussian mechanism on a Poisson sample.

    Attributes:
        sampling_probability: q in (0, 1]; 1 means every record takes part.
        noise_multiplier: sigma, the noise's standard deviation over the sensitivity.
            0 means no noise: the event is not private and epsilon is infinite.
    """

    sampling_probability: float
    noise_multiplier: float

    def as_dict(self) -> dict[str, float]:
        """The event as JSON-ready numbers."""
        return asdict(self)


Counts = Mapping[Event, int]


def _dp_event(counts: Counts) -> Any:
    import dp_accounting

    parts: list[Any] = []
    for event, count in counts.items():
        gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
        sampled = dp_accounting.PoissonSampledDpEvent(event.sampling_probability, gaussian)
        parts.append(dp_accounting.SelfComposedDpEvent(sampled, count))
    return dp_accounting.ComposedDpEvent(parts)


def _pld(interval: float) -> Any:
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import PLDAccountant

    return PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, interval)


def _rdp(interval: float) -> Any:
    from dp_accounting import NeighboringRelation
    from dp_accounting.rdp import RdpAccountant

    del interval  # RDP has orders instead of a grid.
    return RdpAccountant(neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE)


ACCOUNTANTS: dict[str, Callable[[float], Any]] = {"pld": _pld, "rdp": _rdp}


def epsilon_of(
    counts: Counts, delta: float, accountant: str = "pld", interval: float = SCORE_INTERVAL
) -> float:
    """The epsilon at ``delta`` of all counted events together; 0 if there are none.

    >>> round(epsilon_of({Event(0.01, 1.41464): 1000}, 1e-5), 2)
    1.0
    """
    used = {event: count for event, count in counts.items() if count > 0}
    if not used:
        return 0.0
    if any(event.noise_multiplier == 0 for event in used):
        return math.inf
    return _composed(frozenset(used.items()), delta, accountant, interval)


@lru_cache(maxsize=128)
def _composed(
    counts: frozenset[tuple[Event, int]], delta: float, accountant: str, interval: float
) -> float:
    tracker = ACCOUNTANTS[accountant](interval)
    tracker.compose(_dp_event(dict(counts)))
    return float(tracker.get_epsilon(delta))


@lru_cache(maxsize=128)
def calibrate(budget: Budget, sampling_probability: float, steps: int) -> float:
    """The smallest noise multiplier for which ``steps`` Poisson-sampled queries fit ``budget``.

    Searched on the coarse grid and re-scored on the fine one, so the returned sigma
    satisfies the budget by the same computation that the report uses.

    Raises:
        UserError: no noise multiplier meets the budget.
    """
    import dp_accounting

    def factory() -> Any:
        return ACCOUNTANTS[budget.accountant](SEARCH_INTERVAL)

    def event(sigma: float) -> Any:
        return _dp_event({Event(sampling_probability, sigma): steps})

    try:
        sigma = dp_accounting.calibrate_dp_mechanism(
            factory,
            event,
            budget.epsilon,
            budget.delta,
            bracket_interval=dp_accounting.LowerEndpointAndGuess(0.0, 1.0),
            tol=1e-5,
        )
    except (ValueError, dp_accounting.mechanism_calibration.NoBracketIntervalFoundError) as error:
        raise UserError(
            f"No noise meets epsilon={budget.epsilon:g}, delta={budget.delta:g} in {steps} steps "
            f"at sampling probability {sampling_probability:g}: use fewer steps, a smaller batch, "
            "more records, or a larger epsilon."
        ) from error
    counts = {Event(sampling_probability, sigma): steps}
    while epsilon_of(counts, budget.delta, budget.accountant) > budget.epsilon:
        sigma *= 1.0005
        counts = {Event(sampling_probability, sigma): steps}
    return float(sigma)
