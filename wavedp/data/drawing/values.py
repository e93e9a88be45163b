"""The words of this package: arrays, one value per picture, attributes by name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Value = float | Array
"""A number for the whole chunk, or one per picture ``[n]``."""
Attributes = dict[str, Array]
"""Name to one value (or row) per picture."""


def words(text: str) -> tuple[str, ...]:
    """The words of a text: a readable way to write a long tuple of them."""
    return tuple(text.split())


def where(attributes: Attributes, mask: Array) -> Attributes:
    """The attributes of the records in a mask."""
    return {name: values[mask] for name, values in attributes.items()}


def column(value: Value) -> Array:
    """``[n, 1, 1]`` (or ``[1, 1, 1]``), to go with pixels ``[n, h, w]``."""
    return np.asarray(value, dtype=np.float32).reshape(-1, 1, 1)
