"""The parquet loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import image_bytes, parquet, public_parquet, write_parquet
from photo_folders import REAL, colour, columns_of, refused, shown

from wavedp.data.schema import Dataset, PublicDataset


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Three and two private rows in two files, two for evaluation."""
    root = tmp_path / "tables"
    for name, numbers in (("train-0", [0, 1, 2]), ("train-1", [3, 4]), ("test", [5, 6])):
        texts = [f" says  {number}" for number in numbers]
        write_parquet(root / f"{name}.parquet", [image_bytes(n) for n in numbers], texts)
    return root


def test_rows_keep_their_order_over_files_and_row_groups(tables: Path, tmp_path: Path) -> None:
    dataset = parquet(tables, tmp_path)
    assert isinstance(dataset, Dataset)
    dataset.check()
    columns = columns_of(dataset.private())
    assert shown(columns["images"]) == [colour(i) for i in range(5)]
    assert columns["captions"] == [(f"says {i}",) for i in range(5)]
    assert shown(dataset.evaluation().images) == [colour(5), colour(6)]
    refused(parquet(tables, tmp_path, private_records=6), "private_records=6", "lists 5")


def test_images_in_structs_and_lists_of_captions(tmp_path: Path) -> None:
    cells = [{"bytes": image_bytes(n), "path": f"../{n}.png"} for n in range(3)]
    texts: list[Any] = [["one", " ", "two"], ["three"], ["four"]]
    write_parquet(tmp_path / "tables/x.parquet", cells, texts)
    corpus = public_parquet(tmp_path / "tables", tmp_path)
    assert isinstance(corpus, PublicDataset)
    records = corpus.records(0, 3)
    assert shown(records.images) == [colour(i) for i in range(3)]
    assert records.captions == [("one", "two"), ("three",), ("four",)]


def test_labels_become_captions(tmp_path: Path) -> None:
    images = [image_bytes(n) for n in range(3)]
    write_parquet(tmp_path / "t/x.parquet", images, ["cat", "red panda", "dog"], text="label")
    corpus = public_parquet(tmp_path / "t", tmp_path, text="label", template="a photo of a {label}")
    assert corpus.records(1, 2).captions == [("a photo of a red panda",)]


LABELS = ["cat", "red panda", "dog", "cat", "horse", "dog", "cat"]


def test_rows_of_some_labels_alone_are_records(tmp_path: Path) -> None:
    """Both sides count among those, whatever row group they are in."""
    images = [image_bytes(n) for n in range(len(LABELS))]
    write_parquet(tmp_path / "t/x.parquet", images, LABELS)
    given = {"private": {"files": "x.parquet"}, "evaluation": {"files": "x.parquet", "start": 3}}
    sizes = {"private_records": 3, "evaluation_records": 2}
    made = parquet(tmp_path / "t", tmp_path, **given, **sizes, only=["cat", "dog"])
    made.check()
    columns = columns_of(made.private())
    assert shown(columns["images"]) == [colour(0), colour(2), colour(3)]
    assert columns["captions"] == [("cat",), ("dog",), ("cat",)]
    assert made.evaluation().captions == [("dog",), ("cat",)]
    few = parquet(tmp_path / "t", tmp_path, **given, **sizes, only=["horse"])
    refused(few, "private_records=3", "x.parquet, text horse lists 1 records")
    for none in ("cat", []):
        wrong = parquet(tmp_path / "t", tmp_path, **given, **sizes, only=none)
        refused(wrong, "dataset.only", "must be a list of texts")


def test_only_the_declared_rows_are_indexed(tables: Path, tmp_path: Path) -> None:
    (tables / "train-1.parquet").write_bytes(b"junk")
    corpus = public_parquet(tables, tmp_path, files="train-*.parquet")
    assert len(corpus.records(0, 3)) == 3
    more = public_parquet(tables, tmp_path, files="train-*.parquet", public_records=4)
    refused(more, "train-1.parquet cannot be read as parquet")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": "jpeg"}, ("jpeg", "dataset.image", "image, text")),
        ({"text": "label"}, ("label", "dataset.text")),
        ({"private": {"files": "../*.parquet"}}, ("not a path below",)),
        ({"private": {"files": "none.parquet"}}, ("has no file none.parquet",)),
        ({"template": "x"}, ("dataset.template",)),
    ],
)
def test_wrong_settings_are_named(
    tables: Path, tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    refused(parquet(tables, tmp_path, **changes), *words)


@pytest.mark.parametrize("cell", [None, b"", b"junk", {"path": "x"}])
def test_a_cell_without_an_image_is_named(tmp_path: Path, cell: Any) -> None:
    good = {"bytes": image_bytes(1)} if isinstance(cell, dict) else image_bytes(1)
    write_parquet(tmp_path / "t/x.parquet", [good, cell, good], ["a", "b", "c"])
    refused(public_parquet(tmp_path / "t", tmp_path), "x.parquet/1 cannot be decoded")


def test_a_damaged_file_is_refused_wherever_it_is_damaged(tables: Path, tmp_path: Path) -> None:
    """Cut, or with any byte changed: never a traceback."""
    file = tables / "train-0.parquet"
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    for trial in range(150):
        content = bytearray(whole)
        place = int(rng.integers(len(whole)))
        if trial % 3:
            content[place] ^= int(rng.integers(1, 256))
        else:
            del content[place:]
        file.write_bytes(content)
        found: list[Any] = []
        photos = parquet(tables, tmp_path).survey(found.append)
        for photo in [photo for side in photos.values() for photo in side]:
            try:
                photo.image.read()
            except OSError:
                found.append(photo)
        assert found or trial % 3  # a cut is always found


@pytest.mark.parametrize("name", ["cifar10_train", "imagenet_sample1000"])
def test_real_corpora(tmp_path: Path, name: str) -> None:
    if not (REAL / "public").is_dir():
        pytest.skip("real corpora ../shared/real/public are not on this machine")
    settings = {"files": f"{name}.parquet", "image": "jpeg", "text": "label", "resolution": 32}
    template = "a photo of a {label}"
    corpus = public_parquet(REAL / "public", tmp_path, template=template, **settings)
    corpus.check()
    records = corpus.records(0, 3)
    assert records.images.shape == (3, 3, 32, 32)
    first = {"cifar10_train": "bird", "imagenet_sample1000": "tench"}[name]
    assert records.captions[0] == (f"a photo of a {first}",)
