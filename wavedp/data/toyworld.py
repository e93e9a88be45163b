"""Toy world: abstract arrangements of primitives. The PUBLIC pretraining set.

It shares the texture of the private sets (edges, gradients, shading, lines and dots of one
to three pixels, pairs, nested shapes) and covers all colours, but shows neither faces nor
any of the scenes' objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from wavedp.data.drawing import (
    Array,
    Attributes,
    Canvas,
    Dice,
    Draws,
    Shape,
    arch,
    box,
    disc,
    ellipse,
    hsv,
    line,
    outline,
    petals,
    polygon,
    where,
    words,
)
from wavedp.data.toy import ToySet

KINDS = words(
    "disc ellipse ring box rounded_box triangle star cross arc striped_box checkered_box "
    "dotted_disc line blob"
)
BACKGROUNDS = ("plain", "striped", "checkered", "dotted", "hazy")
PLAIN, STRIPED, CHECKERED, DOTTED, HAZY = range(5)
SLOTS = 6
#            name: lowest and highest hue, saturation, value (hue in turns)
_FAMILIES = {
    "red": (-0.03, 0.02, 0.65, 1.0, 0.55, 1.0),
    "orange": (0.04, 0.09, 0.65, 1.0, 0.75, 1.0),
    "yellow": (0.12, 0.17, 0.5, 1.0, 0.75, 1.0),
    "green": (0.24, 0.43, 0.3, 0.9, 0.25, 0.9),
    "cyan": (0.46, 0.53, 0.3, 0.9, 0.5, 1.0),
    "blue": (0.55, 0.68, 0.4, 1.0, 0.3, 1.0),
    "purple": (0.72, 0.82, 0.25, 0.9, 0.3, 0.9),
    "pink": (0.88, 0.99, 0.2, 0.6, 0.75, 1.0),
    "beige": (0.04, 0.11, 0.12, 0.5, 0.68, 1.0),
    "brown": (0.02, 0.1, 0.45, 0.8, 0.2, 0.6),
    "white": (0.0, 1.0, 0.0, 0.06, 0.9, 1.0),
    "gray": (0.0, 1.0, 0.0, 0.12, 0.35, 0.8),
    "black": (0.0, 1.0, 0.0, 0.4, 0.03, 0.22),
}
COLOURS = tuple(_FAMILIES)
_RANGES = np.array(list(_FAMILIES.values()))
_COLOUR_LAW = [3.0, 2, 2, 3, 3, 3, 3, 3, 3, 2, 2, 2, 3]
VOCABULARY = words(
    "a above an and arc arcs background beige below black blob blobs blue box boxes brown "
    "checkered cross crosses cyan disc discs dotted ellipse ellipses gray green hazy large "
    "left line lines of on orange picture pink plain purple red right ring rings rounded "
    "small star stars striped triangle triangles two white yellow"
)
"""Every word that a caption may use."""


def family_colours(draws: Draws, name: str, family: Array) -> Array:
    """Colours ``[n, 3]`` somewhere in the named families."""
    u, limits = draws.table(name, 3), _RANGES[family]
    hue, saturation, value = (
        limits[:, 2 * i] + u[:, i] * (limits[:, 2 * i + 1] - limits[:, 2 * i]) for i in range(3)
    )
    return hsv(hue, saturation, value)


def world_attributes(draws: Draws) -> Attributes:
    """Attributes: ``background`` ``[n]``, and ``[n, 6]`` per primitive (kind -1 for none).

    Primitives are ordered from large to small. ``twin`` says that the next slot is the
    mirror image of this one.
    """
    count = draws.choice("count", [2, 3, 3, 2, 2]) + 2
    large = -np.sort(-(draws.table("large", SLOTS) < 0.4).astype(np.int64), axis=1) == 1
    kind = (draws.table("kind", SLOTS) * len(KINDS)).astype(np.int64)
    colour = np.stack([draws.choice(f"colour{i}", _COLOUR_LAW) for i in range(SLOTS)], axis=1)
    place = draws.table("place", 2 * SLOTS)
    reach = np.where(large, 0.56, 0.86)
    x, y = 0.5 + reach * (place[:, :SLOTS] - 0.5), 0.5 + reach * (place[:, SLOTS:] - 0.5)
    twin = np.zeros((len(draws), SLOTS), dtype=bool)
    for slot in (1, 4):
        pair = (
            draws.chance(f"pair{slot}", 0.5)
            & (count > slot + 1)
            & (large[:, slot] == large[:, slot + 1])
            & (np.abs(x[:, slot] - 0.5) > 0.08)
        )
        for values in (kind, colour, y):
            values[pair, slot + 1] = values[pair, slot]
        x[pair, slot + 1] = 1 - x[pair, slot]
        twin[pair, slot] = True
    return {
        "background": draws.choice("background", [5, 1, 1, 1, 3]),
        "kind": np.where(np.arange(SLOTS) < count[:, None], kind, -1),
        "colour": colour,
        "large": large,
        "twin": twin,
        "x": x,
        "y": y,
    }


def world_looks(draws: Draws, attributes: Attributes) -> Attributes:
    """Sizes, angles, proportions, shading and colours."""
    size = draws.table("size", SLOTS)
    size = np.where(attributes["large"], 0.16 + 0.2 * size, 0.035 + 0.085 * size**1.5)
    upright = draws.table("upright", SLOTS) < 0.5
    style = draws.table("style", 6 * SLOTS).reshape(-1, SLOTS, 6)
    rgb = [family_colours(draws, f"rgb{i}", attributes["colour"][:, i]) for i in range(SLOTS)]
    other = [draws.choice(f"other{i}", _COLOUR_LAW) for i in range(SLOTS)]
    rgb2 = [family_colours(draws, f"rgb2{i}", family) for i, family in enumerate(other)]
    looks = {
        "size": size,
        "angle": np.where(upright, 0.0, (draws.table("angle", SLOTS) - 0.5) * np.pi),
        "style": style,
        "rgb": np.stack(rgb, axis=1),
        "rgb2": np.stack(rgb2, axis=1),
        "back_angle": draws.uniform("back_angle", -np.pi, np.pi),
        "specks": draws.table("specks", 24),
        "pitch": draws.uniform("pitch", 0.07, 0.16),
    }
    for name in ("back", "back2"):
        looks[name] = family_colours(draws, name, draws.choice(f"{name} family", _COLOUR_LAW))
    # A twin shares all but its side.
    for slot in np.flatnonzero(attributes["twin"].any(axis=0)):
        pair = attributes["twin"][:, slot]
        for name in ("size", "style", "rgb", "rgb2"):
            looks[name][pair, slot + 1] = looks[name][pair, slot]
        looks["angle"][pair, slot + 1] = -looks["angle"][pair, slot]
    return looks


_OF_A_PRIMITIVE = ("x", "y", "size", "angle", "style", "rgb", "rgb2")


def paint_world(canvas: Canvas, look: Attributes) -> None:
    """Paint the arrangements."""
    _background(canvas, look)
    for slot in range(SLOTS):
        mine = {name: look[name][:, slot] for name in _OF_A_PRIMITIVE}
        # Large and small apart, so that the small ones need only small patches.
        codes = 2 * look["kind"][:, slot] + look["large"][:, slot]
        for code in np.unique(codes[codes >= 0]):
            mask = codes == code
            _primitive(canvas.where(mask), where(mine, mask), code // 2)
    _specks(canvas, look)


def _background(canvas: Canvas, look: Attributes) -> None:
    kind = look["background"]
    near = 0.55 * look["back"] + 0.45 * look["back2"]
    plain = (kind == STRIPED) | (kind == CHECKERED) | (kind == DOTTED)
    end = np.where(plain[:, None], look["back"] * 0.85, np.where(kind[:, None] == HAZY, near, 0))
    end = np.where((kind == PLAIN)[:, None], look["back2"], end)
    canvas.gradient(look["back"], end, look["back_angle"])
    mask = kind == HAZY
    part, some = canvas.where(mask), where(look, mask)
    for i in range(3):
        spot = disc(some["specks"][:, i], some["specks"][:, i + 4], 0.12 + 0.06 * i)
        part.paint(spot, some["back2"] if i % 2 else some["back"] * 1.2, opacity=0.8, soft=0.12)
    for pattern in (STRIPED, CHECKERED, DOTTED):
        mask = kind == pattern
        part, some = canvas.where(mask), where(look, mask)
        turned = part.posed(0.5, 0.5, 1.0, some["back_angle"])
        turned.paint(_grating(some["pitch"], pattern), some["back2"], opacity=0.8)


def _grating(pitch: Array, pattern: int) -> Shape:
    """A periodic pattern over the whole picture: stripes, checkers or dots."""

    def distance(u: Array, v: Array, unit: Array) -> Array:
        period = pitch[:, None, None] * unit * 2
        across = np.abs(np.mod(u / period, 1) - 0.5) * period
        down = np.abs(np.mod(v / period, 1) - 0.5) * period
        if pattern == STRIPED:
            return np.asarray(across - period / 4)
        if pattern == CHECKERED:
            # The sign of a product: inside where exactly one of the two is in its stripe.
            first, second = across - period / 4, down - period / 4
            return np.asarray(np.maximum(np.minimum(first, second), -np.maximum(first, second)))
        return np.asarray(np.sqrt(across * across + down * down) - period / 5)

    return Shape(0.0, 0.0, 1.0, 1.0, None, distance)


def _primitive(canvas: Canvas, look: Attributes, kind: int) -> None:
    style, rgb, rgb2 = look["style"], look["rgb"], look["rgb2"]
    framed = canvas.posed(look["x"], look["y"], look["size"], look["angle"])
    patch = framed.patch(1.2)
    painter = PAINTERS[kind]
    mask = style[:, 0] < 0.25  # a soft shadow
    patch.where(mask).paint(disc(0.1, 0.25, 0.9), np.zeros(3), opacity=0.45, soft=0.25)
    mask = style[:, 0] > 0.75  # a dark rim
    painter(patch.where(mask).posed(0, 0, 1.16), rgb[mask] * 0.35, rgb2[mask], style[mask])
    painter(patch, rgb, rgb2, style)
    mask = (style[:, 1] < 0.4) & _NESTS[kind]
    inner = patch.where(mask).posed(0, 0, 0.35 + 0.4 * style[mask, 2])
    painter(inner, rgb2[mask], rgb[mask], style[mask])
    mask = style[:, 1] > 0.7  # a highlight
    patch.where(mask).paint(disc(-0.3, -0.3, 0.16), np.ones(3), opacity=0.9)
    framed.put(patch)


def _specks(canvas: Canvas, look: Attributes) -> None:
    """Dots and thin lines of about a pixel, which no caption mentions."""
    u = look["specks"]
    for i in range(4):
        mask = u[:, 6 * i] < 0.45
        part, v = canvas.where(mask), u[mask, 6 * i : 6 * i + 6]
        colour = np.where(v[:, 5:] < 0.35, 0.05, np.where(v[:, 5:] > 0.7, 1.0, look["back2"][mask]))
        if i % 2:
            part.paint(disc(v[:, 1], v[:, 2], 0.012 + 0.03 * v[:, 3]), colour)
        else:
            turned = part.posed(v[:, 1], v[:, 2], 1.0, v[:, 5] * 3)
            turned.paint(arch(0, 0, 0.05 + 0.2 * v[:, 3], 0.2 * v[:, 4] - 0.1, 0.022), colour)


Painter = Callable[[Canvas, Array, Array, Array], None]


def _shade(style: Array) -> tuple[Array, Array]:
    return 0.5 * (style[:, 3] - 0.5), 0.7 * (style[:, 4] - 0.6)


def _round(canvas: Canvas, rgb: Array, rgb2: Array, style: Array) -> None:
    canvas.paint(disc(0, 0, 0.95), rgb, shade=_shade(style))


def _ellipse(canvas: Canvas, rgb: Array, rgb2: Array, style: Array) -> None:
    canvas.paint(ellipse(0, 0, 1.0, 0.3 + 0.6 * style[:, 5]), rgb, shade=_shade(style))


def _ring(canvas: Canvas, rgb: Array, rgb2: Array, style: Array) -> None:
    shape = ellipse(0, 0, 0.8, 0.6 + 0.2 * style[:, 4])
    canvas.paint(outline(shape, 0.18 + 0.25 * style[:, 5]), rgb, shade=_shade(style))


def _box(canvas: Canvas, rgb: Array, rgb2: Array, style: Array) -> None:
    canvas.paint(box(0, 0, 0.85, 0.25 + 0.6 * style[:, 5]), rgb, shade=_shade(style))


def _rounded(canvas: Canvas, rgb: Array, rgb2: Array, style: Array) -> None:
    tall = 0.35 + 0.5 * style[:, 5]
    canvas.paint(box(0, 0, 0.9, tall, None, 0.8 * tall), rgb, shade=_shade(style))


def _triangle(canvas: Canvas, rgb: Array, rgb2: Array, style: Array) -> None:
    tip = style[:, 5] - 0.5
    canvas.paint(polygon([(-0.85, 0.7), (tip, -0.8), (0.85, 0.7)]), rgb, shade=_shade(style))


def _star(canvas: Canvas, rgb: Array, rgb2: Array, style: Array) -> None:
    points = np.floor(4 + 4 * style[:, 5])
    canvas.paint(petals(0, 0, 0.66, points, 0.33), rgb, shade=_shade(style))


def _cross(canvas: Canvas, rgb: Array, rgb2: Array, style: Array) -> None:
    thick = 0.12 + 0.2 * style[:, 5]
    canvas.paint(box(0, 0, 0.9, thick), rgb, shade=_shade(style))
    canvas.paint(box(0, 0, thick, 0.9), rgb, shade=_shade(style))


def _arc(canvas: Canvas, rgb: Array, rgb2: Array, style: Array) -> None:
    bend = np.where(style[:, 2] < 0.5, -1, 1) * (0.3 + 0.7 * style[:, 5])
    canvas.paint(arch(0, 0, 0.95, bend, 0.14 + 0.25 * style[:, 3]), rgb, shade=_shade(style))


def _striped(canvas: Canvas, rgb: Array, rgb2: Array, style: Array) -> None:
    canvas.paint(box(0, 0, 0.85, 0.85), rgb, shade=_shade(style))
    for y in (-0.5, 0.0, 0.5):
        canvas.paint(box(0, y, 0.85, 0.11), rgb2)


def _checkered(canvas: Canvas, rgb: Array, rgb2: Array, style: Array) -> None:
    canvas.paint(box(0, 0, 0.84, 0.84), rgb, shade=_shade(style))
    for x, y in ((0, 0), (-0.56, -0.56), (0.56, -0.56), (-0.56, 0.56), (0.56, 0.56)):
        canvas.paint(box(x, y, 0.28, 0.28), rgb2)


def _dotted(canvas: Canvas, rgb: Array, rgb2: Array, style: Array) -> None:
    canvas.paint(disc(0, 0, 0.95), rgb, shade=_shade(style))
    for x, y in ((0, 0), (-0.4, -0.4), (0.4, -0.4), (-0.4, 0.4), (0.4, 0.4)):
        canvas.paint(disc(x, y, 0.17), rgb2)


def _line(canvas: Canvas, rgb: Array, rgb2: Array, style: Array) -> None:
    canvas.paint(line(-1.0, 0, 1.0, 0, 0.08 + 0.12 * style[:, 5]), rgb)


def _blob(canvas: Canvas, rgb: Array, rgb2: Array, style: Array) -> None:
    lobes = np.floor(2 + 8 * style[:, 5])
    canvas.paint(petals(0, 0, 0.8, lobes, 0.12 + 0.1 * style[:, 2]), rgb, shade=_shade(style))


PAINTERS: tuple[Painter, ...] = (
    *(_round, _ellipse, _ring, _box, _rounded, _triangle, _star, _cross, _arc),
    *(_striped, _checkered, _dotted, _line, _blob),
)
_NESTS = [name not in ("ring", "cross", "arc", "line") for name in KINDS]


class ToyWorld(ToySet):
    """The toy counterpart of a public photo collection, for pretraining."""

    domain = "toyworld"
    captions_per_record = 5
    chunk = 2048

    def __init__(self, *, resolution: int = 32, seed: int = 0, cache_dir: str = ".cache") -> None:
        super().__init__(resolution=resolution, seed=seed, cache_dir=cache_dir)

    def attributes(self, indices: Sequence[int] | Array) -> Attributes:
        """Attributes as in :func:`world_attributes`."""
        return world_attributes(self.draws(indices))

    def looks(self, indices: Sequence[int] | Array, attributes: Attributes) -> Attributes:
        """Sizes, angles and colours."""
        return world_looks(self.draws(indices), attributes)

    def paint(self, canvas: Canvas, look: Attributes) -> None:
        """Paint the arrangements."""
        paint_world(canvas, look)

    def caption(self, attributes: Attributes, row: int, dice: Dice) -> str:
        """One caption that tells a relation or lists primitives."""
        return world_caption({name: v[row] for name, v in attributes.items()}, dice)


def groups(world: Attributes) -> list[tuple[int, ...]]:
    """The primitives by slot, twins together."""
    found: list[tuple[int, ...]] = []
    for slot in range(SLOTS):
        if world["kind"][slot] < 0 or (found and slot in found[-1]):
            continue
        found.append((slot, slot + 1) if world["twin"][slot] else (slot,))
    return found


def _name(world: Attributes, group: tuple[int, ...], dice: Dice) -> str:
    slot = group[0]
    words = ["large" if world["large"][slot] else "small"] if dice.chance(0.5) else []
    words += [COLOURS[world["colour"][slot]]] if dice.chance(0.85) else []
    noun = KINDS[world["kind"][slot]].replace("_", " ")
    if len(group) == 2:
        return " ".join(["two", *words, noun + ("es" if noun[-1] in "xs" else "s")])
    words.append(noun)
    return ("an " if words[0][0] in "aeiou" else "a ") + " ".join(words)


def relations(world: Attributes, a: tuple[int, ...], b: tuple[int, ...]) -> list[str]:
    """What is true of all of ``a`` against all of ``b``."""
    gaps = [(world["x"][i] - world["x"][j], world["y"][i] - world["y"][j]) for i in a for j in b]
    truth = {
        "left of": all(dx < -0.15 for dx, _ in gaps),
        "right of": all(dx > 0.15 for dx, _ in gaps),
        "above": all(dy < -0.15 for _, dy in gaps),
        "below": all(dy > 0.15 for _, dy in gaps),
    }
    return [relation for relation, holds in truth.items() if holds]


def world_caption(world: Attributes, dice: Dice) -> str:
    """One caption of at most 24 words, true of the arrangement."""
    back = BACKGROUNDS[world["background"]]
    place = dice.pick(("", f"on a {back} background", f"on a {back} background"))
    told = dice.sample(groups(world), dice.pick((2, 2, 3)))
    names = [_name(world, group, dice) for group in told]
    true = relations(world, told[0], told[1]) if len(told) > 1 else []
    if true and dice.chance(0.7):
        text = f"{names[0]} {dice.pick(true)} {names[1]}"
    else:
        text = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    lead = dice.pick(("", "", "a picture of "))
    return f"{lead}{text} {place}".strip()
