"""The difference between two sides of one score, and its interval.

Seeds are the replicates, and their differences get a t-interval, not the percentiles of a
bootstrap: of three seeds these are the least and the largest difference, and between those the mean
lies in 75 cases of 100, not in 95.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from benchmarks.report.frame import CONFIDENCE, half_width_of, mean_and_half_width

Over = Literal["pairs", "seeds", "samples", "nothing"]
"""What an interval is over.

``pairs``: both sides have the same seeds, at least two, and each pair gives one difference.
``seeds``: other seeds, or more of them on one side; the two deviate alike.
``samples``: one seed, or scores that no seed changes: the standard errors over samples that records
keep. It says how far the two generators differ, and nothing of others trained in the same way.
``nothing``: a single score without a standard error, hence no interval.
"""

ROUNDING = 1e-9
"""Relative: scores that differ by less are equal."""


@dataclass(frozen=True)
class Scores:
    """One score of one line on one side.

    Attributes:
        values: by seed, finite.
        errors: standard errors over samples, of those records that have one.
    """

    values: Mapping[int, float]
    errors: Sequence[float] = ()


@dataclass(frozen=True)
class Estimate:
    """Attributes:
    before, after: means over seeds.
    half: half-width of the interval around the difference; NaN where there is none.
    over: what the interval is over.
    seeds: how many there are on each side.
    same: whether every seed has the very same score on both sides.
    """

    before: float
    after: float
    half: float
    over: Over
    seeds: tuple[int, int]
    same: bool = False

    @property
    def difference(self) -> float:
        """After less before."""
        return self.after - self.before


def estimate(before: Scores, after: Scores, confidence: float = CONFIDENCE) -> Estimate:
    """The difference of the means of two sides, each with one seed at least."""
    old, new = list(before.values.values()), list(after.values.values())
    over, half = _interval(before, after, confidence)
    return Estimate(
        before=math.fsum(old) / len(old),
        after=math.fsum(new) / len(new),
        half=half,
        over=over,
        seeds=(len(old), len(new)),
        same=before.values == after.values,
    )


def _interval(before: Scores, after: Scores, confidence: float) -> tuple[Over, float]:
    old, new = list(before.values.values()), list(after.values.values())
    if len(old) + len(new) < 3 or (_constant(old) and _constant(new)):
        half = _over_samples(before.errors, after.errors, confidence)
        return ("nothing" if math.isnan(half) else "samples"), half
    if before.values.keys() == after.values.keys():
        differences = [after.values[seed] - value for seed, value in before.values.items()]
        return "pairs", mean_and_half_width(differences, confidence)[1]
    return "seeds", _pooled(old, new, confidence)


def _constant(values: Sequence[float]) -> bool:
    """True if no seed changes the score, as of an oracle, whose images are the same for all."""
    return max(values) - min(values) <= ROUNDING * max(map(abs, values))


def _over_samples(before: Sequence[float], after: Sequence[float], confidence: float) -> float:
    if not before or not after:
        return math.nan
    error = math.hypot(math.fsum(before) / len(before), math.fsum(after) / len(after))
    return half_width_of(error, confidence)


def _pooled(before: Sequence[float], after: Sequence[float], confidence: float) -> float:
    """Half-width of Student's two-sample interval, which one score on one side is enough for."""
    squares, freedom = 0.0, len(before) + len(after) - 2
    for side in (before, after):
        mean = math.fsum(side) / len(side)
        squares += math.fsum((value - mean) ** 2 for value in side)
    error = math.sqrt(squares / freedom * (1 / len(before) + 1 / len(after)))
    return float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
