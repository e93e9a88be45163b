"""Shapes as signed distances in pixels, in a local frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wavedp.data.drawing.values import Array, Value, column


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
        a, b = column(rx) * unit, column(ry) * unit
        u2, v2 = np.square(u / a), np.square(v / b)
        level = u2 + v2
        slope = u2 / (a * a) + (v2 / (b * b) + 1e-9)
        near: Array = (level - np.sqrt(level)) / np.sqrt(slope)
        return near

    return Shape(x, y, rx, ry, angle, distance, 2 * np.minimum(rx, ry))


def disc(x: Value, y: Value, radius: Value) -> Shape:
    """A filled circle."""

    def distance(u: Array, v: Array, unit: Array) -> Array:
        return np.asarray(np.sqrt(u * u + v * v) - column(radius) * unit)

    return Shape(x, y, radius, radius, None, distance, 2 * radius)


def box(
    x: Value, y: Value, hx: Value, hy: Value, angle: Value | None = None, radius: Value = 0.0
) -> Shape:
    """A filled box with half sides ``hx`` and ``hy``, its corners rounded by ``radius``."""

    def distance(u: Array, v: Array, unit: Array) -> Array:
        round_ = column(radius) * unit
        across = np.abs(u) - column(hx) * unit + round_
        down = np.abs(v) - column(hy) * unit + round_
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
        across, rise = column(half) * unit, column(bend) * unit
        t = u / across
        slope = 2 * rise * t / across
        away = np.abs(v + rise * (t * t - 0.5)) / np.sqrt(1 + slope * slope)
        return np.asarray(np.maximum(away - column(width) * unit / 2, np.abs(u) - across))

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
            edge = u * column(nx) + (v * column(ny) - column(nx * px[i] + ny * py[i]) * unit)
            worst = edge if worst is None else np.maximum(worst, edge)
        assert worst is not None
        return worst

    return Shape(cx, cy, (right - left) / 2, (bottom - top) / 2, None, distance)


def petals(
    x: Value, y: Value, radius: Value, lobes: Value, depth: Value, angle: Value | None = None
) -> Shape:
    """A disc whose radius swings ``lobes`` times by ``depth`` of itself: flower, star, blob."""

    def distance(u: Array, v: Array, unit: Array) -> Array:
        swing = np.cos(np.arctan2(v, u) * column(lobes)) * column(depth)
        reach = column(radius) * unit
        return np.asarray((np.sqrt(u * u + v * v) - reach * (1 + swing)) / (1 + column(depth)))

    reach = np.multiply(radius, np.add(1.0, np.abs(depth)))
    return Shape(x, y, reach, reach, angle, distance)


def outline(shape: Shape, width: Value) -> Shape:
    """The border of a shape, ``width`` wide."""

    def distance(u: Array, v: Array, unit: Array) -> Array:
        return np.abs(shape.distance(u, v, unit)) - column(width) * unit / 2

    grow = np.divide(width, 2)
    return replace(
        shape,
        half_width=np.add(shape.half_width, grow),
        half_height=np.add(shape.half_height, grow),
        distance=distance,
        thickness=width,
    )
