"""Randomness by counter, a hash of (seed, domain, index, slot): record 17 is the same record
whatever else is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TypeVar

import numpy as np

from wavedp.data.drawing.values import Array, Value

T = TypeVar("T")

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@lru_cache(maxsize=4096)
def _key(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _mix(x: Array) -> Array:
    """The splitmix64 finaliser on uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = x ^ (x >> np.uint64(31))
    return mixed


class Draws:
    """Independent uniforms per (seed, domain, index, name).

    Args:
        seed: the data set's seed.
        domain: keeps the streams of different data sets apart.
        indices: record indices ``[n]``.
    """

    def __init__(self, seed: int, domain: str, indices: Sequence[int] | Array) -> None:
        index = np.asarray(indices, dtype=np.int64).astype(np.uint64)
        self._state = _mix(index * _GOLDEN + np.uint64(_key(f"{seed}/{domain}")))

    def __len__(self) -> int:
        return len(self._state)

    def uniform(self, name: str, low: Value = 0.0, high: Value = 1.0) -> Array:
        """``[n]`` uniforms in ``[low, high)``."""
        bits = _mix(self._state ^ np.uint64(_key(name)))
        unit: Array = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return np.asarray(low + unit * (high - low))

    def table(self, name: str, slots: int) -> Array:
        """``[n, slots]`` uniforms in ``[0, 1)``."""
        counter = np.arange(1, slots + 1, dtype=np.uint64) * _GOLDEN
        bits = _mix(_mix(self._state ^ np.uint64(_key(name)))[:, None] + counter)
        unit: Array = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return unit

    def chance(self, name: str, probability: Value) -> Array:
        """``[n]`` booleans, true with the given probability."""
        return np.asarray(self.uniform(name) < probability)

    def choice(self, name: str, weights: Sequence[float] | Array) -> Array:
        """``[n]`` integers with the given weights, ``[k]`` for all or ``[n, k]`` for each."""
        steps = np.cumsum(np.asarray(weights, dtype=np.float64), axis=-1)
        level = self.uniform(name)[:, None] * steps[..., -1:]
        return np.asarray((level >= steps[..., :-1]).sum(axis=-1))


class Dice:
    """Picks for a caption, from one row of uniforms."""

    def __init__(self, uniforms: Array) -> None:
        self._uniforms = iter(uniforms.tolist())

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return bool(next(self._uniforms) < probability)

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, uniformly."""
        return options[int(next(self._uniforms) * len(options))]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """``count`` of the options (or all there are) without repetition, shuffled."""
        left = list(options)
        return [
            left.pop(int(next(self._uniforms) * len(left))) for _ in range(min(count, len(left)))
        ]
