"""Drawing with numpy only: randomness by counter, and a canvas for many pictures at once.

Randomness is a hash of (seed, domain, index, slot), so that record 17 is the same record
whatever else is drawn. A :class:`Canvas` paints one shape on every picture of a chunk in
a few array operations. Coverage is analytic (a clipped signed distance in pixels), so that
the 64 px picture is the 32 px picture in finer detail.

Coordinates: the picture is the unit square, x to the right, y down. A pose places a local
frame in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Value = float | Array
"""A number for the whole chunk, or one per picture ``[n]``."""
Attributes = dict[str, Array]
"""Name to one value (or row) per picture."""
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


def words(text: str) -> tuple[str, ...]:
    """The words of a text: a readable way to write a long tuple of them."""
    return tuple(text.split())


def where(attributes: Attributes, mask: Array) -> Attributes:
    """The attributes of the records in a mask."""
    return {name: values[mask] for name, values in attributes.items()}


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


def _column(value: Value) -> Array:
    return np.asarray(value, dtype=np.float32).reshape(-1, 1, 1)


@dataclass(frozen=True)
class Shape:
    """A shape in a local frame.

    Attributes:
        x, y: its centre.
        half_width, half_height: its extent before it is turned.
        angle: in radians.
        distance: ``(u, v, unit)`` to the signed distance in pixels, negative inside. ``u``
            and ``v`` are pixels from the centre along the shape's own axes and may be
            ``[n, 1, w]`` and ``[n, h, 1]``; ``unit`` is pixels per local unit.
        thickness: its smallest diameter, because a thing thinner than a pixel covers less
            than one; None where it never is.
    """

    x: Value
    y: Value
    half_width: Value
    half_height: Value
    angle: Value | None
    distance: Callable[[Array, Array, Array], Array]
    thickness: Value | None = None


def ellipse(x: Value, y: Value, rx: Value, ry: Value, angle: Value | None = None) -> Shape:
    """A filled ellipse with radii ``rx`` and ``ry``."""

    def distance(u: Array, v: Array, unit: Array) -> Array:
        a, b = _column(rx) * unit, _column(ry) * unit
        u2, v2 = np.square(u / a), np.square(v / b)
        level = u2 + v2
        slope = u2 / (a * a) + (v2 / (b * b) + 1e-9)
        near: Array = (level - np.sqrt(level)) / np.sqrt(slope)
        return near

    return Shape(x, y, rx, ry, angle, distance, 2 * np.minimum(rx, ry))


def disc(x: Value, y: Value, radius: Value) -> Shape:
    """A filled circle."""

    def distance(u: Array, v: Array, unit: Array) -> Array:
        return np.asarray(np.sqrt(u * u + v * v) - _column(radius) * unit)

    return Shape(x, y, radius, radius, None, distance, 2 * radius)


def box(
    x: Value, y: Value, hx: Value, hy: Value, angle: Value | None = None, radius: Value = 0.0
) -> Shape:
    """A filled box with half sides ``hx`` and ``hy``, its corners rounded by ``radius``."""

    def distance(u: Array, v: Array, unit: Array) -> Array:
        round_ = _column(radius) * unit
        across = np.abs(u) - _column(hx) * unit + round_
        down = np.abs(v) - _column(hy) * unit + round_
        if not np.any(round_):
            return np.asarray(np.maximum(across, down))
        corner = np.sqrt(np.square(np.maximum(across, 0)) + np.square(np.maximum(down, 0)))
        return np.asarray(corner + np.minimum(np.maximum(across, down), 0) - round_)

    return Shape(x, y, hx, hy, angle, distance, 2 * np.minimum(hx, hy))


def line(x0: Value, y0: Value, x1: Value, y1: Value, width: Value) -> Shape:
    """A straight line with round-ish ends."""
    dx, dy = np.subtract(x1, x0), np.subtract(y1, y0)
    half = np.hypot(dx, dy) / 2
    middle = np.add(x0, x1) / 2, np.add(y0, y1) / 2
    return box(*middle, half + np.divide(width, 2), np.divide(width, 2), np.arctan2(dy, dx))


def arch(
    x: Value, y: Value, half: Value, bend: Value, width: Value, angle: Value | None = None
) -> Shape:
    """A bent line from ``x - half`` to ``x + half``; its ends lie ``bend`` above its middle."""

    def distance(u: Array, v: Array, unit: Array) -> Array:
        across, rise = _column(half) * unit, _column(bend) * unit
        t = u / across
        slope = 2 * rise * t / across
        away = np.abs(v + rise * (t * t - 0.5)) / np.sqrt(1 + slope * slope)
        return np.asarray(np.maximum(away - _column(width) * unit / 2, np.abs(u) - across))

    tall = np.abs(bend) / 2 + width
    return Shape(x, y, np.add(half, 0.0), tall, angle, distance, width)


def polygon(points: Sequence[tuple[Value, Value]]) -> Shape:
    """A convex polygon; its corners in order, clockwise on the screen."""
    xs = np.stack(np.broadcast_arrays(*[np.asarray(p[0], np.float32) for p in points]))
    ys = np.stack(np.broadcast_arrays(*[np.asarray(p[1], np.float32) for p in points]))
    left, right, top, bottom = xs.min(0), xs.max(0), ys.min(0), ys.max(0)
    cx, cy = (left + right) / 2, (top + bottom) / 2
    px, py = xs - cx, ys - cy

    def distance(u: Array, v: Array, unit: Array) -> Array:
        worst: Array | None = None
        for i in range(len(points)):
            j = (i + 1) % len(points)
            ex, ey = px[j] - px[i], py[j] - py[i]
            norm = np.sqrt(ex * ex + ey * ey) + 1e-9
            nx, ny = ey / norm, -ex / norm
            edge = u * _column(nx) + (v * _column(ny) - _column(nx * px[i] + ny * py[i]) * unit)
            worst = edge if worst is None else np.maximum(worst, edge)
        assert worst is not None
        return worst

    return Shape(cx, cy, (right - left) / 2, (bottom - top) / 2, None, distance)


def petals(
    x: Value, y: Value, radius: Value, lobes: Value, depth: Value, angle: Value | None = None
) -> Shape:
    """A disc whose radius swings ``lobes`` times by ``depth`` of itself: flower, star, blob."""

    def distance(u: Array, v: Array, unit: Array) -> Array:
        swing = np.cos(np.arctan2(v, u) * _column(lobes)) * _column(depth)
        reach = _column(radius) * unit
        return np.asarray((np.sqrt(u * u + v * v) - reach * (1 + swing)) / (1 + _column(depth)))

    reach = np.multiply(radius, np.add(1.0, np.abs(depth)))
    return Shape(x, y, reach, reach, angle, distance)


def outline(shape: Shape, width: Value) -> Shape:
    """The border of a shape, ``width`` wide."""

    def distance(u: Array, v: Array, unit: Array) -> Array:
        return np.abs(shape.distance(u, v, unit)) - _column(width) * unit / 2

    grow = np.divide(width, 2)
    return replace(
        shape,
        half_width=np.add(shape.half_width, grow),
        half_height=np.add(shape.half_height, grow),
        distance=distance,
        thickness=width,
    )


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
        across = _column(np.cos(angle)) * centres
        down = _column(np.sin(angle)) * centres[:, None]
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
        centre, extent = self._bounds(shape, soft)
        (columns, xs, across), (rows, ys, down) = (
            self._window(axis, centre[axis], extent[axis]) for axis in (0, 1)
        )
        if not (xs.size and ys.size):
            return
        # What is off a picture's own window is cut off, so that no other picture matters.
        cover = self._cover(shape, xs, ys, soft)
        cover = cover * (across * _column(opacity))
        cover *= down.astype(np.float32)
        if inside is not None:
            cover = cover * self._cover(inside, xs, ys, 0.0)
        if outside is not None:
            cover = cover * (1 - self._cover(outside, xs, ys, 0.0))
        cover = cover[:, None]
        ink: Array = np.asarray(colour, np.float32).reshape(-1, 3)[:, :, None, None]
        if np.any(shade[0]) or np.any(shade[1]):
            across = (xs - centre[0]) / extent[0] * _column(shade[0])
            down = (ys - centre[1]) / extent[1] * _column(shade[1])
            ink = ink * (1 + across + down)[:, None]
        chosen: Any = slice(None) if self._rows is None else self._rows
        below = self.pixels[chosen, :, rows, columns]
        change = ink - below
        change *= cover
        below += change
        if self._rows is not None:  # then ``below`` is a copy
            self.pixels[chosen, :, rows, columns] = below

    def _bounds(self, shape: Shape, soft: float) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Centre and half extent of a shape, in pixels of this canvas, as columns."""
        x, y = self._place(shape.x, shape.y)
        cos, sin = (np.abs(value) for value in self._turn(shape))
        wide = cos * shape.half_width + sin * shape.half_height + soft
        tall = sin * shape.half_width + cos * shape.half_height + soft
        unit = self._scale * self.resolution
        centre = x * self.resolution - self._left, y * self.resolution - self._top
        return (_column(centre[0]), _column(centre[1])), (
            _column(unit * wide + 1e-6),
            _column(unit * tall + 1e-6),
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

    def _cover(self, shape: Shape, xs: Array, ys: Array, soft: float) -> Array:
        """How much of each pixel the shape covers, 0..1, ``[n, h, w]``."""
        x, y = self._place(shape.x, shape.y)
        across = xs - _column(x * self.resolution - self._left)
        down = ys - _column(y * self.resolution - self._top)
        if np.any(self._angle) or shape.angle is not None:
            cos, sin = (_column(value) for value in self._turn(shape))
            across, down = across * cos + down * sin, down * cos - across * sin
        unit = _column(self._scale * self.resolution)
        distance = shape.distance(across, down, unit)
        if soft:
            ramp = np.clip(0.5 - distance / np.maximum(unit * soft * 2, 1), 0, 1)
            smooth: Array = ramp * ramp * (3 - 2 * ramp)
            return smooth
        cover = 0.5 - distance
        np.maximum(cover, 0, out=cover)
        most = 1.0 if shape.thickness is None else _column(shape.thickness) * unit
        np.minimum(cover, np.minimum(most, np.float32(1)), out=cover)
        return np.asarray(cover)

    def image(self) -> Array:
        """The pictures as uint8 ``[n, 3, h, w]``."""
        return (np.clip(self.pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
