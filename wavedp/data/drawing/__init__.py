"""Drawing with numpy only: randomness by counter, and a canvas for many pictures at once.

Coordinates: the picture is the unit square, x to the right, y down. A pose places a local
frame in it.
"""

from wavedp.data.drawing.canvas import Canvas
from wavedp.data.drawing.colours import hsv, mix, palette
from wavedp.data.drawing.randomness import Dice, Draws
from wavedp.data.drawing.shapes import (
    Shape,
    arch,
    box,
    disc,
    ellipse,
    line,
    outline,
    petals,
    polygon,
)
from wavedp.data.drawing.values import Array, Attributes, Value, where, words

__all__ = [
    "Array",
    "Attributes",
    "Canvas",
    "Dice",
    "Draws",
    "Shape",
    "Value",
    "arch",
    "box",
    "disc",
    "ellipse",
    "hsv",
    "line",
    "mix",
    "outline",
    "palette",
    "petals",
    "polygon",
    "where",
    "words",
]
