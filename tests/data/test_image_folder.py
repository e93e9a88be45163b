"""The image folder loader, in the layouts of the Hugging Face convention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpora import image_folder, public_folder
from photo_folders import colour, columns_of, refused, save, shown

from wavedp.data.names import is_inside
from wavedp.data.schema import Dataset, PublicDataset
from wavedp.dp.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three private and two evaluation images with a text file each."""
    root = tmp_path / "mine"
    for number, name in enumerate(["train/b", "train/a", "train/below/c", "test/x", "test/y"]):
        save(root / f"{name}.png", number)
        (root / f"{name}.txt").write_text(f"\ufeffFirst of  {name}\r\nsecond\n\n", encoding="utf-8")
    return root


def metadata(
    folder: Path, *rows: str, split: str = "train", header: str = "file_name,text"
) -> None:
    (folder / split / "metadata.csv").write_text("\n".join([header, *rows]), encoding="utf-8-sig")


def test_text_files_give_one_caption_per_line(folder: Path, tmp_path: Path) -> None:
    dataset = image_folder(folder, tmp_path)
    assert isinstance(dataset, Dataset)
    dataset.check()
    columns = columns_of(dataset.private())
    assert shown(columns["images"]) == [colour(i) for i in (1, 0, 2)]  # a, b, below/c
    assert columns["captions"][0] == ("First of train/a", "second")
    assert shown(dataset.evaluation().images) == [colour(3), colour(4)]


def test_metadata_rows_of_one_file_are_captions_of_one_record(folder: Path, tmp_path: Path) -> None:
    metadata(folder, 'b.png,"One, with a comma"', "a.png,two", "b.png,three", "below/c.png,four")
    columns = columns_of(image_folder(folder, tmp_path).private())
    assert columns["captions"] == [("two",), ("One, with a comma", "three"), ("four",)]
    assert len(columns["images"]) == 3


def test_the_caption_column_is_named(folder: Path, tmp_path: Path) -> None:
    for split, names in (("train", ["a", "b", "below/c"]), ("test", ["x", "y"])):
        rows = [f"{name}.png,7,said of {name}" for name in names]
        metadata(folder, *rows, split=split, header="file_name,id,caption")
    dataset = image_folder(folder, tmp_path, column="caption")
    assert dataset.evaluation().captions == [("said of x",), ("said of y",)]
    refused(image_folder(folder, tmp_path), "metadata.csv", "file_name, id, caption", "text")


def test_folder_names_become_captions_with_a_template(folder: Path, tmp_path: Path) -> None:
    for text in folder.rglob("*.txt"):
        text.unlink()
    for name in ("cat/1.jpg", "cat/2.jpg", "red panda/1.jpg"):
        save(folder / "classes" / name, len(name))
    corpus = public_folder(folder / "classes", tmp_path, template="a photo of a {label}")
    assert isinstance(corpus, PublicDataset)
    assert not isinstance(corpus, Dataset)
    captions = corpus.records(0, 3).captions
    assert captions == [("a photo of a cat",)] * 2 + [("a photo of a red panda",)]
    assert shown(corpus.records(2, 3).images) == [colour(15)]
    with pytest.raises(UserError, match="raise public_records"):
        corpus.records(0, 4)
    refused(public_folder(folder, tmp_path, template="a photo"), "dataset.template", "{label}")


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    refused(image_folder(folder, tmp_path, private_records=4), "private_records=4", "lists 3")
    (folder / "train/a.txt").unlink()
    refused(image_folder(folder, tmp_path), "1 of 3 private images", "train/a.png", "train/a.txt")
    metadata(folder, "a.png,1", "b.png,2", "below/c.png,3", "below/d.png,4")
    refused(image_folder(folder, tmp_path, private_records=4), "missing", "below/d.png")
    refused(image_folder(folder, tmp_path, evaluation={"folder": "val"}), "val is not a folder")
    refused(image_folder(folder, tmp_path, evaluation={"dir": "val"}), "needs folder", "dir")


def test_one_folder_on_both_sides_needs_disjoint_positions(folder: Path, tmp_path: Path) -> None:
    both: dict[str, Any] = {"evaluation_records": 1, "private_records": 2}
    same = image_folder(folder, tmp_path, evaluation={"folder": "train", "start": 2}, **both)
    same.check()
    assert shown(same.evaluation().images) == [colour(2)]
    crossed = {"folder": "train", "start": 1}
    refused(image_folder(folder, tmp_path, evaluation=crossed, **both), "private", "evaluation")


@pytest.mark.parametrize(
    "name", ["../x.png", "/etc/x.png", "a/../../x.png", "..\\x.png", "a//b.png"]
)
def test_metadata_that_leaves_the_folder_is_refused(
    folder: Path, tmp_path: Path, name: str
) -> None:
    save(folder / "x.png", 9)
    assert not is_inside(name)
    metadata(folder, f"{name},stolen", "a.png,1", "b.png,2", "below/c.png,3")
    refused(image_folder(folder, tmp_path), "not a path below its folder", "metadata.csv")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"file_name,text\na.png,\xe9t\xe9", "not UTF-8"),
        (b'file_name,text\na.png,"never closed', "not a CSV file"),
        (b"file_name,text\na.png," + b"x" * 200_000, "not a CSV file"),
        (b"", "columns (none)"),
    ],
)
def test_bad_metadata_is_refused(folder: Path, tmp_path: Path, content: bytes, words: str) -> None:
    (folder / "train/metadata.csv").write_bytes(content)
    refused(image_folder(folder, tmp_path), "metadata.csv", words)


def test_links_to_folders_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "train/loop").symlink_to(folder / "train")
    assert len(image_folder(folder, tmp_path).survey()["private"]) == 3
    refused(image_folder(folder, tmp_path, private_records=4), "lists 3")
