"""Colours: palettes, hues and mixtures, in 0..1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wavedp.data.drawing.values import Array, Value


def palette(colours: Sequence[str]) -> Array:
    """Hexadecimal colours as float32 ``[k, 3]`` in 0..1."""
    values = [[int(c[i : i + 2], 16) / 255 for i in (0, 2, 4)] for c in colours]
    return np.array(values, dtype=np.float32)


def hsv(hue: Array, saturation: Array, value: Array) -> Array:
    """Colours ``[n, 3]`` in 0..1 from hue, saturation and value ``[n]`` in 0..1."""
    phase = np.mod(hue[:, None] * 6 + np.array([5.0, 3.0, 1.0]), 6)
    wheel = np.clip(np.minimum(phase, 4 - phase), 0, 1)
    return np.asarray(value[:, None] * (1 - saturation[:, None] * wheel), dtype=np.float32)


def mix(first: Array, second: Array | float, share: Value) -> Array:
    """``first`` with ``share`` (one number, or ``[n]``) of ``second`` in it."""
    weight = np.asarray(share, dtype=np.float32)
    blended: Array = first + (second - first) * (weight[:, None] if weight.ndim else weight)
    return blended
