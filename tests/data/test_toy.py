"""The embedded sets: the same record whatever else is drawn, and captions that are true."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wavedp.data import toyfaces, toyscenes, toyworld
from wavedp.data.drawing import Canvas, Dice, Draws, box, disc, line, scenes
from wavedp.data.schema import Dataset, PublicDataset
from wavedp.data.toy import EVALUATION_OFFSET, ToySet
from wavedp.data.toyatlas import ToyAtlas
from wavedp.data.toyfaces import FaceLaw, ToyFaces
from wavedp.data.toyscenes import ToyScenes
from wavedp.data.toyworld import ToyWorld
from wavedp.dp.errors import UserError

ALL: list[Any] = [ToyFaces, ToyScenes, ToyWorld, ToyAtlas]
PRIVATE: list[Any] = [ToyFaces, ToyScenes]
PUBLIC: list[Any] = [ToyWorld, ToyAtlas]


@pytest.fixture(params=ALL, ids=lambda c: c.domain)
def toy(request: pytest.FixtureRequest, tmp_path: Path) -> ToySet:
    made: ToySet = request.param(cache_dir=str(tmp_path))
    return made


# --- drawing ---------------------------------------------------------------------------


def test_a_disc_covers_its_area_by_hand() -> None:
    canvas = Canvas.blank(1, 32)
    canvas.paint(disc(0.5, 0.5, 0.25), np.ones(3))
    assert canvas.pixels[0, 0].sum() == pytest.approx(np.pi * 8**2, rel=0.01)


def test_a_thin_line_covers_its_area_by_hand() -> None:
    canvas = Canvas.blank(1, 32)
    canvas.paint(line(0.25, 0.5, 0.75, 0.5, 0.01), np.ones(3))
    # 0.51 x 0.01 of 1024 pixels, although it is a third of a pixel wide.
    assert canvas.pixels[0, 0].sum() == pytest.approx(0.51 * 0.01 * 1024, rel=0.25)


def test_a_patch_paints_what_the_canvas_paints() -> None:
    whole, patched = Canvas.blank(3, 32), Canvas.blank(3, 32)
    x = np.array([0.05, 0.4, 0.9])
    for canvas in (whole, patched):
        canvas.gradient(np.zeros((3, 3)), np.ones((3, 3)))
    shape, red = box(0, 0, 0.8, 0.3, 0.4), np.array([1.0, 0, 0])
    whole.posed(x, 0.3, 0.1).paint(shape, red)
    framed = patched.posed(x, 0.3, 0.1)
    patch = framed.patch(1.0)
    patch.paint(shape, red)
    framed.put(patch)
    np.testing.assert_allclose(whole.pixels, patched.pixels, atol=1e-5)


def test_uniforms_are_uniform_and_of_one_record_each() -> None:
    draws = Draws(3, "a", range(20_000))
    u = np.stack([draws.uniform("x"), draws.uniform("y"), *draws.table("z", 2).T])
    assert np.abs(u.mean(axis=1) - 0.5).max() < 0.01
    assert np.abs(np.corrcoef(u) - np.eye(4)).max() < 0.03
    np.testing.assert_array_equal(Draws(3, "a", [77]).table("z", 2)[0], u[2:, 77])
    assert not np.any(Draws(3, "b", range(100)).uniform("x") == u[0, :100])


def test_dice_sample_without_repetition() -> None:
    dice = Dice(np.array([0.999, 0.0, 0.5]))
    assert dice.sample("abc", 3) == ["c", "a", "b"]


# --- every set -------------------------------------------------------------------------


def test_a_record_does_not_depend_on_what_else_is_drawn(toy: ToySet) -> None:
    together = toy.draw(range(40))
    np.testing.assert_array_equal(toy.draw([33, 2])[::-1], together[[2, 33]])
    halves = [toy.draw(range(17)), toy.draw(range(17, 40))]
    np.testing.assert_array_equal(np.concatenate(halves), together)
    captions = toy.captions(range(40))
    assert toy.captions(range(33, 34)) == captions[33:34]


def test_another_seed_gives_another_set(toy: ToySet) -> None:
    other = type(toy)(seed=12, resolution=32)
    assert np.abs(other.draw(range(8)).astype(int) - toy.draw(range(8))).mean() > 5


def test_images_have_range_and_contrast(toy: ToySet) -> None:
    images = toy.records(0, 64).images
    assert images.shape == (64, 3, 32, 32)
    assert images.dtype == np.uint8
    assert images.std(axis=(1, 2, 3)).min() > 3
    assert images.min() < 30
    assert images.max() > 225


def test_64_pixels_show_the_same_picture(toy: ToySet) -> None:
    small = toy.draw(range(48)).astype(np.float64)
    large = type(toy)(resolution=64, seed=toy.seed).draw(range(48)).astype(np.float64)
    averaged = large.reshape(48, 3, 32, 2, 32, 2).mean(axis=(3, 5))
    assert np.abs(averaged - small).mean() < 3.0
    assert np.abs(averaged - small).mean(axis=(1, 2, 3)).max() < 10.0


def test_the_cache_is_lazy_and_reused(toy: ToySet, tmp_path: Path) -> None:
    assert not list(tmp_path.rglob("*.npy"))
    first = toy.records(3, 20).images
    (path,) = [p for p in tmp_path.rglob("*") if p.is_file()]
    written = path.stat().st_mtime_ns
    np.testing.assert_array_equal(first, toy.draw(range(3, 20)))
    np.testing.assert_array_equal(toy.records(3, 20).images, first)
    assert path.stat().st_mtime_ns == written


def test_captions_are_a_lazy_sequence(toy: ToySet) -> None:
    captions = toy.records(0, 300).captions
    listed = list(captions)
    assert len(listed) == 300
    assert {len(c) for c in listed} == {toy.captions_per_record}
    assert captions[299] == captions[-1] == listed[-1]
    assert list(captions[250:260][2:4]) == listed[252:254]


def test_captions_are_short_lowercase_and_from_the_vocabulary(toy: ToySet) -> None:
    words = {"toyfaces": toyfaces, "toyscenes": toyscenes, "toyworld": toyworld}
    modules = [words[toy.name]] if toy.name in words else list(words.values())
    vocabulary = {word for module in modules for word in module.VOCABULARY}
    for captions in toy.captions(range(400)):
        for caption in captions:
            found = re.findall(r"[^\s,]+", caption)
            assert set(found) <= vocabulary, caption
            assert 3 <= len(found) <= 24, caption
            assert not re.search(r"\ba [aeiou]|  |^ | $", caption), caption
        assert len(set(captions)) > 1


@pytest.mark.parametrize("made", ALL)
def test_other_resolutions_are_refused(made: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="32 or 64"):
        made(resolution=48, cache_dir=str(tmp_path)).records(0, 1)


# --- private and public ----------------------------------------------------------------


@pytest.mark.parametrize("made", PRIVATE)
def test_private_sets_keep_the_contract(made: Any, tmp_path: Path) -> None:
    toy: Any = made(private_records=20, evaluation_records=10, cache_dir=str(tmp_path))
    assert isinstance(toy, Dataset)
    assert toy.private().records == 20
    evaluation = toy.evaluation()
    assert len(evaluation) == 10
    drawn = made().draw(range(10_000_000, 10_000_010))
    np.testing.assert_array_equal(evaluation.images, drawn)
    for count in (0, EVALUATION_OFFSET + 1):
        with pytest.raises(UserError, match="private_records"):
            made(private_records=count).check()


@pytest.mark.parametrize("made", PRIVATE)
def test_private_and_evaluation_records_differ(made: Any) -> None:
    toy = made()
    private = {image.tobytes() for image in toy.draw(range(300))}
    offset = range(EVALUATION_OFFSET, EVALUATION_OFFSET + 300)
    assert private.isdisjoint(image.tobytes() for image in toy.draw(offset))


@pytest.mark.parametrize("made", PUBLIC)
def test_public_sets_keep_the_contract(made: Any, tmp_path: Path) -> None:
    toy = made(cache_dir=str(tmp_path))
    assert isinstance(toy, PublicDataset)
    records = toy.records(5, 12)
    assert len(records) == len(records.captions) == 7


def _colour_counts(images: np.ndarray) -> np.ndarray:
    """Pixels per cell of an 8 x 8 x 8 grid of colours."""
    cells = (images >> 5).astype(np.int64).transpose(0, 2, 3, 1).reshape(-1, 3)
    return np.bincount(cells @ np.array([64, 8, 1]), minlength=512)


@pytest.mark.parametrize("private", PRIVATE)
def test_the_world_has_other_colour_frequencies_but_the_same_colours(private: Any) -> None:
    drawn, world = private().draw(range(400)), ToyWorld().draw(range(1024))
    assert np.abs(drawn.mean(axis=(0, 2, 3)) - world.mean(axis=(0, 2, 3))).max() > 8
    p, q = _colour_counts(drawn), _colour_counts(world)
    assert 0.5 * np.abs(p / p.sum() - q / q.sum()).sum() > 0.3
    assert p[q > 0].sum() > 0.99 * p.sum()


def test_the_atlas_never_shows_a_private_record() -> None:
    atlas = ToyAtlas(seed=1)
    drawn = {image.tobytes() for image in atlas.draw(range(400))}
    for private in (ToyFaces(seed=1), ToyScenes(seed=1)):
        assert drawn.isdisjoint(image.tobytes() for image in private.draw(range(400)))
    assert np.bincount(atlas.attributes(range(400))["family"], minlength=3).min() > 80


# --- faces -----------------------------------------------------------------------------


def test_face_captions_are_true() -> None:
    toy = ToyFaces()
    attributes = toy.attributes(range(500))
    for row, captions in enumerate(toy.captions(range(500))):
        face = {name: values[row] for name, values in attributes.items()}
        for caption in captions:
            _check_face(caption, face)


def _check_face(caption: str, face: dict[str, Any]) -> None:
    for name in toyfaces.FLAGS:
        phrase = "open mouth" if name == "mouth_open" else name.replace("_", " ")
        if re.search(rf"\b{phrase}\b", caption):
            assert face[name], caption
    for word in re.findall(r"(\w+)(?: hair| bob)", caption):
        assert toyfaces.HAIR_COLOURS[face["hair_colour"]] == word, caption
    for word, style in (("long", 1), ("short", 0), ("bald", 2), ("bob", 3), ("bun", 5)):
        assert word not in caption.split() or face["style"] == style, caption
    for noun, name in (("hat", "hat_colour"), ("shirt", "clothes"), ("necktie", "tie_colour")):
        for word in re.findall(rf"(\w+) {noun}\b", caption):
            assert toyfaces.COLOURS[face[name]] == word, caption
    for word in re.findall(r"(\w+) skin", caption):
        assert toyfaces.SKINS[face["skin"]] == word, caption


def test_the_law_of_faces_is_joint_and_far_from_uniform() -> None:
    face = ToyFaces().attributes(range(8000))
    assert not np.any(face["beard"] & face["lipstick"])
    assert not np.any(face["hat"] & face["bangs"])
    assert not np.any(face["eyeglasses"] & face["sunglasses"])
    gray, dressy = face["hair_colour"] == 3, face["lipstick"] & (face["style"] == toyfaces.LONG)
    assert face["eyeglasses"][gray].mean() > 2 * face["eyeglasses"][~gray].mean()
    assert face["earrings"][dressy].mean() > 2 * face["earrings"][~dressy].mean()
    assert 0.02 < (face["hair_colour"] == 4).mean() < 0.1
    assert 0.02 < np.mean(gray & face["eyeglasses"]) < 0.1


def test_a_shifted_law_changes_only_what_it_says() -> None:
    toy = ToyFaces()
    plain, hats = toy.attributes(range(2000)), toy.attributes(range(2000), FaceLaw(hat=0.9))
    assert hats["hat"].mean() > 0.6 > 0.2 > plain["hat"].mean()
    np.testing.assert_array_equal(plain["skin"], hats["skin"])
    red = toy.draw(range(4), FaceLaw(forced={"hair_colour": 4, "style": toyfaces.LONG}))
    assert red.shape == (4, 3, 32, 32)


# --- scenes and the world --------------------------------------------------------------


def test_scene_captions_are_true() -> None:
    toy = ToyScenes()
    attributes = toy.attributes(range(500))
    for row, captions in enumerate(toy.captions(range(500))):
        scene = {name: values[row] for name, values in attributes.items()}
        shown = [toyscenes.KINDS[kind] for kind in scene["kind"] if kind >= 0]
        for caption in captions:
            for kind in toyscenes.KINDS:
                assert len(re.findall(rf"\b{kind}\b", caption)) <= shown.count(kind) or (
                    kind == "tree" and "pine" in shown
                ), caption
            _check_relation(caption, scene)


def _check_relation(caption: str, scene: dict[str, Any]) -> None:
    kinds = "|".join(toyscenes.KINDS)
    pattern = rf"({kinds})(?: in a\w? \w+ shirt)? (?:to the )?"
    pattern += rf"(left of|right of|in front of|behind|next to|above) (?:[a-z ]*?)({kinds})\b"
    for first, relation, second in re.findall(pattern, caption):
        holds = False
        for a in np.flatnonzero(scene["kind"] == toyscenes.KINDS.index(first)):
            # The noun of a pine is "pine tree", and the pattern stops at "pine".
            for b in np.flatnonzero(scene["kind"] == toyscenes.KINDS.index(second)):
                across = scene["column"][a] - scene["column"][b]
                nearer = scene["depth"][a] - scene["depth"][b]
                holds |= {
                    "left of": across < 0,
                    "right of": across > 0,
                    "in front of": nearer > 0,
                    "behind": nearer < 0,
                    "next to": abs(across) == 1 and nearer == 0,
                    "above": across == 0 and a >= 3 > b,
                }[relation]
        assert holds or (first == "tree" and "pine tree" in caption), caption


def test_the_law_of_scenes() -> None:
    scene = ToyScenes().attributes(range(4000))
    ground, kind = scene["ground"], scene["kind"]
    count = (kind >= 0).sum(axis=1)
    assert count.min() == 2
    assert count.max() == 4
    afloat = np.isin(kind, [toyscenes.KINDS.index(name) for name in ("boat", "duck")]).any(axis=1)
    assert np.all(ground[afloat] == scenes.WATER)
    sun = (kind == toyscenes.KINDS.index("sun")).any(axis=1)
    moon = (kind == toyscenes.KINDS.index("moon")).any(axis=1)
    assert not np.any(sun & (scene["sky"] == scenes.NIGHT))
    assert not np.any(moon & (scene["sky"] == scenes.DAY))
    assert not np.any(sun & moon)


def test_objects_lie_where_their_columns_say() -> None:
    toy = ToyScenes()
    scene = toy.attributes(range(500))
    x, y = (toy.looks(range(500), scene)[name] for name in ("x", "y"))
    for a in range(3):
        for b in range(3):
            left = scene["column"][:, a] < scene["column"][:, b]
            assert np.all(x[left, a] < x[left, b])
    assert np.all(y[:, 3:].max(axis=1) < 0.3)


def test_world_relations_hold_for_every_primitive() -> None:
    world = ToyWorld().attributes(range(300))
    for row in range(300):
        one = {name: values[row] for name, values in world.items()}
        found = toyworld.groups(one)
        shown = [slot for group in found for slot in group]
        assert shown == list(np.flatnonzero(one["kind"] >= 0))
        for a in found[:1]:
            for b in found[1:]:
                for relation in toyworld.relations(one, a, b):
                    axis = "x" if relation in ("left of", "right of") else "y"
                    gap = one[axis][list(a)][:, None] - one[axis][list(b)][None, :]
                    assert np.all(gap < 0 if relation in ("left of", "above") else gap > 0)


def test_twins_mirror_each_other() -> None:
    toy = ToyWorld()
    world = toy.attributes(range(500))
    looks = toy.looks(range(500), world)
    rows, slots = np.nonzero(world["twin"])
    assert len(rows) > 50
    np.testing.assert_allclose(world["x"][rows, slots] + world["x"][rows, slots + 1], 1)
    np.testing.assert_array_equal(looks["rgb"][rows, slots], looks["rgb"][rows, slots + 1])


def test_check_draws_what_is_not_on_disk_and_shows_progress(tmp_path: Path) -> None:
    seen: list[str] = []

    def progress(steps: Iterable[int], label: str) -> Iterable[int]:
        seen.append(label)
        return steps

    dataset = ToyFaces(private_records=5, evaluation_records=4, cache_dir=str(tmp_path))
    dataset.check(progress)
    assert seen == ["drawing toyfaces"] * 2  # the private and the evaluation side
    dataset.check(progress)
    dataset.private()
    assert len(dataset.evaluation()) == 4
    assert len(seen) == 2
