"""How a portrait is painted, from its look: pose, proportions, colours and attributes."""

from __future__ import annotations

import numpy as np

from wavedp.data.drawing.canvas import Canvas
from wavedp.data.drawing.colours import mix, palette
from wavedp.data.drawing.shapes import arch, box, disc, ellipse, line, outline, petals, polygon
from wavedp.data.drawing.values import Attributes, where

STYLES = ("short", "long", "bald", "bob", "curly", "bun")
SHORT, LONG, BALD, BOB, CURLY, BUN = range(6)
_WHITE, _BLACK, _GOLD = palette(["fdfbf7", "17141a", "ffd24a"])


def paint_face(canvas: Canvas, look: Attributes) -> None:
    """Paint one portrait per picture."""
    back = look["back_rgb"]
    canvas.gradient(np.minimum(back * 1.18, 1), back * 0.72, look["back_angle"])
    glow = np.minimum(back * 1.25, 1)
    canvas.paint(disc(0.5 + look["light"], 0.4, 0.3), glow, opacity=0.6, soft=0.3)
    face = canvas.posed(look["x"], look["y"], look["scale"], look["tilt"])
    _back_hair(face, look)
    _shoulders(face, look)
    _head(face, look)
    _cheeks(face, look)
    _beard(face, look)
    _nose(face, look)
    _mouth(face, look)
    _eyes(face, look)
    _front_hair(face, look)
    _brows(face, look)
    _glasses(face, look)
    _jewels(face, look)
    _hat(face, look)


def _back_hair(canvas: Canvas, look: Attributes) -> None:
    style = look["style"]
    for mask, bottom in ((style == LONG, 0.46), (style == BOB, 0.22)):
        part, some = canvas.where(mask), where(look, mask)
        wide, dark = some["width"] + 0.07, some["hair_rgb"] * 0.8
        middle, half = (bottom - 0.34) / 2, (bottom + 0.34) / 2
        part.paint(box(0, middle, wide, half, None, 0.2), dark, shade=(0.1, -0.25))
    mask = style == CURLY
    part, some = canvas.where(mask), where(look, mask)
    curls = petals(0, -0.07, some["width"] + 0.075, 11.0, 0.06)
    part.paint(curls, some["hair_rgb"], shade=(0.1, -0.3))
    mask = style == BUN
    part, some = canvas.where(mask), where(look, mask)
    part.paint(disc(0, -0.34, 0.09), some["hair_rgb"], shade=(0.1, -0.25))


def _shoulders(canvas: Canvas, look: Attributes) -> None:
    skin, cloth = look["skin_rgb"], look["cloth_rgb"]
    canvas.paint(ellipse(0, 0.60, 0.43, 0.25), cloth, shade=(0.12, -0.15))
    canvas.paint(box(0, 0.29, 0.085, 0.12, None, 0.04), skin * 0.78, shade=(0.08, 0.12))
    dress = look["feminine"]
    canvas.where(dress).paint(ellipse(0, 0.385, 0.14, 0.085), skin[dress] * 0.9)
    part, some = canvas.where(~dress), where(look, ~dress)
    collar = mix(some["cloth_rgb"], _WHITE, np.where(some["necktie"], 0.85, 0.25))
    for side in (-1, 1):
        flap = [(0.0, 0.44), (side * 0.12, 0.36), (side * 0.15, 0.47)]
        part.paint(polygon(flap if side < 0 else flap[::-1]), collar)
    tied = canvas.where(look["necktie"])
    colour = look["tie_rgb"][look["necktie"]]
    tied.paint(polygon([(-0.045, 0.4), (0.045, 0.4), (0.075, 0.62), (-0.075, 0.62)]), colour)
    tied.paint(box(0, 0.405, 0.05, 0.03, None, 0.015), colour * 0.75)


def _head(canvas: Canvas, look: Attributes) -> None:
    skin, width = look["skin_rgb"], look["width"]
    for side in (-1, 1):
        canvas.paint(ellipse(side * width, 0.03, 0.045, 0.065), skin * 0.86)
        canvas.paint(ellipse(side * (width + 0.005), 0.03, 0.02, 0.035), skin * 0.68)
    lit = (look["light"], -0.07)
    canvas.paint(ellipse(0, 0.12, width * 0.87 + look["jaw"], 0.185), skin * 0.9, shade=lit)
    canvas.paint(ellipse(0, -0.03, width, 0.27), skin * 0.96, shade=lit)
    bright = np.minimum(skin * 1.1 + 0.02, 1)
    spot = ellipse(look["light"] * 0.4, -0.03, width * 0.6, 0.17)
    canvas.paint(spot, bright, opacity=0.75, soft=0.09)


def _cheeks(canvas: Canvas, look: Attributes) -> None:
    rosy = look["rosy_cheeks"]
    blush = mix(look["skin_rgb"], palette(["e8455a"])[0], 0.6)[rosy]
    part, freckled = canvas.where(rosy), canvas.where(look["freckles"])
    spots = look["skin_rgb"][look["freckles"]] * palette(["d0a080"])[0]
    for side in (-1, 1):
        part.paint(disc(side * 0.135, 0.085, 0.035), blush, opacity=0.85, soft=0.04)
        for x, y in ((0.09, 0.06), (0.13, 0.075), (0.165, 0.055), (0.115, 0.1)):
            freckled.paint(disc(side * x, y, 0.011), spots)


def _beard(canvas: Canvas, look: Attributes) -> None:
    mask = look["beard"]
    part, some = canvas.where(mask), where(look, mask)
    width = some["width"]
    hair = mix(some["hair_rgb"] * 0.9, some["skin_rgb"], 0.12)
    jaw = ellipse(0, 0.14, width * 0.98, 0.2)
    part.paint(jaw, hair, shade=(0.1, -0.2), outside=ellipse(0, -0.01, width * 0.84, 0.145))


def _nose(canvas: Canvas, look: Attributes) -> None:
    skin, size = look["skin_rgb"], look["nose_size"]
    side = np.where(look["light"] > 0, -1, 1)
    canvas.paint(ellipse(side * 0.018, 0.03, 0.014, 0.06), skin * 0.84, opacity=0.7, soft=0.012)
    canvas.paint(ellipse(0, 0.08, 0.036 * size, 0.02), skin * 0.72, opacity=0.9)
    canvas.paint(ellipse(0, 0.066, 0.03 * size, 0.022), np.minimum(skin * 1.1 + 0.03, 1))


def _mouth(canvas: Canvas, look: Attributes) -> None:
    mask = look["mustache"]
    hair = mix(look["hair_rgb"] * 0.75, look["skin_rgb"], 0.05)[mask]
    canvas.where(mask).paint(arch(0, 0.118, 0.095, -0.045, 0.042), hair)
    natural = mix(look["skin_rgb"], palette(["a03038"])[0], 0.5) * 0.74
    red = np.where(look["lipstick"][:, None], palette(["cc1430"]), natural)
    half = look["mouth_width"] * np.where(look["smiling"], 1.05, 0.8)
    full = np.where(look["lipstick"], 1.0, 0.72)
    opened, smiling = look["mouth_open"], look["smiling"]

    mask = smiling & ~opened  # a crescent: it tapers at the corners
    crescent = ellipse(0, 0.142, half[mask], 0.058)
    upper = ellipse(0, 0.142 - 0.04 * full[mask], half[mask] * 1.08, 0.058)
    canvas.where(mask).paint(crescent, red[mask], outside=upper)
    mask = ~smiling & ~opened
    canvas.where(mask).paint(ellipse(0, 0.163, half[mask], 0.026 * full[mask]), red[mask])
    mask = smiling & opened
    part, wide, below = canvas.where(mask), half[mask], box(0, 0.24, 0.3, 0.105)
    part.paint(ellipse(0, 0.132, wide, 0.085), red[mask], inside=below)
    inner = ellipse(0, 0.138, wide * 0.82, 0.06)
    part.paint(inner, palette(["5a1018"])[0], inside=below)
    part.paint(inner, _WHITE, inside=box(0, 0.15, 0.3, 0.018))
    mask = ~smiling & opened
    part, wide = canvas.where(mask), half[mask]
    part.paint(ellipse(0, 0.168, wide * 0.72, 0.05), red[mask])
    part.paint(ellipse(0, 0.168, wide * 0.5, 0.032), palette(["4a1018"])[0])


def _eyes(canvas: Canvas, look: Attributes) -> None:
    size, skin = look["eye_size"], look["skin_rgb"]
    lash = np.where(look["lipstick"], 0.024, 0.016)
    for side in (-1, 1):
        x = side * look["eye_gap"]
        canvas.paint(ellipse(x, -0.02, 0.062, 0.045), skin * 0.8, opacity=0.6, soft=0.012)
        eye = ellipse(x, -0.015, 0.05 * size, 0.033 * size)
        canvas.paint(eye, _WHITE)
        iris = disc(x + look["gaze"], -0.015, 0.03 * size)
        canvas.paint(iris, look["iris_rgb"], inside=eye)
        canvas.paint(disc(x + look["gaze"], -0.015, 0.015 * size), _BLACK)
        canvas.paint(disc(x + look["gaze"] + 0.011, -0.027, 0.009), _WHITE)
        canvas.paint(arch(x, -0.043 * size, 0.055 * size, -0.03, lash), skin * 0.2)


def _brows(canvas: Canvas, look: Attributes) -> None:
    thick = np.where(look["bushy_eyebrows"], 0.045, 0.02)
    for side in (-1, 1):
        brow = arch(side * look["eye_gap"], -0.1, 0.06, -0.022, thick, side * 0.1)
        canvas.paint(brow, look["brow_rgb"])


def _front_hair(canvas: Canvas, look: Attributes) -> None:
    mask = look["style"] != BALD
    part, some = canvas.where(mask), where(look, mask)
    style, hair, width = some["style"], some["hair_rgb"], some["width"]
    long = (style == LONG) | (style == BOB)
    cap = ellipse(0, -0.09, width + np.where(long, 0.045, 0.025), 0.245)
    # The parting lies to one side; the hairline is the edge of a lower, narrower face.
    parting = np.where(long, 0.0, some["light"] * 0.3)
    opening = ellipse(parting, 0.09, width * np.where(long, 0.86, 0.97), 0.27)
    part.paint(cap, hair, shade=(0.12, -0.25), outside=opening)
    gloss = arch(some["light"] * 0.5, -0.265, width * 0.55, -0.05, 0.022)
    part.paint(gloss, np.minimum(hair * 1.35 + 0.06, 1), opacity=0.6)
    mask = long & ~some["hat"]
    locks, few = part.where(mask), where(some, mask)
    for side in (-1, 1):
        lock = ellipse(side * (few["width"] + 0.012), 0.0, 0.04, 0.24, side * 0.05)
        locks.paint(lock, few["hair_rgb"], shade=(0.2 * side, -0.2))
    mask = some["bangs"]
    fringe, few = part.where(mask), where(some, mask)
    top = ellipse(0, -0.09, few["width"] + 0.02, 0.24)
    edge = box(0, -0.24, 0.3, 0.125, few["light"] * 0.8)
    fringe.paint(top, few["hair_rgb"], inside=edge, shade=(0.12, -0.2))
    for x in (-0.1, 0.02, 0.12):
        fringe.paint(line(x, -0.2, x * 1.3, -0.13, 0.014), few["hair_rgb"] * 0.65, opacity=0.7)


def _glasses(canvas: Canvas, look: Attributes) -> None:
    clear, dark = look["eyeglasses"], look["sunglasses"]
    part, gap, wide = canvas.where(clear), look["eye_gap"][clear], look["width"][clear]
    for side in (-1, 1):
        lens = ellipse(side * gap, -0.012, 0.077, 0.07)
        part.paint(lens, _WHITE, opacity=0.18)
        part.paint(outline(lens, 0.024), _BLACK)
        part.paint(line(side * (gap + 0.075), -0.025, side * wide, -0.035, 0.022), _BLACK)
    part.paint(box(0, -0.02, gap - 0.075, 0.012), _BLACK)
    part, gap, wide = canvas.where(dark), look["eye_gap"][dark], look["width"][dark]
    part.paint(box(0, -0.045, wide, 0.016), _BLACK)
    for side in (-1, 1):
        part.paint(box(side * gap, -0.01, 0.085, 0.062, None, 0.04), _BLACK, shade=(0.0, 0.8))
        part.paint(line(side * gap - 0.04, 0.01, side * gap - 0.01, -0.04, 0.018), _WHITE * 0.6)


def _jewels(canvas: Canvas, look: Attributes) -> None:
    mask = look["earrings"]
    part, wide = canvas.where(mask), look["width"][mask]
    for side in (-1, 1):
        x = side * (wide + 0.022)
        part.paint(disc(x, 0.125, 0.032), _GOLD * 0.8, shade=(0.1, 0.1))
        part.paint(disc(x - 0.008, 0.117, 0.014), _WHITE)
    part = canvas.where(look["necklace"])
    part.paint(arch(0, 0.375, 0.125, 0.13, 0.022), _GOLD)
    part.paint(disc(0, 0.445, 0.026), _GOLD * 0.9)


def _hat(canvas: Canvas, look: Attributes) -> None:
    mask = look["hat"]
    part, some = canvas.where(mask), where(look, mask)
    colour, wide = some["hat_rgb"], some["width"]
    dome = ellipse(0, -0.19, wide + 0.04, 0.225)
    part.paint(dome, colour, inside=box(0, -0.34, 0.5, 0.17), shade=(0.15, -0.2))
    brim = np.where(some["feminine"], 0.13, 0.055)
    part.paint(box(0, -0.205, wide + 0.035, 0.03), colour * 0.55)
    part.paint(box(0, -0.17, wide + brim, 0.024, None, 0.02), colour * 0.88, shade=(0.15, 0.0))
