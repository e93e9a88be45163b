"""Small photo folders in the published layouts, for the tests of the loaders."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from wavedp.data.coco import Coco
from wavedp.data.mmcelebahq import MMCelebAHQ
from wavedp.data.schema import Dataset
from wavedp.dp.errors import UserError
from wavedp.dp.private import PrivateRecords

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
