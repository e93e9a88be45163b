"""Loaders of real photographs, on small folders in the published layouts and on real ones.

The real folders are looked for in ``../shared/real`` beside the checkout; where they are
absent those tests skip and say so.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from wavedp.data import photos
from wavedp.data.coco import Coco
from wavedp.data.mmcelebahq import MMCelebAHQ, read_split
from wavedp.data.photos import decode
from wavedp.data.schema import Dataset
from wavedp.dp.errors import UserError
from wavedp.dp.private import PrivateRecords, open_columns

REPOSITORY = Path(__file__).parents[2]
REAL = REPOSITORY.parent / "shared" / "real"
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
COCO_IDS = [9, 10, 25, 100, 1000, 4000]  # as text they would sort 10, 100, 1000, 25, 4000, 9
IMAGE_FOLDERS = ["image/images", "CelebAMask-HQ/CelebA-HQ-img"]
NOTES = "annotations/captions_val2017.json"


def colour(number: int) -> tuple[int, int, int]:
    """A colour that tells records apart after decoding."""
    return (number * 37 % 256, number * 91 % 256, number * 53 % 256)


def save(path: Path, number: int, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour(number)).save(path, format="PNG")  # exact, whatever the ending


def columns_of(private: PrivateRecords) -> Mapping[str, Any]:
    """What a mapped function is shown; the fixtures fit into one chunk."""
    seen: list[Mapping[str, Any]] = []

    def look(columns: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        seen.append(columns)
        return {"x": torch.zeros(len(columns["images"]))}

    private.map(look)
    (columns,) = seen
    return columns


def shown(images: np.ndarray) -> list[tuple[int, ...]]:
    """The colour of every (uniform) image."""
    assert (images == images[:, :, :1, :1]).all()
    return [tuple(int(v) for v in image[:, 0, 0]) for image in images]


def refused(dataset: Dataset, *words: str) -> None:
    """``check`` refuses with one sentence that has all the words."""
    with pytest.raises(UserError) as caught:
        dataset.check()
    for word in words:
        assert word in str(caught.value)


@pytest.fixture
def coco_root(tmp_path: Path) -> Path:
    root = tmp_path / "coco"
    for number in COCO_IDS:
        save(root / f"val2017/{number:012d}.jpg", number)
    scrambled = [1000, 10, 4000, 9, 100, 25]
    content = {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "license": 4} for i in scrambled],
        "annotations": [
            {"id": 7 * i + k, "image_id": i, "caption": f" Photo\t{i},  take {k}.\n"}
            for k in range(2)
            for i in scrambled
        ],
    }
    content["annotations"].append({"id": 1, "image_id": 9, "caption": " \n"})
    write_json(root / NOTES, content)
    return root


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_notes(root: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((root / NOTES).read_text())
    edit(content)
    write_json(root / NOTES, content)


def coco(root: Path | None, tmp_path: Path, **changes: Any) -> Coco:
    settings: dict[str, Any] = {
        "root": root,
        "private": {"images": "val2017", "annotations": NOTES, "start": 0},
        "evaluation": {"images": "val2017", "annotations": NOTES, "start": 4},
        "private_records": 4,
        "evaluation_records": 2,
        "resolution": 4,
        "name": "coco_test",
        "version": "1",
        "cache_dir": tmp_path / "cache",
    }
    return Coco(**{**settings, **changes})


@pytest.fixture(params=IMAGE_FOLDERS)
def face_root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root = tmp_path / "faces"
    for number in range(6):
        save(root / request.param / f"{number}.jpg", number)
        text = root / f"text/celeba-caption/{number}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("".join(f"Face {number},  line {k}.\r\n" for k in range(10)) + "\n")
    split(root, "train", ["0", "3", "1", "2"])
    split(root, "test", ["5", "4"])
    return root


def split(root: Path, side: str, ids: Any) -> Path:
    path = root / side / "filenames.pickle"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(ids, protocol=2))
    return path


def faces(root: Path | None, tmp_path: Path, **changes: Any) -> MMCelebAHQ:
    settings: dict[str, Any] = {
        "root": root,
        "private_records": 4,
        "evaluation_records": 2,
        "resolution": 4,
        "name": "faces_test",
        "version": "1",
        "cache_dir": tmp_path / "cache",
    }
    return MMCelebAHQ(**{**settings, **changes})


# Decoding.


def stripes(path: Path, colours: list[tuple[int, int, int]], **options: Any) -> Path:
    """Squares of 8 px side by side."""
    image = Image.new("RGB", (8 * len(colours), 8))
    for k, value in enumerate(colours):
        image.paste(value, (8 * k, 0, 8 * k + 8, 8))
    image.save(path, **options)
    return path


def test_decode_keeps_the_centre_square_and_channel_order(tmp_path: Path) -> None:
    image = decode(stripes(tmp_path / "wide.png", [GREEN, RED, BLUE]), 4)
    assert image.shape == (3, 4, 4)
    assert image.dtype == np.uint8
    assert (image[0] == 255).all()  # nothing of green or blue bleeds in from outside the crop
    assert (image[1:] == 0).all()


def test_decode_applies_the_exif_orientation_before_cropping(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: turn by 90 degrees clockwise to view
    path = stripes(tmp_path / "turned.png", [RED, BLUE], exif=exif)
    upright = np.asarray(Image.open(path).transpose(Image.Transpose.ROTATE_270))  # [16, 8, 3]
    assert upright[0, 0].tolist() == [255, 0, 0]
    image = decode(path, 8)
    assert image.transpose(1, 2, 0).tolist() == upright[4:12].tolist()


def test_decode_resizes_with_lanczos(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    lanczos = Image.fromarray(noise).resize((8, 8), Image.Resampling.LANCZOS)
    assert (decode(tmp_path / "noise.png", 8).transpose(1, 2, 0) == np.asarray(lanczos)).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_decode_converts_every_mode_to_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.tiff"
    Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(path)
    assert (decode(path, 4) == 255).all()


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "folder", "absent"])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "000000000042.jpg"
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, format="JPEG")
    content = {"truncated": whole.getvalue()[:-500], "empty": b"", "text": b"<html>not found"}
    if damage in content:
        path.write_bytes(content[damage])
    elif damage == "folder":
        path.mkdir()
    with pytest.raises(UserError, match=r"000000000042\.jpg cannot be decoded.* copy this file"):
        decode(path, 8)


# The cache.


def no_decoding(path: Path, resolution: int) -> np.ndarray:
    raise AssertionError("decoded although the cache is good")


def test_the_cache_is_used_again_and_memory_mapped(
    coco_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = coco(coco_root, tmp_path)
    first.check()
    monkeypatch.setattr(photos, "decode", no_decoding)
    first.check()
    again = coco(coco_root, tmp_path).evaluation().images
    assert isinstance(again, np.memmap)
    assert not again.flags.writeable
    assert shown(again) == [colour(1000), colour(4000)]
    with pytest.raises(AssertionError, match="decoded although"):
        coco(coco_root, tmp_path, resolution=8).check()


@pytest.mark.parametrize("changed", ["time", "size"])
def test_the_cache_notices_a_changed_folder(coco_root: Path, tmp_path: Path, changed: str) -> None:
    coco(coco_root, tmp_path).check()
    file = coco_root / "val2017/000000000010.jpg"
    before = file.stat()
    save(file, 77, size=(12, 10) if changed == "time" else (40, 30))
    assert (file.stat().st_size == before.st_size) == (changed == "time")
    os.utime(file, ns=(1, 1) if changed == "time" else (before.st_atime_ns, before.st_mtime_ns))
    images = columns_of(coco(coco_root, tmp_path).private())["images"]
    assert shown(images) == [colour(9), colour(77), colour(25), colour(100)]


def test_the_cache_notices_a_changed_declaration(coco_root: Path, tmp_path: Path) -> None:
    coco(coco_root, tmp_path).check()
    swapped = coco(
        coco_root,
        tmp_path,
        private={"images": "val2017", "annotations": NOTES, "start": 1},
        private_records=3,
    )
    assert shown(columns_of(swapped.private())["images"]) == [colour(10), colour(25), colour(100)]


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "other shape"])
def test_a_damaged_cache_is_built_anew(coco_root: Path, tmp_path: Path, damage: str) -> None:
    coco(coco_root, tmp_path).check()
    (file,) = (tmp_path / "cache").rglob("*evaluation.npy")
    whole = file.read_bytes()
    np.save(file, np.zeros((2, 3, 8, 8), np.uint8))
    content = {"cut": whole[:-1], "empty": b"", "noise": b"noise" * 99}
    file.write_bytes(content.get(damage, file.read_bytes()))
    images = coco(coco_root, tmp_path).evaluation().images
    assert shown(images) == [colour(1000), colour(4000)]


def test_a_failed_build_leaves_nothing_that_passes_for_a_cache(
    coco_root: Path, tmp_path: Path
) -> None:
    (coco_root / "val2017/000000000100.jpg").write_bytes(b"")
    refused(coco(coco_root, tmp_path), "000000000100.jpg", "cannot be decoded")
    assert [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()] == ["README.txt"]


def test_a_crash_between_images_and_stamp_is_not_taken_for_a_cache(
    coco_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = coco_root / "val2017/000000001000.jpg"
    coco(coco_root, tmp_path).check()
    original, status = file.read_bytes(), file.stat()
    save(file, 77)
    replace = photos._replace

    def crash_at_stamp(target: Path, parts: Any) -> None:
        if target.suffix == ".json":
            raise KeyboardInterrupt
        replace(target, parts)

    monkeypatch.setattr(photos, "_replace", crash_at_stamp)
    with pytest.raises(KeyboardInterrupt):
        coco(coco_root, tmp_path).check()
    monkeypatch.undo()
    file.write_bytes(original)  # the folder is as it was for the first cache
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    images = coco(coco_root, tmp_path).evaluation().images
    assert shown(images) == [colour(1000), colour(4000)]


def test_private_data_stays_in_the_private_folder(coco_root: Path, tmp_path: Path) -> None:
    coco(coco_root, tmp_path).check()
    cache = tmp_path / "cache/photos"
    kept = {str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file()}
    assert kept == {
        "private/README.txt",
        "private/coco_test-1-4px-private.npy",
        "private/coco_test-1-4px-private.json",
        "evaluation/coco_test-1-4px-evaluation.npy",
        "evaluation/coco_test-1-4px-evaluation.json",
    }
    assert "PRIVATE" in (cache / "private/README.txt").read_text()
    assert cache.joinpath("private").stat().st_mode & 0o077 == 0
    outside = [cache / name for name in kept if name.startswith("evaluation")]
    before = {path: path.read_bytes() for path in outside}
    save(coco_root / "val2017/000000000009.jpg", 55, size=(30, 30))  # a private photograph
    coco(coco_root, tmp_path).check()
    assert {path: path.read_bytes() for path in outside} == before


def test_tokens_are_kept_until_an_image_or_a_caption_changes(
    coco_root: Path, tmp_path: Path
) -> None:
    calls = 0

    def count(columns: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        lengths = torch.tensor([len(" ".join(own)) for own in columns["captions"]])
        return {"lengths": lengths}

    def total() -> int:
        mapped = coco(coco_root, tmp_path).private().map(count, key="lengths")
        return int(open_columns(mapped)["lengths"].sum())

    before = total()
    assert (total(), calls) == (before, 1)
    edit_notes(coco_root, lambda notes: notes["annotations"][1].update(caption="a longer one"))
    assert total() != before
    assert calls == 2
    os.utime(coco_root / NOTES, ns=(1, 1))
    total()
    assert calls == 3


def test_a_cache_that_cannot_be_written_is_one_sentence(coco_root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(
        coco(coco_root, tmp_path, cache_dir=tmp_path / "file"), "cannot be written", "cache_dir"
    )


def test_decoding_shows_progress_and_only_where_there_is_something_to_decode(
    coco_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "_CHUNK", 3)
    seen: list[tuple[str, int]] = []

    def progress(steps: Iterable[int], label: str) -> Iterable[int]:
        seen.extend((label, step) for step in steps)
        return steps

    dataset = coco(coco_root, tmp_path)
    for _ in range(2):
        dataset.check(progress)
    assert seen == [("decoding photographs", step) for step in (0, 3, 0)]
    assert shown(columns_of(dataset.private())["images"]) == [colour(i) for i in COCO_IDS[:4]]


# COCO.


def test_coco_splits_by_numeric_id_and_cleans_captions(coco_root: Path, tmp_path: Path) -> None:
    dataset = coco(coco_root, tmp_path)
    assert isinstance(dataset, Dataset)
    assert dataset.redistributable is False
    dataset.check()
    private = dataset.private()
    assert private.records == 4
    columns = columns_of(private)
    assert shown(columns["images"]) == [colour(i) for i in (9, 10, 25, 100)]
    # Every caption, cleaned; the empty third one of image 9 is dropped.
    assert columns["captions"][0] == ("Photo 9, take 0.", "Photo 9, take 1.")
    evaluation = dataset.evaluation()
    assert shown(evaluation.images) == [colour(1000), colour(4000)]
    assert evaluation.captions[1] == ("Photo 4000, take 0.", "Photo 4000, take 1.")


def test_coco_reads_the_published_pair_of_files(coco_root: Path, tmp_path: Path) -> None:
    for number in (3, 5):
        save(coco_root / f"train2017/{number:012d}.jpg", number)
    content = {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg"} for i in (5, 3)],
        "annotations": [{"id": i, "image_id": i, "caption": str(i)} for i in (5, 3)],
    }
    train = "annotations/captions_train2017.json"
    write_json(coco_root / train, content)
    settings: dict[str, Any] = {
        "private": {"images": "train2017", "annotations": train},
        "evaluation": {"images": "val2017", "annotations": NOTES},
        "private_records": 2,
    }
    dataset = coco(coco_root, tmp_path, **settings)
    dataset.check()
    assert shown(columns_of(dataset.private())["images"]) == [colour(3), colour(5)]
    assert shown(dataset.evaluation().images) == [colour(9), colour(10)]
    # train2017 with val2014: the same photograph under the same id on both sides.
    content["images"][0]["id"] = content["annotations"][0]["image_id"] = 9
    write_json(coco_root / train, content)
    refused(coco(coco_root, tmp_path, **settings), "record 9", "private", "evaluation")


def test_coco_tolerates_a_byte_order_mark(coco_root: Path, tmp_path: Path) -> None:
    text = (coco_root / NOTES).read_text()
    (coco_root / NOTES).write_text(text, encoding="utf-8-sig")
    coco(coco_root, tmp_path).check()


def test_coco_refuses_overlapping_sides(coco_root: Path, tmp_path: Path) -> None:
    refused(coco(coco_root, tmp_path, private_records=5), "record 1000", "counts once")


def test_coco_refuses_fewer_records_than_declared(coco_root: Path, tmp_path: Path) -> None:
    refused(coco(coco_root, tmp_path, private_records=7), "dataset.private_records=7", "lists 6")
    refused(coco(coco_root, tmp_path, evaluation_records=3), "dataset.evaluation_records=3", "4 on")


def test_coco_counts_missing_images_and_names_the_first(coco_root: Path, tmp_path: Path) -> None:
    for number in (25, 100):
        (coco_root / f"val2017/{number:012d}.jpg").unlink()
    refused(coco(coco_root, tmp_path), "2 of 4 private images", "val2017/000000000025.jpg")
    assert not (tmp_path / "cache").exists()  # refused before anything is decoded


def test_check_reads_the_folder_afresh(coco_root: Path, tmp_path: Path) -> None:
    dataset = coco(coco_root, tmp_path)
    dataset.check()
    (coco_root / "val2017/000000004000.jpg").unlink()
    refused(dataset, "1 of 2 evaluation images")


def test_coco_names_the_first_image_without_captions(coco_root: Path, tmp_path: Path) -> None:
    def drop(content: dict[str, Any]) -> None:
        kept = [note for note in content["annotations"] if note["image_id"] != 4000]
        content["annotations"] = kept

    edit_notes(coco_root, drop)
    refused(coco(coco_root, tmp_path), "1 of 2 evaluation images", "000000004000.jpg", NOTES)


@pytest.mark.parametrize(
    "name", ["../x.jpg", "/etc/x.jpg", "sub/x.jpg", "..\\x.jpg", "..", "", "a\0.jpg", 7, None]
)
def test_coco_refuses_file_names_that_leave_the_folder(
    coco_root: Path, tmp_path: Path, name: Any
) -> None:
    save(coco_root / "x.jpg", 1)  # so that only the refusal keeps it from being read
    edit_notes(coco_root, lambda content: content["images"][0].update(file_name=name))
    refused(coco(coco_root, tmp_path), "image 1000 is not a plain file name")


@pytest.mark.parametrize("change", [{"id": 9}, {"file_name": "000000000009.jpg"}])
def test_coco_refuses_a_record_listed_twice(
    coco_root: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    edit_notes(coco_root, lambda content: content["images"][0].update(change))
    refused(coco(coco_root, tmp_path), "twice")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"images": [', "not valid JSON"),
        (b"[]", "not a COCO caption file"),
        (b'{"images": [{"id": 1}], "annotations": []}', "not a COCO caption file"),
        (b'{"images": [], "annotations": [{"image_id": 1, "caption": null}]}', "not a COCO"),
        (b'{"images": "\xff"}', "not UTF-8"),
        (None, "is missing"),
    ],
)
def test_coco_refuses_a_bad_annotation_file(
    coco_root: Path, tmp_path: Path, content: bytes | None, words: str
) -> None:
    (coco_root / NOTES).unlink()
    if content is not None:
        (coco_root / NOTES).write_bytes(content)
    refused(coco(coco_root, tmp_path), str(coco_root / NOTES), words)


def test_coco_refuses_unknown_settings_of_a_side(coco_root: Path, tmp_path: Path) -> None:
    extra = {"images": "val2017", "annotations": NOTES, "stop": 2}
    refused(coco(coco_root, tmp_path, private=extra), "dataset.private", "stop")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("private_records", 0), ("resolution", 32.5), ("name", "../x"), ("version", "a b")],
)
def test_bad_settings_are_named(coco_root: Path, tmp_path: Path, setting: str, value: Any) -> None:
    refused(coco(coco_root, tmp_path, **{setting: value}), f"dataset.{setting}=")


# MM-CelebA-HQ.


def test_faces_follow_the_split_files(face_root: Path, tmp_path: Path) -> None:
    dataset = faces(face_root, tmp_path)
    assert isinstance(dataset, Dataset)
    assert dataset.redistributable is False
    dataset.check()
    columns = columns_of(dataset.private())
    assert shown(columns["images"]) == [colour(i) for i in (0, 3, 1, 2)]
    assert columns["captions"][1] == tuple(f"Face 3, line {k}." for k in range(10))
    evaluation = dataset.evaluation()
    assert shown(evaluation.images) == [colour(5), colour(4)]
    assert evaluation.captions[0][9] == "Face 5, line 9."


def test_faces_use_the_declared_number_not_the_files(face_root: Path, tmp_path: Path) -> None:
    dataset = faces(face_root, tmp_path, private_records=3, evaluation_records=1)
    dataset.check()
    assert shown(columns_of(dataset.private())["images"]) == [colour(i) for i in (0, 3, 1)]
    assert len(dataset.evaluation()) == 1
    refused(faces(face_root, tmp_path, private_records=5), "private_records=5", "lists 4")


@pytest.mark.parametrize("declared", [(4, 2), (2, 1)])
def test_swapped_split_files_are_refused(
    face_root: Path, tmp_path: Path, declared: tuple[int, int]
) -> None:
    split(face_root, "train", ["5", "4"])
    split(face_root, "test", ["0", "3", "1", "2"])
    private, evaluation = declared
    dataset = faces(face_root, tmp_path, private_records=private, evaluation_records=evaluation)
    refused(dataset, "look swapped", "lists 2", "lists 4")


def test_a_config_with_the_two_numbers_exchanged_is_refused(
    face_root: Path, tmp_path: Path
) -> None:
    dataset = faces(face_root, tmp_path, private_records=2, evaluation_records=4)
    refused(dataset, "look swapped", "lists 4", "lists 2")


def test_a_small_train_side_that_is_declared_is_not_taken_for_swapped(
    face_root: Path, tmp_path: Path
) -> None:
    split(face_root, "train", ["5", "4"])
    split(face_root, "test", ["0", "3", "1"])
    faces(face_root, tmp_path, private_records=2, evaluation_records=3).check()


class Trap:
    """Pickles into a call that leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def test_a_pickle_that_runs_code_is_refused_unrun(face_root: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = split(face_root, "train", ["0", Trap(trace)])
    pickle.loads(path.read_bytes())
    trace.rmdir()  # the trap works where nothing stops it: raises if it did not
    refused(faces(face_root, tmp_path), "train/filenames.pickle", "mkdir", "do not trust")
    assert not trace.exists()


@pytest.mark.parametrize("ids", [["../0"], ["0.jpg"], [0], ("0",), {"0": 1}, [["0"]], "0", ["٣"]])
def test_a_split_that_is_not_a_list_of_ids_is_refused(tmp_path: Path, ids: Any) -> None:
    with pytest.raises(UserError, match="not a list of image ids"):
        read_split(split(tmp_path, "train", ids))


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps(["0"])[:-4], b"\x80\x05].", b"."])
def test_a_damaged_split_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "filenames.pickle"
    path.write_bytes(content)
    if content == b"\x80\x05].":  # a sound pickle of an empty list: short, but not damaged
        assert read_split(path) == []
        return
    with pytest.raises(UserError, match=r"filenames\.pickle is not a valid pickle"):
        read_split(path)


def test_an_id_listed_twice_or_on_both_sides_is_refused(face_root: Path, tmp_path: Path) -> None:
    split(face_root, "train", ["0", "1", "1", "2"])
    refused(faces(face_root, tmp_path), "train/filenames.pickle lists an id twice")
    split(face_root, "train", ["0", "1", "2", "4"])
    refused(faces(face_root, tmp_path), "record 4", "private", "evaluation")


def test_faces_name_what_a_half_copied_folder_lacks(face_root: Path, tmp_path: Path) -> None:
    (face_root / "text/celeba-caption/3.txt").unlink()
    (face_root / "text/celeba-caption/1.txt").write_text(" \n\n")
    refused(faces(face_root, tmp_path), "2 of 4 private", "text/celeba-caption/3.txt")


def test_faces_refuse_captions_that_are_not_utf8(face_root: Path, tmp_path: Path) -> None:
    (face_root / "text/celeba-caption/3.txt").write_bytes("visage rasé".encode("latin-1"))
    refused(faces(face_root, tmp_path), "text/celeba-caption/3.txt is not UTF-8")


def test_faces_refuse_a_folder_without_images_or_split(face_root: Path, tmp_path: Path) -> None:
    for folder in IMAGE_FOLDERS:
        if (face_root / folder).exists():
            (face_root / folder).rename(tmp_path / "elsewhere")
    refused(faces(face_root, tmp_path), *IMAGE_FOLDERS)
    (face_root / "test/filenames.pickle").unlink()
    refused(faces(face_root, tmp_path), "test/filenames.pickle cannot be read")


# The configs.


def configured(name: str, tmp_path: Path, **changes: Any) -> Any:
    file = REPOSITORY / "configs/dataset" / f"{name}.yaml"
    options = OmegaConf.merge(OmegaConf.load(file), changes)
    return instantiate(OmegaConf.create({"cache_dir": str(tmp_path), "dataset": options})).dataset


@pytest.mark.parametrize("name", ["coco_mini", "mmcelebahq64"])
def test_a_config_without_root_says_which_folder_to_give(tmp_path: Path, name: str) -> None:
    dataset = configured(name, tmp_path)
    assert isinstance(dataset, Dataset)
    assert dataset.name == name
    refused(
        dataset, "dataset.root is not set", "the folder that holds", f"dataset.root=/data/{name}"
    )
    lost = configured(name, tmp_path, root=str(tmp_path / "lost"))
    refused(lost, f"dataset.root={tmp_path / 'lost'} is not a folder")


@pytest.mark.parametrize("name", ["coco_mini", "mmcelebahq64"])
def test_a_config_starts_with_source_and_terms(name: str) -> None:
    text = (REPOSITORY / "configs/dataset" / f"{name}.yaml").read_text()
    comment = re.match(r"(#.*\n)+", text)
    assert comment is not None
    assert "Source: https://" in comment.group()
    assert "Terms: " in comment.group()


# Real photographs.


def real(name: str) -> str:
    if not (REAL / name).is_dir():
        pytest.skip(f"real photographs ../shared/real/{name} are not on this machine")
    return str(REAL / name)


@pytest.mark.parametrize("resolution", [32, 64])
def test_real_coco_mini(tmp_path: Path, resolution: int) -> None:
    root = real("coco_mini")
    dataset = configured("coco_mini", tmp_path, root=root, resolution=resolution)
    dataset.check()
    columns, evaluation = columns_of(dataset.private()), dataset.evaluation()
    assert columns["images"].shape == (100, 3, resolution, resolution)
    assert evaluation.images.shape == (22, 3, resolution, resolution)
    assert {len(texts) for texts in [*columns["captions"], *evaluation.captions]} == {5}
    # Image 257 is the smallest id but not the first in the file.
    assert columns["captions"][0][1] == "people standing besides a bus taking to each other"
    first = decode(Path(root) / "val2017/000000000257.jpg", resolution)
    assert (columns["images"][0] == first).all()


@pytest.mark.slow
def test_real_mmcelebahq64(tmp_path: Path) -> None:
    root = real("mmcelebahq64")
    dataset = configured("mmcelebahq64", tmp_path, root=root)
    dataset.check()
    assert dataset.private().records == 22_000
    evaluation = dataset.evaluation()
    assert evaluation.images.shape == (2_000, 3, 32, 32)
    assert {len(texts) for texts in evaluation.captions} == {dataset.captions_per_record}
    first = decode(Path(root) / "image/images/22000.jpg", 32)
    assert (evaluation.images[0] == first).all()
    # The folder with the two sides exchanged in the config is refused, not trained on.
    changes = {"private_records": 2_000, "evaluation_records": 22_000}
    refused(configured("mmcelebahq64", tmp_path, root=root, **changes), "look swapped")
