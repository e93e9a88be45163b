"""The MM-CelebA-HQ loader, on small folders in the published layout."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from photo_folders import (
    IMAGE_FOLDERS,
    colour,
    columns_of,
    faces,
    refused,
    shown,
    split,
)

from wavedp.data.mmcelebahq import read_split
from wavedp.data.schema import Dataset
from wavedp.dp.errors import UserError


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


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_is_read(tmp_path: Path, protocol: int) -> None:
    ids = [str(number) for number in range(3000)]
    (tmp_path / "filenames.pickle").write_bytes(pickle.dumps(ids, protocol))
    assert read_split(tmp_path / "filenames.pickle") == ids


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    """Where text was bytes: some published copies are that old."""
    (tmp_path / "filenames.pickle").write_bytes(b"(lp0\nS'12'\np1\naS'7'\np2\na.")
    assert read_split(tmp_path / "filenames.pickle") == ["12", "7"]


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",  # a memo of two thousand million places
        pickle.dumps([bytearray(b"0")], 5),
        pickle.dumps([b"0"], 4),
    ],
)
def test_a_pickle_of_anything_else_is_not_even_begun(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "filenames.pickle").write_bytes(content)
    with pytest.raises(UserError, match=r"filenames\.pickle is not a valid pickle \(it holds"):
        read_split(tmp_path / "filenames.pickle")


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
