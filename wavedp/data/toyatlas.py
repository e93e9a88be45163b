"""Toy atlas: a broad mixture. A PUBLIC set, for training the metric's yardstick only.

Inception and CLIP saw far more than any generator here, so the embedded yardstick does too:
arrangements of the toy world, and faces and scenes from the private sets' painters but with
independent, uniform attributes and wider colours, proportions and poses. No generator may
train on it. Its streams of randomness have domains of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wavedp.data import toyfaces, toyscenes
from wavedp.data.drawing import Array, Attributes, Canvas, Dice, Draws, where
from wavedp.data.toy import ToySet
from wavedp.data.toyfaces import ToyFaces
from wavedp.data.toyscenes import ToyScenes
from wavedp.data.toyworld import ToyWorld


def _uniform(draws: Draws, name: str, count: int) -> Array:
    return draws.choice(name, np.ones(count))


class _AtlasWorld(ToyWorld):
    domain = "toyatlas/world"


class _AtlasFaces(ToyFaces):
    domain = "toyatlas/faces"

    def attributes(
        self, indices: Sequence[int] | Array, law: toyfaces.FaceLaw | None = None
    ) -> Attributes:
        draws = self.draws(indices)
        flags = {name: draws.chance(name, 0.35) for name in ("feminine", *toyfaces.FLAGS)}
        return flags | {
            "skin": _uniform(draws, "skin", len(toyfaces.SKINS)),
            "hair_colour": _uniform(draws, "hair", len(toyfaces.HAIR_COLOURS)),
            "style": _uniform(draws, "style", len(toyfaces.STYLES)),
            "hat_colour": _uniform(draws, "hat_colour", len(toyfaces.COLOURS)),
            "clothes": _uniform(draws, "clothes", len(toyfaces.COLOURS)),
            "tie_colour": _uniform(draws, "tie_colour", len(toyfaces.COLOURS)),
        }

    def looks(self, indices: Sequence[int] | Array, attributes: Attributes) -> Attributes:
        draws = self.draws(indices)
        looks = toyfaces.face_geometry(draws, 2.5) | toyfaces.face_colours(draws, attributes)
        for name in ("skin_rgb", "hair_rgb", "cloth_rgb", "hat_rgb", "back_rgb"):
            looks[name] = _vary(draws, name, looks[name])
        return looks


class _AtlasScenes(ToyScenes):
    domain = "toyatlas/scenes"

    def attributes(self, indices: Sequence[int] | Array) -> Attributes:
        draws = self.draws(indices)
        standing, floating = toyscenes.GROUND_KINDS, len(toyscenes.KINDS) - toyscenes.GROUND_KINDS
        kinds = [_uniform(draws, f"kind{i}", standing) for i in range(3)]
        kinds += [standing + _uniform(draws, f"kind{i}", floating) for i in (3, 4)]
        shown = draws.table("shown", toyscenes.SLOTS) < 0.6
        shown[:, 0] = shown[:, 3] = True
        colours = len(toyscenes.COLOURS)
        colour = [_uniform(draws, f"colour{i}", colours) for i in range(toyscenes.SLOTS)]
        return {
            "ground": _uniform(draws, "ground", len(toyscenes.GROUNDS)),
            "sky": _uniform(draws, "sky", len(toyscenes.SKIES)),
            "kind": np.where(shown, np.stack(kinds, axis=1), -1),
            "colour": np.stack(colour, axis=1),
            "large": draws.table("large", toyscenes.SLOTS) < 0.5,
        } | toyscenes.scene_layout(draws)

    def looks(self, indices: Sequence[int] | Array, attributes: Attributes) -> Attributes:
        draws = self.draws(indices)
        looks = toyscenes.scene_looks(draws, attributes)
        looks["warmth"] = draws.uniform("warmth", 0.7, 1.2)
        return looks


def _vary(draws: Draws, name: str, colour: Array) -> Array:
    """Shift each channel by up to 0.12: other palettes under the same colour names."""
    shift = 0.24 * (draws.table(f"vary {name}", 3) - 0.5)
    return np.clip(colour + shift, 0, 1).astype(np.float32)


class ToyAtlas(ToySet):
    """The mixture: arrangements, faces and scenes."""

    domain = "toyatlas"
    captions_per_record = 5
    chunk = 2048

    def __init__(self, *, resolution: int = 32, seed: int = 0, cache_dir: str = ".cache") -> None:
        super().__init__(resolution=resolution, seed=seed, cache_dir=cache_dir)
        options = {"resolution": resolution, "seed": seed, "cache_dir": cache_dir}
        families = (_AtlasWorld, _AtlasFaces, _AtlasScenes)
        self._families: list[ToySet] = [family(**options) for family in families]  # type: ignore[arg-type]

    def attributes(self, indices: Sequence[int] | Array) -> Attributes:
        """``family`` (0 arrangement, 1 face, 2 scene) and ``"0/kind"``... of each family."""
        attributes = {"family": self.draws(indices).choice("family", [0.36, 0.36, 0.28])}
        for number, family in enumerate(self._families):
            drawn = family.attributes(indices)
            attributes |= {f"{number}/{name}": values for name, values in drawn.items()}
        return attributes

    def looks(self, indices: Sequence[int] | Array, attributes: Attributes) -> Attributes:
        """The looks of each family, named likewise."""
        looks: Attributes = {}
        for number, family in enumerate(self._families):
            drawn = family.looks(indices, _of(attributes, number))
            looks |= {f"{number}/{name}": values for name, values in drawn.items()}
        return looks

    def paint(self, canvas: Canvas, look: Attributes) -> None:
        """Paint each record as its family does."""
        for number, family in enumerate(self._families):
            mask = look["family"] == number
            if mask.any():
                family.paint(canvas.where(mask), where(_of(look, number), mask))

    def caption(self, attributes: Attributes, row: int, dice: Dice) -> str:
        """A caption in the grammar of the record's family."""
        number = int(attributes["family"][row])
        return self._families[number].caption(_of(attributes, number), row, dice)


def _of(attributes: Attributes, number: int) -> Attributes:
    prefix = f"{number}/"
    return {k.removeprefix(prefix): v for k, v in attributes.items() if k.startswith(prefix)}
