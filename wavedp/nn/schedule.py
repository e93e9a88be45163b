"""Learning-rate schedules over the fraction of training done."""

from __future__ import annotations

import math
from collections.abc import Callable


def cosine(floor: float = 0.0, warmup: float = 0.02) -> Callable[[float], float]:
    """A factor on the learning rate: linear warm-up, then half a cosine down to ``floor``."""

    def factor(done: float) -> float:
        if done < warmup:
            # Never zero, so that the first of few steps is not wasted.
            return 0.1 + 0.9 * done / warmup
        angle = math.pi * (done - warmup) / (1 - warmup)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(angle))

    return factor
