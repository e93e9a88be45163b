"""Events to epsilon, and calibration of the noise to a budget.

A mechanism is described by an :class:`Event`; the ledger counts events; this module turns
counts into epsilon. The accountants are in :mod:`wavedp.dp.accountants`: ``pld`` is the default
and the tightest, ``prv`` and ``rdp`` are there to compare. Different mechanisms (DP-SGD, noisy
sums) compose in all of them, and :func:`epsilon_of` scores a ledger's counts by any of them,
whichever the run was planned with. Results are kept on disk (:mod:`wavedp.dp.answers`).

Relation: add or remove one record. REPLACE_ONE at the same noise costs nearly twice as
much (epsilon 1.80 instead of 1.00 at q = 0.01, T = 1000, delta = 1e-5), so the relation is part
of every number reported here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from wavedp.dp import accountants, answers
from wavedp.dp.errors import UserError

RELATION = "add_or_remove_one"

# The PLD grid: a coarse one to search, a fine one for every number that is reported.
# Both are pessimistic (losses are rounded up), so a finer grid never reports more.
SEARCH_INTERVAL = 1e-3
SCORE_INTERVAL = 1e-4

# How much of the target a calibration may leave unspent.
SLACK = 1e-3

# Part of every kept answer's question: raise it when the computation in this file changes.
COMPUTATION = 1


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
        if self.accountant not in accountants.names():
            known = ", ".join(accountants.names())
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


def epsilon_of(
    counts: Counts, delta: float, accountant: str = "pld", interval: float = SCORE_INTERVAL
) -> float:
    """The epsilon at ``delta`` of all counted events together; 0 if there are none.

    Args:
        counts: how often each event took place, for example ``ledger.counts``.
        delta: in (0, 1).
        accountant: the name of a file in :mod:`wavedp.dp.accountants`.
        interval: the grid of privacy losses, for accountants that have one.

    Returns:
        An upper bound; infinity if an event has no noise.

    >>> round(epsilon_of({Event(0.01, 1.41464): 1000}, 1e-5), 2)
    1.0
    """
    used = {event: count for event, count in counts.items() if count > 0}
    if not used:
        return 0.0
    if any(event.noise_multiplier == 0 for event in used):
        return math.inf
    return _kept(_ordered(used), delta, accountant, interval)


# Events and their counts, sorted: the order of queries is of no consequence to epsilon.
_Ordered = tuple[tuple[Event, int], ...]


def _ordered(counts: Counts) -> _Ordered:
    def key(pair: tuple[Event, int]) -> tuple[float, float]:
        return pair[0].sampling_probability, pair[0].noise_multiplier

    return tuple(sorted(counts.items(), key=key))


@lru_cache(maxsize=128)
def _kept(counts: _Ordered, delta: float, accountant: str, interval: float) -> float:
    """As computed in this process, or in an earlier one."""
    events = [[float(e.sampling_probability), float(e.noise_multiplier), int(n)] for e, n in counts]
    question = _question("epsilon", accountant, delta, interval=interval, events=events)
    epsilon = answers.recall(question)
    if epsilon is None:
        epsilon = _computed(counts, delta, accountant, interval)
        answers.keep(question, epsilon)
    return epsilon


@lru_cache(maxsize=128)
def _computed(counts: _Ordered, delta: float, accountant: str, interval: float) -> float:
    epsilon = accountants.load(accountant).epsilon(dict(counts), delta, interval)
    # NaN would pass as affordable wherever it is compared with a target.
    return math.inf if math.isnan(epsilon) else epsilon


def _question(of: str, accountant: str, delta: float, **rest: Any) -> dict[str, Any]:
    """All that determines an answer, see :mod:`wavedp.dp.answers`."""
    library = accountants.load(accountant).LIBRARY
    return {
        "of": of,
        "computation": COMPUTATION,
        "accountant": accountant,
        "library": f"{library} {version(library)}",
        "relation": RELATION,
        "delta": float(delta),
        **rest,
    }


@lru_cache(maxsize=128)
def calibrate(budget: Budget, sampling_probability: float, steps: int) -> float:
    """The smallest noise multiplier for which ``steps`` Poisson-sampled queries fit ``budget``.

    Searched on the coarse grid and finished on the fine one, so the returned sigma satisfies
    the budget by the same computation that the report uses, and leaves at most 0.1% of it
    (where the accountant resolves epsilon as finely as that). A sigma that was kept on disk is
    returned only if its own score fits the budget.

    Args:
        budget: with an epsilon that is positive and finite.
        sampling_probability: q in (0, 1].
        steps: T, at least 1.

    Raises:
        UserError: no noise multiplier meets the budget.
    """

    def counts(sigma: float) -> Counts:
        return {Event(sampling_probability, sigma): steps}

    def at(interval: float) -> Callable[[float], float]:
        # Not by epsilon_of: what a search passes on its way need not be kept on disk.
        return lambda sigma: _computed(
            _ordered(counts(sigma)), budget.delta, budget.accountant, interval
        )

    question = _question(
        "sigma",
        budget.accountant,
        budget.delta,
        epsilon=float(budget.epsilon),
        events=[[float(sampling_probability), int(steps)]],
        intervals=[SEARCH_INTERVAL, SCORE_INTERVAL],
        slack=SLACK,
    )
    sigma = answers.recall(question)
    if sigma is not None and sigma > 0:
        score = epsilon_of(counts(sigma), budget.delta, budget.accountant)
        if score <= budget.epsilon:
            return sigma
    try:
        guess = _least_noise(at(SEARCH_INTERVAL), budget.epsilon, guess=1.0, step=1.5)
        sigma = _least_noise(at(SCORE_INTERVAL), budget.epsilon, guess=guess, step=1.02)
    except _TooMuchNoiseError as error:
        raise UserError(
            f"No noise meets epsilon={budget.epsilon:g}, delta={budget.delta:g} in {steps} steps "
            f"at sampling probability {sampling_probability:g}: use fewer steps, a smaller batch, "
            "more records, or a larger epsilon."
        ) from error
    answers.keep(question, sigma)
    epsilon_of(counts(sigma), budget.delta, budget.accountant)  # keeps the score, too
    return sigma


class _TooMuchNoiseError(Exception):
    """The search found no noise multiplier up to ``_LARGEST_SIGMA``."""


_LARGEST_SIGMA = 2.0**30


def _least_noise(
    epsilon_at: Callable[[float], float], target: float, *, guess: float, step: float
) -> float:
    """A sigma with ``(1 - SLACK) target <= epsilon <= target``, in few evaluations.

    ``low`` has too little noise and ``high`` enough; ``step`` is the factor by which they move
    until this is so. Then they close in: log epsilon is nearly linear in log sigma. If epsilon
    jumps past those bounds, the least sigma that is enough.
    """
    enough = (1 - SLACK) * target
    low = high = guess
    spent_low = spent_high = epsilon_at(guess)
    while spent_high > target:
        low, spent_low = high, spent_high
        high *= step
        if high > _LARGEST_SIGMA:
            raise _TooMuchNoiseError
        spent_high = epsilon_at(high)
    while spent_low <= target:
        high, spent_high = low, spent_low
        if spent_high >= enough:
            return high
        low /= step
        spent_low = epsilon_at(low)
    while spent_high < enough and high > low * (1 + 1e-6):
        share = 0.5
        if spent_high > 0 and spent_low < math.inf:
            aim = (1 - SLACK / 2) * target
            share = math.log(spent_low / aim) / math.log(spent_low / spent_high)
        # At least a tenth of the way, so that no side stands still.
        middle = low * (high / low) ** min(max(share, 0.1), 0.9)
        spent = epsilon_at(middle)
        if spent > target:
            low, spent_low = middle, spent
        else:
            high, spent_high = middle, spent
    return high
