"""Toy scenes: procedural landscapes with objects, in the manner of MS-COCO. A private set.

Two to four objects stand on a ground under a sky, in relations that the captions state
truthfully. The joint law is far from uniform: boats and ducks only on water, the moon at
night, bare trees and snowmen in the snow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wavedp.data.drawing import (
    Array,
    Attributes,
    Canvas,
    Dice,
    Draws,
    words,
)
from wavedp.data.drawing.scenes import (
    GROUND_KINDS,
    GROUND_SLOTS,
    GROUNDS,
    KINDS,
    PAINT,
    SKIES,
    SLOTS,
    SNOW,
    paint_scene,
)
from wavedp.data.toy import PrivateToySet

COLOURS = ("red", "blue", "green", "yellow", "purple", "orange", "white", "black", "brown", "gray")
VOCABULARY = words(
    "a above an and at balloon behind black blue boat brown car cat cloud day dog duck dusk "
    "fence front grass gray green house in is kite large left moon next night of on orange "
    "person photo picture pine purple red right road sand shirt sky small snow snowman sun "
    "the there to tree umbrella under water white yellow"
)
"""Every word that a caption may use."""

#                    house tree pine car boat dog cat person fence snowman duck umbrella
_KIND_LAW = np.array(
    [
        [4.0, 5.0, 2.0, 0.5, 0.0, 3.0, 2.5, 3.0, 2.5, 0.0, 0.0, 0.2],
        [0.6, 0.4, 0.0, 0.3, 0.0, 2.5, 0.3, 5.0, 0.5, 0.0, 0.0, 5.0],
        [3.0, 2.5, 5.0, 0.7, 0.0, 1.5, 0.4, 2.5, 1.5, 4.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 7.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4.0, 0.0],
        [2.5, 1.5, 0.5, 8.0, 0.0, 0.8, 0.8, 2.5, 0.5, 0.0, 0.0, 0.3],
    ]
)
#                    sun  moon cloud balloon kite
_SKY_LAW = np.array([[3.0, 0.0, 3.5, 1.5, 1.2], [2.5, 1.0, 2.0, 1.5, 0.3], [0, 7.0, 0.8, 0.6, 0]])
_COLOUR_LAW = {
    "house": [3, 1, 0, 2, 0, 1, 3, 0, 2, 1],
    "car": [5, 4, 1, 1, 0, 1, 2, 3, 0, 2],
    "boat": [4, 2, 1, 1, 0, 1, 3, 0, 2, 0],
    "dog": [0, 0, 0, 0, 0, 0, 2, 2, 5, 1],
    "cat": [0, 0, 0, 0, 0, 4, 2, 3, 0, 3],
    "person": [4, 4, 2, 2, 1, 1, 1, 2, 0, 0],
    "duck": [0, 0, 0, 4, 0, 0, 3, 0, 2, 0],
    "umbrella": [5, 2, 1, 2, 2, 2, 0, 0, 0, 0],
    "balloon": [5, 2, 1, 2, 3, 2, 0, 0, 0, 0],
    "kite": [4, 2, 1, 3, 2, 1, 0, 0, 0, 0],
}
_HEIGHT = np.array(
    [
        *(0.44, 0.46, 0.46, 0.27, 0.42, 0.27, 0.25, 0.38, 0.24, 0.34, 0.2, 0.38),
        *(0.2, 0.17, 0.16, 0.32, 0.22),
    ]
)


def scene_attributes(draws: Draws) -> Attributes:
    """Attributes of scenes: per picture ``[n]``, per object ``[n, 5]`` with kind -1 for none.

    Slots 0 to 2 stand on the ground, back to front, each in a column of its own; slots 3
    and 4 float in the sky.
    """
    ground = draws.choice("ground", [0.36, 0.15, 0.17, 0.17, 0.15])
    skies = np.array([[6, 2, 2], [5, 4, 1], [6, 1, 3], [5, 4, 1], [5, 2, 4]])
    sky = draws.choice("sky", skies[ground])
    kinds = [draws.choice(f"kind{i}", _KIND_LAW[ground]) for i in range(GROUND_SLOTS)]
    kinds += [GROUND_KINDS + draws.choice(f"kind{i}", _SKY_LAW[sky]) for i in (3, 4)]
    kind = np.stack(kinds, axis=1)
    # No second sun or moon, and never both: they do not share a sky.
    heavenly = (kind[:, 3] < GROUND_KINDS + 2) & (kind[:, 4] < GROUND_KINDS + 2)
    kind[heavenly, 4] = KINDS.index("cloud")
    standing = draws.choice("standing", [0.2, 0.5, 0.3]) + 1
    floating = np.maximum(draws.choice("floating", [0.35, 0.5, 0.15]), standing == 1)
    floating = np.minimum(floating, 4 - standing)
    slot = np.arange(SLOTS)
    shown = np.where(slot < GROUND_SLOTS, slot < standing[:, None], slot - 3 < floating[:, None])
    colours = np.ones((len(KINDS), len(COLOURS)))
    for name, weights in _COLOUR_LAW.items():
        colours[KINDS.index(name)] = weights
    colour = [draws.choice(f"colour{i}", colours[kind[:, i]]) for i in range(SLOTS)]
    return {
        "ground": ground,
        "sky": sky,
        "kind": np.where(shown, kind, -1),
        "colour": np.stack(colour, axis=1),
        "large": draws.table("large", SLOTS) < 0.5,
    } | scene_layout(draws)


def scene_layout(draws: Draws) -> Attributes:
    """Column 0..2 and depth (0 back, 1 front) of each slot, ``[n, 5]`` integers."""
    columns = np.argsort(draws.table("column", 3), axis=1)
    above = np.argsort(draws.table("column above", 3), axis=1)[:, :2]
    depth = (draws.table("depth", SLOTS) < 0.5).astype(np.int64)
    depth[:, :GROUND_SLOTS].sort(axis=1)
    return {"column": np.concatenate([columns, above], axis=1), "depth": depth}


def scene_looks(draws: Draws, attributes: Attributes) -> Attributes:
    """Continuous variation: places, sizes and shades."""
    depth, large, kind = attributes["depth"], attributes["large"], attributes["kind"]
    jitter = draws.table("jitter", 2 * SLOTS) - 0.5
    horizon = draws.uniform("horizon", 0.5, 0.58)
    size = 1.1 * _HEIGHT[kind] * np.where(large, 1.12, 0.8) * np.where(kind < GROUND_KINDS, 1, 1.1)
    size = size * np.where((kind < GROUND_KINDS) & (depth == 0), 0.85, 1.0)
    base = np.where(depth == 1, 0.92, horizon[:, None] + 0.12) + 0.05 * jitter[:, :SLOTS]
    floating = 0.19 + 0.1 * jitter[:, :SLOTS]
    shade = 1 + 0.2 * (draws.table("shade", SLOTS)[:, :, None] - 0.5)
    return {
        "horizon": horizon,
        "size": size,
        "x": 0.17 + 0.33 * attributes["column"] + 0.07 * jitter[:, SLOTS:],
        "y": np.where(np.arange(SLOTS) < GROUND_SLOTS, base - size / 2, floating),
        "rgb": (PAINT[attributes["colour"]] * shade).astype(np.float32),
        "bare": attributes["ground"] == SNOW,
        "phase": draws.uniform("phase"),
        "flip": np.where(draws.chance("flip", 0.5), 1.0, -1.0),
        "warmth": draws.uniform("warmth", 0.88, 1.08),
    }


class ToyScenes(PrivateToySet):
    """The toy counterpart of MS-COCO: five captions for each scene."""

    domain = "toyscenes"
    captions_per_record = 5
    chunk = 1024

    def attributes(self, indices: Sequence[int] | Array) -> Attributes:
        """Attributes as in :func:`scene_attributes`."""
        return scene_attributes(self.draws(indices))

    def looks(self, indices: Sequence[int] | Array, attributes: Attributes) -> Attributes:
        """Places, sizes and shades."""
        return scene_looks(self.draws(indices), attributes)

    def paint(self, canvas: Canvas, look: Attributes) -> None:
        """Paint the scenes."""
        paint_scene(canvas, look)

    def caption(self, attributes: Attributes, row: int, dice: Dice) -> str:
        """One caption that tells a relation or lists objects."""
        return scene_caption({name: v[row] for name, v in attributes.items()}, dice)


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _name(scene: Attributes, slot: int, dice: Dice) -> str:
    kind = KINDS[scene["kind"][slot]]
    if kind in ("sun", "moon"):
        return f"the {kind}"
    colour = COLOURS[scene["colour"][slot]]
    words = [("large" if scene["large"][slot] else "small")] if dice.chance(0.3) else []
    if kind == "person":
        return _article(" ".join([*words, kind])) + f" in a {colour} shirt".replace("a o", "an o")
    if kind in _COLOUR_LAW and dice.chance(0.8):
        words.append(colour)
    return _article(" ".join([*words, "pine tree" if kind == "pine" else kind]))


def relations(scene: Attributes) -> list[tuple[int, str, int]]:
    """All true statements ``(slot, relation, slot)`` about one scene."""
    kind, column, depth = scene["kind"], scene["column"], scene["depth"]
    here = [slot for slot in range(SLOTS) if kind[slot] >= 0]
    found: list[tuple[int, str, int]] = []
    for a in here:
        for b in here:
            if a < GROUND_SLOTS and b < GROUND_SLOTS and a != b:
                side = "left of" if column[a] < column[b] else "right of"
                found += [(a, side, b), (a, f"to the {side}", b)]
                if depth[a] != depth[b]:
                    found.append((a, "in front of" if depth[a] else "behind", b))
                elif abs(column[a] - column[b]) == 1:
                    found.append((a, "next to", b))
            elif a >= GROUND_SLOTS > b and column[a] == column[b]:
                found += [(a, "above", b)] * 2
    return found


def scene_caption(scene: Attributes, dice: Dice) -> str:
    """One caption of at most 24 words, true of the scene."""
    here = [slot for slot in range(SLOTS) if scene["kind"][slot] >= 0]
    sky = SKIES[scene["sky"]]
    time = "in the day" if sky == "day" else f"at {sky}"
    places = [f"on the {GROUNDS[scene['ground']]}", time, "", f"under a {sky} sky"]
    true = relations(scene)
    lead = dice.pick(("", "", "there is ", "a photo of ", "a picture of "))
    if true and dice.chance(0.65):
        a, relation, b = dice.pick(true)
        parts = [_name(scene, a, dice), relation, _name(scene, b, dice)]
        place = dice.pick(places if a < GROUND_SLOTS else places[1:])
        return f"{lead}{' '.join(parts)} {place}".strip()
    told = [_name(scene, slot, dice) for slot in dice.sample(here, dice.pick((2, 2, 3)))]
    listed = ", ".join(told[:-1]) + f" and {told[-1]}"
    return f"{lead}{listed} {dice.pick(places[1:])}".strip()
