"""A canvas that paints one shape on every picture of a chunk in a few array operations.

Coverage is analytic (a clipped signed distance in pixels), so that the 64 px picture is the
32 px picture in finer detail.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wavedp.data.drawing.shapes import Shape
from wavedp.data.drawing.values import Array, Value, column


class Canvas:
    """``n`` square pictures that are painted together.

    Args:
        pixels: float32 ``[N, 3, h, w]`` in 0..1, changed in place.
        resolution: pixels per unit.
    """

    def __init__(self, pixels: Array, resolution: int) -> None:
        self.pixels = pixels
        self.resolution = resolution
        self._rows: Array | None = None
        self._x: Array = np.zeros(len(pixels), np.float32)
        self._y, self._angle = self._x.copy(), self._x.copy()
        self._scale = np.ones(len(pixels), np.float32)
        self._cos, self._sin = self._scale, self._x
        self._left, self._top = np.zeros_like(self._x), np.zeros_like(self._x)
        self._limits: Array | None = None

    @classmethod
    def blank(cls, count: int, resolution: int) -> Canvas:
        """``count`` pictures whose pixels are not yet set."""
        return cls(np.zeros((count, 3, resolution, resolution), np.float32), resolution)

    def __len__(self) -> int:
        return len(self._x)

    def _copy(self) -> Canvas:
        other = object.__new__(Canvas)
        other.__dict__.update(self.__dict__)
        return other

    def where(self, mask: Array) -> Canvas:
        """The pictures in a mask, on the same pixels."""
        other = self._copy()
        rows = np.arange(len(self)) if self._rows is None else self._rows
        other._rows = rows[mask]
        for name in ("_x", "_y", "_angle", "_cos", "_sin", "_scale", "_left", "_top"):
            setattr(other, name, getattr(self, name)[mask])
        if self._limits is not None:
            other._limits = self._limits[mask]
        return other

    def posed(self, x: Value, y: Value, scale: Value = 1.0, angle: Value = 0.0) -> Canvas:
        """The same pictures with a local frame at ``(x, y)`` of the current one."""
        other = self._copy()
        other._x, other._y = self._place(x, y)
        other._scale = (self._scale * scale).astype(np.float32)
        if np.any(angle):
            other._angle = (self._angle + angle).astype(np.float32)
            other._cos, other._sin = np.cos(other._angle), np.sin(other._angle)
        return other

    def _place(self, x: Value, y: Value) -> tuple[Array, Array]:
        if isinstance(x, int) and isinstance(y, int) and x == y == 0:
            return self._x, self._y
        across = self._x + self._scale * (self._cos * x - self._sin * y)
        down = self._y + self._scale * (self._sin * x + self._cos * y)
        return across.astype(np.float32), down.astype(np.float32)

    def _turn(self, shape: Shape) -> tuple[Array, Array]:
        """Cosine and sine of a shape's angle on the picture."""
        if shape.angle is None:
            return self._cos, self._sin
        angle = self._angle + shape.angle
        return np.cos(angle), np.sin(angle)

    def patch(self, half: Value) -> Canvas:
        """A small copy of the pixels around the local origin; give it back with :meth:`put`.

        Objects that lie at a different place in each picture are painted much faster in
        patches, because a shape's window then fits all of them.
        """
        reach = half * self._scale * self.resolution
        size = int(np.ceil(2 * np.max(reach))) + 3
        if size > 0.8 * self.resolution:
            size = self.resolution
        other = self._copy()
        limits = []
        for name, centre in (("_left", self._x), ("_top", self._y)):
            start = np.floor(centre * self.resolution - size / 2)
            start = np.clip(start, 0, self.resolution - size).astype(np.float32)
            setattr(other, name, start)
            middle = centre * self.resolution
            limits += [np.floor(middle - reach) - start, np.ceil(middle + reach) - start]
        other._limits = np.stack(limits, axis=1)
        other._rows = None
        other.pixels = self.pixels[self._index(other, size)]
        return other

    def put(self, patch: Canvas) -> None:
        """Write a patch back."""
        self.pixels[self._index(patch, patch.pixels.shape[-1])] = patch.pixels

    def _index(self, patch: Canvas, size: int) -> tuple[Any, ...]:
        if size == self.resolution:
            return (slice(None) if self._rows is None else self._rows,)
        steps = np.arange(size)
        rows = np.arange(len(self)) if self._rows is None else self._rows
        down = patch._top.astype(np.int64)[:, None] + steps
        across = patch._left.astype(np.int64)[:, None] + steps
        channels = np.arange(3)[None, :, None, None]
        columns = across[:, None, None, :]
        return rows[:, None, None, None], channels, down[:, None, :, None], columns

    def gradient(self, first: Array, second: Array, angle: Value = np.pi / 2) -> None:
        """Fill with ``first`` ``[n, 3]`` turning into ``second`` in a direction."""
        centres = (np.arange(self.resolution, dtype=np.float32) + 0.5) / self.resolution - 0.5
        across = column(np.cos(angle)) * centres
        down = column(np.sin(angle)) * centres[:, None]
        share = np.clip(0.5 + across + down, 0, 1)[:, None]
        share = np.broadcast_to(share, (len(self), 1, self.resolution, self.resolution))
        first, second = np.asarray(first, np.float32), np.asarray(second, np.float32)
        filled = first[:, :, None, None] + share * (second - first)[:, :, None, None]
        self.pixels[slice(None) if self._rows is None else self._rows] = filled

    def multiply(self, colour: Array) -> None:
        """Multiply every pixel by a colour ``[n, 3]``."""
        self.pixels[slice(None) if self._rows is None else self._rows] *= colour[:, :, None, None]

    def paint(
        self,
        shape: Shape,
        colour: Array,
        *,
        opacity: Value = 1.0,
        soft: float = 0.0,
        shade: tuple[Value, Value] = (0.0, 0.0),
        inside: Shape | None = None,
        outside: Shape | None = None,
    ) -> None:
        """Paint a shape.

        Args:
            shape: in the local frame.
            colour: ``[3]``, or ``[n, 3]``, in 0..1.
            opacity: 0..1.
            soft: width of the soft edge in local units; 0 is a sharp, antialiased edge.
            shade: how much brighter (as a share) the right and the bottom edge are than
                the centre; the left and the top are darker by as much.
            inside: paint only inside this other shape.
            outside: paint only outside this other shape.
        """
        if not len(self):
            return
        place = self._place(shape.x, shape.y)
        centre, extent = self._bounds(shape, place, soft)
        (columns, xs, across), (rows, ys, down) = (
            self._window(axis, centre[axis], extent[axis]) for axis in (0, 1)
        )
        if not (xs.size and ys.size):
            return
        # What is off a picture's own window is cut off, so that no other picture matters.
        cover = self._cover(shape, xs, ys, soft, place)
        cover = cover * (across * column(opacity))
        cover *= down.astype(np.float32)
        if inside is not None:
            cover = cover * self._cover(inside, xs, ys)
        if outside is not None:
            cover = cover * (1 - self._cover(outside, xs, ys))
        cover = cover[:, None]
        ink: Array = np.asarray(colour, np.float32).reshape(-1, 3)[:, :, None, None]
        if np.any(shade[0]) or np.any(shade[1]):
            across = (xs - centre[0]) / extent[0] * column(shade[0])
            down = (ys - centre[1]) / extent[1] * column(shade[1])
            ink = ink * (1 + across + down)[:, None]
        chosen: Any = slice(None) if self._rows is None else self._rows
        below = self.pixels[chosen, :, rows, columns]
        change = ink - below
        change *= cover
        below += change
        if self._rows is not None:  # then ``below`` is a copy
            self.pixels[chosen, :, rows, columns] = below

    def _bounds(
        self, shape: Shape, place: tuple[Array, Array], soft: float
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Centre and half extent of a shape, in pixels of this canvas, as columns."""
        x, y = place
        cos, sin = (np.abs(value) for value in self._turn(shape))
        wide = cos * shape.half_width + sin * shape.half_height + soft
        tall = sin * shape.half_width + cos * shape.half_height + soft
        unit = self._scale * self.resolution
        centre = x * self.resolution - self._left, y * self.resolution - self._top
        return (column(centre[0]), column(centre[1])), (
            column(unit * wide + 1e-6),
            column(unit * tall + 1e-6),
        )

    def _window(self, axis: int, middle: Array, reach: Array) -> tuple[slice, Array, Array]:
        """Along one axis: the pixels that hold the shape in any picture, their centres, and
        which of them belong to each picture's own window ``[n, 1, w]`` or ``[n, h, 1]``."""
        low, high = np.floor(middle - reach - 0.5), np.ceil(middle + reach + 0.5)
        if self._limits is not None:
            low = np.maximum(low, self._limits[:, 2 * axis, None, None])
            high = np.minimum(high, self._limits[:, 2 * axis + 1, None, None])
        first = max(0, int(low.min()))
        last = max(first, min(self.pixels.shape[-1], int(high.max())))
        shape = (1, 1, -1) if axis == 0 else (1, -1, 1)
        centres = np.arange(first, last, dtype=np.float32).reshape(shape) + np.float32(0.5)
        return slice(first, last), centres, (centres > low) & (centres < high)

    def _cover(
        self,
        shape: Shape,
        xs: Array,
        ys: Array,
        soft: float = 0.0,
        place: tuple[Array, Array] | None = None,
    ) -> Array:
        """How much of each pixel the shape covers, 0..1, ``[n, h, w]``."""
        x, y = place or self._place(shape.x, shape.y)
        across = xs - column(x * self.resolution - self._left)
        down = ys - column(y * self.resolution - self._top)
        if np.any(self._angle) or shape.angle is not None:
            cos, sin = (column(value) for value in self._turn(shape))
            across, down = across * cos + down * sin, down * cos - across * sin
        unit = column(self._scale * self.resolution)
        distance = shape.distance(across, down, unit)
        if soft:
            ramp = np.clip(0.5 - distance / np.maximum(unit * soft * 2, 1), 0, 1)
            smooth: Array = ramp * ramp * (3 - 2 * ramp)
            return smooth
        cover = 0.5 - distance
        np.maximum(cover, 0, out=cover)
        most = 1.0 if shape.thickness is None else column(shape.thickness) * unit
        np.minimum(cover, np.minimum(most, np.float32(1)), out=cover)
        return np.asarray(cover)

    def image(self) -> Array:
        """The pictures as uint8 ``[n, 3, h, w]``."""
        return (np.clip(self.pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
