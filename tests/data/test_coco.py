"""The MS-COCO loader, on small folders in the published layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from photo_folders import (
    NOTES,
    coco,
    colour,
    columns_of,
    edit_notes,
    refused,
    save,
    shown,
    write_json,
)

from wavedp.data.schema import Dataset


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


def published(root: Path, side: str, year: int, ids: list[int], stated: int | None) -> None:
    """One side of one year, as published; the first version of the file states no year."""
    for number in ids:
        save(root / f"{side}{year}/{number}.jpg", number)
    content: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in ids],
        "annotations": [{"id": i, "image_id": i, "caption": str(i)} for i in ids],
    }
    if stated:
        content["info"] = {"year": stated}
    write_json(root / f"annotations/captions_{side}{year}.json", content)


@pytest.mark.parametrize("stated", [True, False])
def test_coco_refuses_to_cross_the_years(tmp_path: Path, stated: bool) -> None:
    """Also where the copy at hand happens to share no record."""
    for number, (side, year) in enumerate(
        (side, year) for side in ("train", "val") for year in (2014, 2017)
    ):
        ids = list(range(4 * number, 4 * number + 4))
        published(tmp_path, side, year, ids, year if stated else None)
    for train in (2014, 2017):
        for val in (2014, 2017):
            sides = {
                side: {
                    "images": f"{part}{year}",
                    "annotations": f"annotations/captions_{part}{year}.json",
                }
                for side, part, year in (
                    ("private", "train", train),
                    ("evaluation", "val", val),
                )
            }
            dataset = coco(tmp_path, tmp_path, **sides)
            if train == val:
                dataset.check()
            else:
                refused(dataset, f"COCO {train}", f"COCO {val}", "same year")


def test_coco_goes_by_the_year_that_the_file_states(tmp_path: Path) -> None:
    published(tmp_path, "train", 2014, [1, 2, 3, 4], 2017)  # renamed
    published(tmp_path, "val", 2014, [5, 6], 2014)
    sides = {
        side: {
            "images": f"{part}2014",
            "annotations": f"annotations/captions_{part}2014.json",
        }
        for side, part in (("private", "train"), ("evaluation", "val"))
    }
    refused(coco(tmp_path, tmp_path, **sides), "COCO 2017", "captions_train2014.json")


def test_coco_compares_with_the_published_size(coco_root: Path, tmp_path: Path) -> None:
    for listed, words in ((6, None), (5, "published file has 5")):
        part = {"images": "val2017", "annotations": NOTES, "start": 0, "listed": listed}
        dataset = coco(coco_root, tmp_path, private=part)
        if words:
            refused(dataset, "lists 6", words, "dataset.private.listed")
        else:
            dataset.check()


def test_coco_refuses_a_caption_that_no_tokenizer_can_encode(
    coco_root: Path, tmp_path: Path
) -> None:
    edit_notes(coco_root, lambda notes: notes["annotations"][3].update(caption="half \ud83d"))
    refused(coco(coco_root, tmp_path), "1 of 4 private images", "half a character", "09.jpg")


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
        (b'{"images": [{"id": 1e999, "file_name": "x"}], "annotations": []}', "not a COCO"),
        (b"[" * 100_000, "not valid JSON"),
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
