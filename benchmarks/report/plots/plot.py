"""A figure with the numbers that it shows and the words that belong to it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.report.frame import csv_text

COLOURS = 256
"""Of a figure's palette."""


@dataclass(frozen=True)
class Plot:
    """One figure."""

    picture: bytes
    """PNG."""
    data: str
    """The plotted numbers as CSV, six significant digits."""
    alt: str
    """What the picture shows, for who does not see it."""
    caption: str
    """What is plotted, over how many seeds, with which intervals."""


def plot_of(figure: Figure, data: pd.DataFrame, alt: str, caption: str) -> Plot:
    """A drawn figure as a :class:`Plot`."""
    return Plot(flat_png(figure), csv_text(data), alt, caption)


def png(figure: Figure) -> bytes:
    """A figure as PNG, which depends on what it shows alone."""
    buffer = io.BytesIO()
    # No software or time in the metadata: the bytes depend on the records alone.
    figure.savefig(buffer, format="png", metadata={"Software": None}, facecolor="white")
    return buffer.getvalue()


def flat_png(figure: Figure) -> bytes:
    """As :func:`png`, with a palette: what has no pictures in it takes a third of the room."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png(figure))) as full:
        reduced = full.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    reduced.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def over_seeds(counts: Iterable[int]) -> str:
    """What points and bars are, from the number of seeds behind each point."""
    known = [count for count in counts if count > 0]
    if max(known, default=1) == 1:
        return "Points are single seeds, so there are no intervals"
    return f"Points are means over {counted(known, 'seed')}, bars their 95% t-intervals over seeds"


def counted(counts: Iterable[int], what: str) -> str:
    """``one seed``, ``3 seeds``, ``2 to 3 seeds``."""
    known = sorted({int(count) for count in counts})
    if known == [1]:
        return f"one {what}"
    return f"{f'{known[0]} to ' if len(known) > 1 else ''}{known[-1]} {what}s"
