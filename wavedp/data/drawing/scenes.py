"""How a landscape with objects is painted, from its look."""

from __future__ import annotations

import numpy as np

from wavedp.data.drawing.canvas import Canvas
from wavedp.data.drawing.colours import mix, palette
from wavedp.data.drawing.shapes import arch, box, disc, ellipse, line, polygon
from wavedp.data.drawing.values import Array, Attributes, where, words

GROUNDS = ("grass", "sand", "snow", "water", "road")
GRASS, SAND, SNOW, WATER, ROAD = range(5)
SKIES = ("day", "dusk", "night")
DAY, DUSK, NIGHT = range(3)
KINDS = words(
    "house tree pine car boat dog cat person fence snowman duck umbrella "
    "sun moon cloud balloon kite"
)
GROUND_KINDS = 12
"""The first so many kinds stand on the ground, the others float in the sky."""
GROUND_SLOTS, SLOTS = 3, 5
PAINT = palette(
    words("cf3430 2f62bd 3f9a52 f0c43a 8250a8 ee8030 f3f0ea 2c2b33 7d5233 96989c"),
)
SKY = palette(["4f9be0", "3d3a78", "0c1233"]), palette(["cfe8f7", "f7a560", "2f3f78"])
TINT = palette(["ffffff", "f2c0a8", "7682b4"])
GROUND = palette(["6fae4a", "e3c88c", "eef2f7", "3a7fb8", "7fa356"])
_WHITE, _BLACK, _SKIN, _BARK, _LEAF, _PINE, _GLOW = palette(
    ["ffffff", "1d1b22", "e2ac84", "6b4528", "3f8f3a", "1f5f45", "ffe27a"]
)


def paint_scene(canvas: Canvas, look: Attributes) -> None:
    """Paint the scenes: sky, ground, then objects from back to front."""
    # All is painted in daylight and tinted at the end; what gives light is painted brighter.
    tint = TINT[look["sky"]]
    high, low = (colours[look["sky"]] * look["warmth"][:, None] / tint for colours in SKY)
    canvas.gradient(high, mix(low, high, -0.6))
    _stars(canvas, look)
    for slot in (3, 4):
        _objects(canvas, look, slot)
    _ground(canvas, look)
    for slot in range(GROUND_SLOTS):
        _objects(canvas, look, slot)
    canvas.multiply(tint)


def _stars(canvas: Canvas, look: Attributes) -> None:
    mask = look["sky"] == NIGHT
    part, phase = canvas.where(mask), look["phase"][mask]
    for i in range(9):
        x, y = np.mod(phase + 0.381966 * i, 1), np.mod(phase * 7 + 0.27 * i, 0.45)
        part.paint(disc(x, y, 0.012), _WHITE * 1.7)


def _ground(canvas: Canvas, look: Attributes) -> None:
    ground, horizon = look["ground"], look["horizon"]
    colour = GROUND[ground] * look["warmth"][:, None]
    half = (1.02 - horizon) / 2
    far = mix(colour * 0.85, palette(["8fa8b0"])[0], 0.3)
    hills = canvas.where(ground != WATER)
    some = where(look | {"far": far}, ground != WATER)
    for x, high in ((0.2, 0.11), (0.75, 0.14)):
        hill = ellipse(x + 0.3 * some["phase"] - 0.15, some["horizon"] + 0.05, 0.45, high)
        hills.paint(hill, some["far"])
    canvas.paint(box(0.5, horizon + half, 0.6, half), colour, shade=(0.0, -0.14))
    _ripples(canvas, look)
    _tufts(canvas, look, colour)
    mask = ground == ROAD
    part, some = canvas.where(mask), where(look, mask)
    part.paint(box(0.5, 0.88, 0.6, 0.14), palette(["55565c"])[0], shade=(0.0, -0.1))
    for i in range(5):
        part.paint(box(i * 0.25 + 0.2 * some["phase"], 0.89, 0.06, 0.012), _WHITE)


def _ripples(canvas: Canvas, look: Attributes) -> None:
    mask = look["ground"] == WATER
    part, some = canvas.where(mask), where(look, mask)
    for i in range(8):
        x = np.mod(some["phase"] + 0.618 * i, 1)
        y = some["horizon"] + 0.04 + 0.055 * i
        part.paint(arch(x, y, 0.1, 0.02, 0.018), palette(["9fd0ea"])[0], opacity=0.75)


def _tufts(canvas: Canvas, look: Attributes, colour: Array) -> None:
    mask = look["ground"] < WATER
    part, some = canvas.where(mask), where(look, mask)
    grass = some["ground"] == GRASS
    dark = colour[mask] * np.where(grass, 0.7, 0.86)[:, None]
    for i in range(8):
        x = np.mod(some["phase"] * 3 + 0.618 * i, 1)
        y = some["horizon"] + 0.05 + 0.05 * i
        part.paint(ellipse(x, y, 0.035, np.where(grass, 0.014, 0.01)), dark)


def _objects(canvas: Canvas, look: Attributes, slot: int) -> None:
    """Paint the objects of one slot, kind by kind, each in a patch around it."""
    for kind, name in enumerate(KINDS):
        mask = look["kind"][:, slot] == kind
        if not mask.any():
            continue
        part, some = canvas.where(mask), where(look, mask)
        size = some["size"][:, slot]
        framed = part.posed(some["x"][:, slot], some["y"][:, slot], size)
        patch = framed.patch(0.62 if kind not in _WIDE else 1.0)
        shadow = ellipse(0, 0.5, 0.75 if kind in _WIDE else 0.4, 0.07)
        if kind < GROUND_KINDS:
            patch.paint(shadow, _BLACK, opacity=0.35)
        PAINTERS[name](patch, some, some["rgb"][:, slot])
        part.put(patch)


def _house(canvas: Canvas, look: Attributes, rgb: Array) -> None:
    canvas.paint(box(0, 0.2, 0.42, 0.3), rgb, shade=(-0.14, -0.1))
    canvas.paint(box(0.26, -0.32, 0.05, 0.14), rgb * 0.6)
    roof = palette(["7a3b2e", "cfdcea"])
    roofs = np.where(look["bare"][:, None], roof[1], roof[0])
    canvas.paint(polygon([(-0.54, -0.08), (0, -0.5), (0.54, -0.08)]), roofs, shade=(-0.15, 0.1))
    canvas.paint(box(-0.16, 0.33, 0.09, 0.17), _BARK * 0.8)
    lit = np.where((look["sky"] > 0)[:, None], _GLOW * 1.6, palette(["8ec3e0"]))
    canvas.paint(box(0.19, 0.17, 0.11, 0.1), lit)


def _tree(canvas: Canvas, look: Attributes, rgb: Array) -> None:
    canvas.paint(box(0, 0.25, 0.06, 0.26), _BARK, shade=(-0.3, 0.0))
    bare = look["bare"]
    part = canvas.where(bare)
    twigs = ((-0.27, -0.3, 0.12), (0.28, -0.25, 0.08), (0, -0.47, 0.1), (0.2, -0.45, -0.1))
    for x, y, foot in twigs:
        part.paint(line(0, foot, x, y, 0.07), _BARK)
    part, some = canvas.where(~bare), look["warmth"][~bare]
    leaf = _LEAF * some[:, None]
    crown = ((-0.2, -0.05, 0.22, 0.8), (0.2, -0.08, 0.22, 0.85), (0, -0.2, 0.29, 1.0))
    for x, y, r, light in crown:
        part.paint(disc(x, y, r), leaf * light, shade=(-0.15, -0.25))


def _pine(canvas: Canvas, look: Attributes, rgb: Array) -> None:
    canvas.paint(box(0, 0.42, 0.05, 0.1), _BARK)
    snow = np.where(look["bare"][:, None], _WHITE, _PINE * 1.4)
    for y, half in ((0.36, 0.34), (0.1, 0.27), (-0.16, 0.19)):
        tier = polygon([(-half, y), (0, y - 0.38), (half, y)])
        canvas.paint(tier, _PINE, shade=(-0.25, -0.1))
        canvas.paint(line(-0.6 * half, y - 0.13, -0.1, y - 0.32, 0.05), snow, opacity=0.8)


def _car(canvas: Canvas, look: Attributes, rgb: Array) -> None:
    cabin = [(-0.5, -0.05), (-0.3, -0.42), (0.25, -0.42), (0.48, -0.05)]
    canvas.paint(polygon(cabin), rgb * 0.9)
    glass = [(-0.36, -0.06), (-0.23, -0.31), (0.19, -0.31), (0.34, -0.06)]
    canvas.paint(polygon(glass), palette(["a9d3ea"])[0], shade=(0.2, 0.0))
    canvas.paint(box(0, 0.13, 0.86, 0.22, None, 0.14), rgb, shade=(-0.06, -0.2))
    for side in (-1, 1):
        canvas.paint(disc(side * 0.46, 0.32, 0.19), _BLACK)
        canvas.paint(disc(side * 0.46, 0.32, 0.08), palette(["b9bcc2"])[0])
    canvas.paint(disc(look["flip"] * 0.78, 0.08, 0.08), _GLOW * 1.3)


def _boat(canvas: Canvas, look: Attributes, rgb: Array) -> None:
    flip = look["flip"]
    canvas.paint(line(0, 0.2, 0, -0.5, 0.05), _BARK * 0.7)
    right = np.where(flip > 0, 0.42, 0.05), np.where(flip > 0, 0.05, -0.42)
    sail = [(right[1], 0.12), (flip * 0.05, -0.46), (right[0], 0.12)]
    canvas.paint(polygon(sail), palette(["fbf6e8"])[0], shade=(0.1, -0.08))
    hull = [(-0.55, 0.2), (0.55, 0.2), (0.36, 0.48), (-0.36, 0.48)]
    canvas.paint(polygon(hull), rgb, shade=(0.1, -0.2))
    canvas.paint(box(0, 0.49, 0.5, 0.03), _WHITE, opacity=0.7)


def _dog(canvas: Canvas, look: Attributes, rgb: Array) -> None:
    f = look["flip"]
    for x in (-0.36, -0.22, 0.18, 0.32):
        canvas.paint(box(x * f, 0.32, 0.055, 0.18), rgb * 0.75)
    canvas.paint(line(-0.4 * f, 0.0, -0.6 * f, -0.25, 0.1), rgb * 0.9)
    canvas.paint(box(-0.02 * f, 0.08, 0.44, 0.17, None, 0.15), rgb, shade=(0.0, -0.2))
    canvas.paint(disc(0.42 * f, -0.2, 0.23), rgb * 1.05, shade=(0.0, -0.15))
    canvas.paint(ellipse(0.63 * f, -0.12, 0.13, 0.09), rgb * 1.1)
    canvas.paint(ellipse(0.28 * f, -0.16, 0.08, 0.18), rgb * 0.55)
    canvas.paint(disc(0.73 * f, -0.15, 0.05), _BLACK)
    canvas.paint(disc(0.48 * f, -0.25, 0.045), _BLACK)


def _cat(canvas: Canvas, look: Attributes, rgb: Array) -> None:
    f = look["flip"]
    canvas.paint(arch(-0.32 * f, 0.25, 0.2, 0.3, 0.1, -0.5 * f), rgb * 0.85)
    canvas.paint(ellipse(0, 0.22, 0.27, 0.29), rgb, shade=(0.0, -0.2))
    for side in (-1, 1):
        ear = [(side * 0.29 - 0.11, -0.28), (side * 0.29, -0.54), (side * 0.2 + 0.11, -0.28)]
        canvas.paint(polygon(ear), rgb * 0.8)
    canvas.paint(ellipse(0, -0.17, 0.3, 0.24), rgb * 1.05, shade=(0.0, -0.12))
    for side in (-1, 1):
        canvas.paint(disc(side * 0.12, -0.2, 0.06), palette(["c6e05a"])[0])
        canvas.paint(disc(side * 0.12, -0.2, 0.03), _BLACK)
    canvas.paint(disc(0, -0.09, 0.045), palette(["d8808a"])[0])


def _person(canvas: Canvas, look: Attributes, rgb: Array) -> None:
    for side in (-1, 1):
        canvas.paint(box(side * 0.07, 0.33, 0.055, 0.18), palette(["33405e"])[0])
        canvas.paint(line(side * 0.12, -0.1, side * 0.22, 0.14, 0.08), _SKIN * 0.95)
    canvas.paint(box(0, 0.03, 0.15, 0.19, None, 0.06), rgb, shade=(0.1, -0.15))
    canvas.paint(disc(0, -0.31, 0.15), _BARK * 0.7)
    canvas.paint(ellipse(0, -0.27, 0.125, 0.13), _SKIN, shade=(0.1, -0.1))


def _fence(canvas: Canvas, look: Attributes, rgb: Array) -> None:
    wood = np.where((look["phase"] > 0.5)[:, None], palette(["f2efe6"]), palette(["a0714a"]))
    for y in (-0.05, 0.25):
        canvas.paint(box(0, y, 0.72, 0.055), wood * 0.8)
    for x in (-0.6, -0.3, 0.0, 0.3, 0.6):
        post = [(x - 0.08, -0.2), (x, -0.38), (x + 0.08, -0.2), (x + 0.08, 0.5), (x - 0.08, 0.5)]
        canvas.paint(polygon(post), wood, shade=(0.1, 0.0))


def _snowman(canvas: Canvas, look: Attributes, rgb: Array) -> None:
    for y, r in ((0.26, 0.27), (-0.06, 0.2), (-0.29, 0.14)):
        canvas.paint(disc(0, y, r + 0.02), palette(["9fb4cc"])[0])
        canvas.paint(disc(0, y, r), _WHITE, shade=(-0.05, -0.06))
    canvas.paint(box(0, -0.16, 0.14, 0.035), PAINT[0])
    canvas.paint(box(0, -0.48, 0.11, 0.08), _BLACK)
    canvas.paint(ellipse(0.06 * look["flip"], -0.27, 0.08, 0.03), PAINT[5])
    for side in (-1, 1):
        canvas.paint(disc(side * 0.06, -0.34, 0.03), _BLACK)


def _duck(canvas: Canvas, look: Attributes, rgb: Array) -> None:
    f = look["flip"]
    canvas.paint(ellipse(-0.08 * f, 0.22, 0.52, 0.27, -0.15 * f), rgb, shade=(0.0, -0.15))
    canvas.paint(ellipse(-0.15 * f, 0.2, 0.26, 0.13), rgb * 0.78)
    canvas.paint(disc(0.3 * f, -0.2, 0.24), rgb * 1.05)
    canvas.paint(ellipse(0.57 * f, -0.16, 0.15, 0.08), PAINT[5])
    canvas.paint(disc(0.36 * f, -0.26, 0.055), _BLACK)


def _umbrella(canvas: Canvas, look: Attributes, rgb: Array) -> None:
    top = box(0, -0.3, 0.6, 0.2)
    canvas.paint(line(0, -0.45, 0, 0.5, 0.06), _WHITE * 0.9)
    canvas.paint(ellipse(0, -0.1, 0.55, 0.38), rgb, inside=top, shade=(-0.15, -0.1))
    canvas.paint(ellipse(0, -0.1, 0.3, 0.38), _WHITE, inside=top)
    canvas.paint(ellipse(0, -0.1, 0.12, 0.38), rgb, inside=top)


def _sun(canvas: Canvas, look: Attributes, rgb: Array) -> None:
    dusk = (look["sky"] == DUSK)[:, None]
    colour = np.where(dusk, palette(["ff9a4a"]), palette(["fff0a0"])) * 1.1
    canvas.paint(disc(0, 0, 0.42), colour, opacity=0.7, soft=0.2)
    canvas.paint(disc(0, 0, 0.4), colour * 1.1)


def _moon(canvas: Canvas, look: Attributes, rgb: Array) -> None:
    bite = disc(0.26 * look["flip"], -0.1, 0.36)
    canvas.paint(disc(0, 0, 0.45), palette(["fff6d0"])[0] * 1.8, outside=bite)


def _cloud(canvas: Canvas, look: Attributes, rgb: Array) -> None:
    white = mix(_WHITE[None], palette(["b8a0b8"]), (look["sky"] > 0) * 0.5)
    canvas.paint(box(0, 0.2, 0.75, 0.22, None, 0.22), white * 0.93)
    for x, y, r in ((-0.35, 0.05, 0.32), (0.1, -0.08, 0.4), (0.45, 0.1, 0.27)):
        canvas.paint(disc(x, y, r), white, shade=(0.0, -0.05))


def _balloon(canvas: Canvas, look: Attributes, rgb: Array) -> None:
    for side in (-1, 1):
        canvas.paint(line(side * 0.2, 0.1, side * 0.07, 0.38, 0.03), _BARK)
    canvas.paint(box(0, 0.42, 0.1, 0.08), _BARK * 1.2)
    canvas.paint(ellipse(0, -0.15, 0.34, 0.36), rgb, shade=(-0.2, -0.15))
    canvas.paint(ellipse(0, -0.15, 0.15, 0.36), mix(rgb, _WHITE, 0.65))


def _kite(canvas: Canvas, look: Attributes, rgb: Array) -> None:
    canvas.paint(arch(-0.05, 0.35, 0.2, 0.12, 0.05, 0.6), _BLACK)
    canvas.paint(polygon([(-0.3, -0.15), (0, -0.5), (0.3, -0.15), (0, 0.25)]), rgb)
    canvas.paint(polygon([(0, -0.5), (0.3, -0.15), (0, 0.25)]), mix(rgb, _WHITE, 0.4))


PAINTERS = {name: globals()[f"_{name}"] for name in KINDS}
_WIDE = {KINDS.index(name) for name in ("car", "dog", "fence", "cloud", "duck")}
