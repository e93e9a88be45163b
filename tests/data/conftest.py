"""Fixtures of the photo loaders."""

from __future__ import annotations

from pathlib import Path

import pytest
from photo_folders import (
    COCO_IDS,
    IMAGE_FOLDERS,
    NOTES,
    save,
    split,
    write_json,
)


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
