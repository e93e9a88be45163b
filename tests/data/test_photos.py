"""Loaders of real photographs, on small folders in the published layouts and on real ones.

The real folders are looked for in ``../shared/real`` beside the checkout; where they are
absent those tests skip and say so.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from photo_folders import (
    BLUE,
    COCO_IDS,
    GREEN,
    NOTES,
    REAL,
    RED,
    REPOSITORY,
    coco,
    colour,
    columns_of,
    edit_notes,
    refused,
    save,
    shown,
)
from PIL import Image

from wavedp.data import cache as caches
from wavedp.data.cache import Picture, load_pixels
from wavedp.data.schema import Dataset, PublicDataset
from wavedp.data.stored import File
from wavedp.dp.errors import UserError
from wavedp.dp.private import open_columns

# Decoding.


def decode(path: Path, resolution: int) -> np.ndarray:
    return load_pixels(Picture(path.name, File(path)), resolution, path.parent)


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


def no_decoding(*_: Any) -> np.ndarray:
    raise AssertionError("decoded although the cache is good")


def test_the_cache_is_used_again_and_memory_mapped(
    coco_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = coco(coco_root, tmp_path)
    first.check()
    monkeypatch.setattr(caches, "decode", no_decoding)
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
    left = {p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()}
    name = "coco_test-1-4px-private"
    assert left == {"README.txt", f"{name}.partial", f"{name}.journal"}


def test_a_crash_between_images_and_stamp_is_not_taken_for_a_cache(
    coco_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = coco_root / "val2017/000000001000.jpg"
    coco(coco_root, tmp_path).check()
    original, status = file.read_bytes(), file.stat()
    save(file, 77)
    replace = caches.ImageCache._replace

    def crash_at_stamp(self: Any, target: Path, text: str) -> None:
        if target.suffix == ".json":
            raise KeyboardInterrupt
        replace(self, target, text)

    monkeypatch.setattr(caches.ImageCache, "_replace", crash_at_stamp)
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


class CaptionLengths:
    """A mapped function that counts its calls."""

    key, calls = "caption lengths", 0

    def __call__(self, columns: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        self.calls += 1
        return {"lengths": torch.tensor([len(" ".join(own)) for own in columns["captions"]])}


def test_what_is_mapped_is_kept_until_an_image_or_a_caption_changes(
    coco_root: Path, tmp_path: Path
) -> None:
    lengths = CaptionLengths()

    def total() -> int:
        mapped = coco(coco_root, tmp_path).private().map(lengths)
        return int(open_columns(mapped)["lengths"].sum())

    before = total()
    assert (total(), lengths.calls) == (before, 1)
    edit_notes(coco_root, lambda notes: notes["annotations"][1].update(caption="a longer one"))
    assert total() != before
    assert lengths.calls == 2
    os.utime(coco_root / NOTES, ns=(1, 1))
    total()
    assert lengths.calls == 3


def test_a_cache_that_cannot_be_written_is_one_sentence(coco_root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(
        coco(coco_root, tmp_path, cache_dir=tmp_path / "file"), "cannot be written", "cache_dir"
    )


def test_decoding_shows_progress_and_only_where_there_is_something_to_decode(
    coco_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "BLOCK", 3)
    seen: list[tuple[str, int]] = []

    def progress(steps: Iterable[int], label: str) -> Iterable[int]:
        seen.extend((label, step) for step in steps)
        return steps

    dataset = coco(coco_root, tmp_path)
    for _ in range(2):
        dataset.check(progress)
    decoded = [step for label, step in seen if label == "decoding photographs"]
    assert decoded == [0, 3, 0]
    assert shown(columns_of(dataset.private())["images"]) == [colour(i) for i in COCO_IDS[:4]]


# The configs.


def configured(name: str, tmp_path: Path, **changes: Any) -> Any:
    file = REPOSITORY / "configs/dataset" / f"{name}.yaml"
    options = OmegaConf.merge(OmegaConf.load(file), changes)
    return instantiate(OmegaConf.create({"cache_dir": str(tmp_path), "dataset": options})).dataset


PHOTOS = [file.stem for file in (REPOSITORY / "configs/dataset").glob("[!t]*.yaml")]


@pytest.mark.parametrize("name", PHOTOS)
def test_a_config_without_root_says_which_folder_to_give(tmp_path: Path, name: str) -> None:
    dataset = configured(name, tmp_path)
    assert isinstance(dataset, Dataset | PublicDataset)
    assert dataset.name == name
    refused(
        dataset, "dataset.root is not set", "the folder that holds", f"dataset.root=/data/{name}"
    )
    lost = configured(name, tmp_path, root=str(tmp_path / "lost"))
    refused(lost, f"dataset.root={tmp_path / 'lost'} is not a folder")


@pytest.mark.parametrize("name", PHOTOS)
def test_a_config_starts_with_source_and_terms(name: str) -> None:
    text = (REPOSITORY / "configs/dataset" / f"{name}.yaml").read_text()
    comment = re.match(r"(#.*\n)+", text)
    assert comment is not None
    assert "Source: https://" in comment.group()
    assert "Terms: " in comment.group()


@pytest.mark.parametrize(
    ("name", "sizes", "resolution"),
    [
        ("coco2014", (82_783, 40_504), 256),
        ("coco2017", (118_287, 5_000), 256),
        ("mmcelebahq", (24_000, 6_000), 256),
        ("mmcelebahq64", (22_000, 2_000), 32),
    ],
)
def test_the_published_sizes_are_declared(
    tmp_path: Path, name: str, sizes: tuple[int, int], resolution: int
) -> None:
    dataset = configured(name, tmp_path)
    assert (dataset.private_records, dataset.evaluation_records) == sizes
    assert dataset.resolution == resolution


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
