"""The frozen plan: one object fixes sampling, clipping, noise, steps and the accountant.

The reported epsilon is computed from the same fields that drive the training, so a number
that does not describe what ran is hard to write. Training without privacy is a plan, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

from wavedp.dp.accounting import RELATION, Budget, Event, calibrate
from wavedp.dp.errors import UserError
from wavedp.dp.randomness import Stream
from wavedp.dp.sampling import Batches, PoissonBatches, ShuffledBatches


class Plan(Protocol):
    """What the trainer needs to know; see :class:`DPPlan` for the meaning of the fields."""

    @property
    def steps(self) -> int: ...
    @property
    def expected_batch(self) -> int: ...
    @property
    def clip(self) -> float: ...
    @property
    def noise_multiplier(self) -> float: ...
    @property
    def event(self) -> Event: ...
    @property
    def budget(self) -> Budget: ...

    def batches(self, size: int, stream: Stream) -> Batches:
        """The logical batches over ``size`` records."""


@dataclass(frozen=True)
class DPPlan:
    """DP-SGD (Abadi et al. 2016) on Poisson-sampled logical batches.

    Every step releases ``(sum_i clip(g_i, C) + N(0, (sigma C)^2)) / expected_batch``, where
    record i takes part with probability q, independently.

    Attributes:
        budget: target ``(epsilon, delta)``, relation and accountant.
        records: N, the declared (public) number of records.
        expected_batch: E[batch] = q N, the public constant that sums are divided by.
        steps: T.
        clip: C, the bound on a record's gradient in the L2 norm.
        noise_multiplier: sigma.
    """

    budget: Budget
    records: int
    expected_batch: int
    steps: int
    clip: float
    noise_multiplier: float

    @classmethod
    def calibrate(
        cls,
        *,
        epsilon: float,
        delta: float,
        records: int,
        expected_batch: int,
        steps: int,
        clip: float = 1.0,
        accountant: str = "pld",
    ) -> DPPlan:
        """The plan with the least noise that meets the target.

        Raises:
            UserError: a field is out of range, ``delta >= 1 / records``, or no noise
                multiplier meets the budget.
        """
        budget = Budget(epsilon, delta, RELATION, accountant)
        plan = cls(budget, records, expected_batch, steps, clip, noise_multiplier=math.nan)
        plan._check()
        return replace(
            plan, noise_multiplier=calibrate(budget, plan.sampling_probability, plan.steps)
        )

    def _check(self) -> None:
        epsilon, delta = self.budget.epsilon, self.budget.delta
        if not 0 < epsilon < math.inf:
            raise UserError(
                f"epsilon must be positive and finite for a private run, got {epsilon:g}; "
                "use a NonPrivatePlan for epsilon = infinity."
            )
        if self.records < 1 or delta >= 1 / self.records:
            raise UserError(
                f"delta={delta:g} is not below 1/N for N={self.records} records, which would allow "
                "a method to publish a record; choose a smaller delta, for example 1e-5."
            )
        if not 1 <= self.expected_batch <= self.records:
            raise UserError(
                f"expected batch {self.expected_batch} must lie between 1 and N={self.records}; "
                "set expected_batch accordingly."
            )
        if self.steps < 1 or not self.clip > 0:
            raise UserError(
                f"steps and clip must be positive, got steps={self.steps}, clip={self.clip:g}."
            )

    @property
    def sampling_probability(self) -> float:
        """q = expected_batch / N, from public numbers only."""
        return self.expected_batch / self.records

    @property
    def event(self) -> Event:
        """What one step costs."""
        return Event(self.sampling_probability, self.noise_multiplier)

    def batches(self, size: int, stream: Stream) -> Batches:
        """Poisson batches; ``size`` is the true number of records, which stays private."""
        return PoissonBatches(size, self.sampling_probability, stream)


@dataclass(frozen=True)
class NonPrivatePlan:
    """Ordinary minibatch training: no clipping, no noise, epsilon = infinity.

    Used for public pretraining, and on private records for the rows marked non-private.
    """

    expected_batch: int
    steps: int
    delta: float = 1e-5
    clip: float = math.inf
    noise_multiplier: float = 0.0

    @property
    def event(self) -> Event:
        """A step without noise, which no finite epsilon covers."""
        return Event(1.0, 0.0)

    @property
    def budget(self) -> Budget:
        """An infinite one."""
        return Budget(math.inf, self.delta)

    def batches(self, size: int, stream: Stream) -> Batches:
        """Shuffled epochs in batches of exactly ``min(expected_batch, size)``."""
        return ShuffledBatches(size, self.expected_batch, stream)
