"""Toy faces: procedural portraits in the manner of MM-CelebA-HQ. A private set.

Attributes follow a joint, far from uniform law (gray hair comes with glasses, earrings with
long hair and lipstick, no beard with lipstick), so that a generator has modes to miss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from wavedp.data.drawing import (
    Array,
    Attributes,
    Canvas,
    Dice,
    Draws,
    mix,
    palette,
    words,
)
from wavedp.data.drawing.faces import BALD, BOB, BUN, LONG, SHORT, STYLES, paint_face
from wavedp.data.toy import PrivateToySet

HAIR_COLOURS = ("black", "brown", "blond", "gray", "red", "blue", "green", "purple", "white")
COLOURS = ("red", "blue", "green", "yellow", "purple", "white", "black", "orange")
SKINS = ("pale", "light", "tan", "brown", "dark", "blue", "green", "purple", "red")
FLAGS = words(
    "smiling mouth_open eyeglasses sunglasses hat beard mustache bangs earrings lipstick "
    "bushy_eyebrows rosy_cheeks necktie necklace freckles"
)
VOCABULARY = words(
    "a an and bald bangs beard black blond blue bob brown bun bushy cheeks curly dark "
    "earrings eyebrows eyeglasses face freckles gray green hair has hat in is lipstick long "
    "mouth mustache necklace necktie of open orange pale person photo picture portrait purple "
    "red rosy shirt short skin smiling somebody sunglasses tan the there this wearing wears "
    "white who with yellow"
)
"""Every word that a caption may use."""

# The last four colours of hair and skin, which no person has, serve the public atlas only.
HAIR = palette(
    ["231b1c", "6b4226", "e0b663", "a9a9ad", "b0481f", "3a62b8", "4a9a52", "8a4fb0", "f0eee8"]
)
SKIN = palette(
    ["f8dccb", "efc0a0", "d9a074", "a86f49", "6d432c", "7fa6d8", "8cc084", "b48fd0", "dc7a70"]
)
CLOTH = palette(["c8322f", "2f5fb3", "3b8f57", "e8bd3c", "7d4a9c", "eeeae4", "2b2b33", "e2762b"])
IRIS = palette(["4a2d1b", "3f6f9f", "4d7d4f", "6e5a38"])
BACKDROP = palette(["8fb0c9", "d9c7a8", "7f9f86", "b79bb0", "55616f", "e3dcd5", "c98f78", "39424f"])


@dataclass(frozen=True)
class FaceLaw:
    """The law of the attributes; change one field to get a shifted population.

    Attributes:
        feminine, old: probabilities of the two hidden traits that correlate the rest.
        hat: of a hat where the hair allows one (not bald, no bun).
        beard: of a beard on a face that is not feminine.
        glasses: of eyeglasses on a young face.
        hair: weights of the hair colours of a young face.
        forced: attributes set to one value for all, whatever the rest of the law says.
    """

    feminine: float = 0.55
    old: float = 0.22
    hat: float = 0.15
    beard: float = 0.38
    glasses: float = 0.13
    hair: tuple[float, ...] = (0.36, 0.34, 0.22, 0.0, 0.08)
    forced: Mapping[str, int | bool] = field(default_factory=dict)


def face_attributes(draws: Draws, law: FaceLaw) -> Attributes:
    """Attributes ``[n]`` each: integers (skin, hair_colour, style, ...) and booleans."""
    feminine, old = draws.chance("feminine", law.feminine), draws.chance("old", law.old)
    skin = draws.choice("skin", [0.17, 0.36, 0.22, 0.15, 0.10])
    young = np.where((skin >= 3)[:, None], [0.8, 0.17, 0.02, 0.0, 0.01], law.hair)
    old_hair = np.array([0.1, 0.15, 0.1, 0.65, 0.0])
    hair_colour = draws.choice("hair", np.where(old[:, None], old_hair, young))
    feminine_styles = np.array([0.07, 0.48, 0.0, 0.20, 0.13, 0.12])
    masculine_styles = np.array([0.62, 0.07, 0.16, 0.02, 0.12, 0.01])
    style = draws.choice("style", np.where(feminine[:, None], feminine_styles, masculine_styles))
    hat = draws.chance("hat", law.hat) & (style != BALD) & (style != BUN)
    smooth = (style == LONG) | (style == BOB) | (style == SHORT)
    beard = draws.chance("beard", law.beard) & ~feminine
    lipstick = draws.chance("lipstick", 0.55) & feminine
    smiling = draws.chance("smiling", np.where(lipstick, 0.7, 0.45))
    eyeglasses = draws.chance("eyeglasses", np.where(old, 0.45, law.glasses))
    shades = np.where(hat, 0.25, 0.05)
    dressy = lipstick & (style == LONG)
    attributes = {
        "feminine": feminine,
        "skin": skin,
        "hair_colour": hair_colour,
        "style": style,
        "hat": hat,
        "hat_colour": draws.choice("hat_colour", [4, 3, 2, 2, 1, 2, 3, 1]),
        "clothes": draws.choice("clothes", [2, 4, 2, 1, 1, 4, 4, 1]),
        "tie_colour": draws.choice("tie_colour", [5, 4, 1, 1, 1, 0, 2, 0]),
        "beard": beard,
        "mustache": draws.chance("mustache", np.where(beard, 0.75, 0.12)) & ~feminine,
        "lipstick": lipstick,
        "smiling": smiling,
        "mouth_open": draws.chance("mouth_open", np.where(smiling, 0.45, 0.12)),
        "eyeglasses": eyeglasses,
        "sunglasses": draws.chance("sunglasses", shades) & ~eyeglasses,
        "bangs": draws.chance("bangs", np.where(feminine, 0.38, 0.15)) & smooth & ~hat,
        "earrings": draws.chance("earrings", np.where(dressy, 0.75, 0.3)) & feminine,
        "bushy_eyebrows": draws.chance("brows", np.where(feminine, 0.06, 0.38)),
        "rosy_cheeks": draws.chance("rosy", np.where(feminine & (skin < 2), 0.35, 0.06)),
        "necktie": draws.chance("necktie", np.where(old, 0.45, 0.22)) & ~feminine & ~hat,
        "necklace": draws.chance("necklace", 0.3) & feminine,
        "freckles": draws.chance("freckles", np.where(hair_colour == 4, 0.5, 0.03)) & (skin < 2),
    }
    for name, value in law.forced.items():
        attributes[name] = np.full(len(draws), value, dtype=attributes[name].dtype)
    return attributes


def face_geometry(draws: Draws, spread: float = 1.0) -> Attributes:
    """Pose and proportions ``[n]`` each; ``spread`` widens all of them."""

    def about(name: str, middle: float, swing: float) -> Array:
        return draws.uniform(name, middle - spread * swing, middle + spread * swing)

    return {
        "x": about("x", 0.5, 0.03),
        "y": about("y", 0.48, 0.02),
        "scale": about("scale", 1.07, 0.06),
        "tilt": about("tilt", 0.0, 0.08),
        "width": about("width", 0.222, 0.018),
        "jaw": about("jaw", 0.0, 0.02),
        "eye_gap": about("eye_gap", 0.1, 0.007),
        "eye_size": about("eye_size", 1.0, 0.12),
        "nose_size": about("nose_size", 1.0, 0.2),
        "mouth_width": about("mouth_width", 0.088, 0.014),
        "gaze": about("gaze", 0.0, 0.012),
        "light": draws.uniform("light", -0.16, 0.16),
    }


def face_colours(draws: Draws, attributes: Attributes) -> Attributes:
    """Colours ``[n, 3]`` each, in 0..1, near the palettes' entries."""
    wobble = draws.table("wobble", 6) - 0.5
    bright = 1 + 0.16 * wobble[:, :1]
    hair = HAIR[attributes["hair_colour"]] * (1 + 0.3 * wobble[:, 1:2])
    backdrop = BACKDROP[draws.choice("backdrop", [3, 2, 2, 1, 2, 3, 1, 1])]
    return {
        "skin_rgb": np.clip(SKIN[attributes["skin"]] * bright, 0, 1),
        "hair_rgb": hair,
        "brow_rgb": mix(hair * 0.6, SKIN[attributes["skin"]], 0.12),
        "hat_rgb": CLOTH[attributes["hat_colour"]] * (1 + 0.1 * wobble[:, 2:3]),
        "cloth_rgb": CLOTH[attributes["clothes"]] * (1 + 0.1 * wobble[:, 3:4]),
        "tie_rgb": CLOTH[attributes["tie_colour"]],
        "iris_rgb": IRIS[draws.choice("iris", [5, 3, 2, 2])],
        "back_rgb": backdrop * (1 + 0.2 * wobble[:, 4:5]),
        "back_angle": draws.uniform("back_angle", 0.6, 2.5),
    }


class ToyFaces(PrivateToySet):
    """The toy counterpart of MM-CelebA-HQ: ten captions for each portrait."""

    domain = "toyfaces"
    captions_per_record = 10

    def attributes(self, indices: Sequence[int] | Array, law: FaceLaw | None = None) -> Attributes:
        """Attributes by name, ``[n]`` booleans or integers, under the set's law or another."""
        return face_attributes(self.draws(indices), law or FaceLaw())

    def looks(self, indices: Sequence[int] | Array, attributes: Attributes) -> Attributes:
        """Pose, proportions and colours."""
        draws = self.draws(indices)
        return face_geometry(draws) | face_colours(draws, attributes)

    def draw(self, indices: Sequence[int] | Array, law: FaceLaw | None = None) -> Array:
        """Pictures, uint8 ``[n, 3, H, W]``; another law makes a population to test rulers."""
        return self.render(indices, self.attributes(indices, law))

    def paint(self, canvas: Canvas, look: Attributes) -> None:
        """Paint the portraits."""
        paint_face(canvas, look)

    def caption(self, attributes: Attributes, row: int, dice: Dice) -> str:
        """One caption that mentions two to five of the record's attributes."""
        return face_caption({name: int(v[row]) for name, v in attributes.items()}, dice)


def _mentions(face: Mapping[str, int]) -> list[tuple[str, str]]:
    """What may be said: pairs of a kind (``is``, ``has`` or ``wears``) and a phrase."""
    colour, style = HAIR_COLOURS[face["hair_colour"]], face["style"]
    found = [("is", "smiling")] if face["smiling"] else []
    if style == BALD:
        found.append(("is", "bald"))
    elif style == BUN:
        found.append(("has", f"{colour} hair in a bun"))
    elif style == BOB:
        found.append(("has", f"a {colour} bob"))
    else:
        found.append(("has", f"{STYLES[style]} {colour} hair"))
    if face["skin"] != 1:
        found.append(("has", f"{SKINS[face['skin']]} skin"))
    plain = {
        "mouth_open": "an open mouth",
        "beard": "a beard",
        "mustache": "a mustache",
        "bangs": "bangs",
        "bushy_eyebrows": "bushy eyebrows",
        "rosy_cheeks": "rosy cheeks",
        "freckles": "freckles",
    }
    found += [("has", phrase) for name, phrase in plain.items() if face[name]]
    worn = {
        "eyeglasses": "eyeglasses",
        "sunglasses": "sunglasses",
        "earrings": "earrings",
        "lipstick": "lipstick",
        "hat": _coloured(face["hat_colour"], "hat"),
        "necktie": _coloured(face["tie_colour"], "necktie"),
        "necklace": "a necklace",
    }
    found += [("wears", phrase) for name, phrase in worn.items() if face[name]]
    found.append(("wears", _coloured(face["clothes"], "shirt")))
    return found


def _coloured(colour: int, noun: str) -> str:
    name = COLOURS[colour]
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name} {noun}"


def _list(phrases: Sequence[str]) -> str:
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if phrases[1:] else phrases)


def face_caption(face: Mapping[str, int], dice: Dice) -> str:
    """One caption of at most 24 words, true of the face."""
    told = dice.sample(_mentions(face), dice.pick((2, 3, 3, 4, 5)))
    while sum(len(phrase.split()) for _, phrase in told) > 12:  # the rest is 12 words at most
        told.pop()
    state, has, wears = ([p for kind, p in told if kind == k] for k in ("is", "has", "wears"))
    who = dice.pick(("person", "person", "face") if not wears else ("person",))
    if dice.chance(0.5):
        noun = dice.pick(("a", "a portrait of a", "a photo of a", "there is a"))
        lead = f"{noun} {', '.join([*state, ''])}".strip(", ") + f" {who}"
        text = lead + (f" with {_list(has)}" if has else "")
        joint = " and " if has and len(wears) == 1 and dice.chance(0.3) else " wearing "
        return text + (f"{joint}{_list(wears)}" if wears else "")
    subject = dice.pick(("this person", "the person", "the person in the picture", "somebody who"))
    clauses = ([f"is {_list(state)}"] if state else []) + ([f"has {_list(has)}"] if has else [])
    clauses += [f"wears {_list(wears)}"] if wears else []
    if subject == "somebody who" or not dice.chance(0.5) or len(clauses) < 2:
        return f"{subject} {_list(clauses)}"
    return f"{subject} {clauses[0]} and {' and '.join(clauses[1:])}"
