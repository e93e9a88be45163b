"""Small sets in the published layouts, with pictures that differ as photographs do."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PRIVATE, EVALUATION = range(8), range(8, 12)


def picture(number: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A picture of its own: smooth, coloured, and unlike any other."""
    coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def faces(root: Path) -> Path:
    for number in (*PRIVATE, *EVALUATION):
        save(picture(number), root / f"image/images/{number}.jpg", quality=95)
        text = root / f"text/celeba-caption/{number}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("".join(f"Line {line} on face {number}.\n" for line in range(10)))
    for side, ids in (("train", PRIVATE), ("test", EVALUATION)):
        (root / side).mkdir()
        names = [str(number) for number in ids]
        (root / side / "filenames.pickle").write_bytes(pickle.dumps(names))
    return root


def photographs(root: Path, year: int = 2017) -> Path:
    for side, ids in (("train", PRIVATE), ("val", EVALUATION)):
        for number in ids:
            save(picture(number), root / f"{side}{year}/{number:012d}.jpg", quality=95)
        content = {
            "info": {"year": year},
            "images": [{"id": i, "file_name": f"{i:012d}.jpg"} for i in ids],
            "annotations": [
                {"image_id": i, "caption": f"Photo {i}, take {k}."} for i in ids for k in range(5)
            ],
        }
        path = root / f"annotations/captions_{side}{year}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return root
