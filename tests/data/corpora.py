"""Small sets in the layouts of image folders, parquet files and tar shards, for the tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from photo_folders import colour
from PIL import Image

from wavedp.data.image_folder import ImageFolder, PublicImageFolder
from wavedp.data.parquet import Parquet, PublicParquet
from wavedp.data.webdataset import WebDataset


def image_bytes(number: int, size: tuple[int, int] = (12, 10)) -> bytes:
    """A flat picture with the colour of this number."""
    stream = io.BytesIO()
    Image.new("RGB", size, colour(number)).save(stream, format="PNG")
    return stream.getvalue()


def write_parquet(path: Path, images: Sequence[Any], texts: Sequence[Any], **names: str) -> None:
    """One row per record, two rows per row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {names.get("image", "image"): images, names.get("text", "text"): texts}
    pq.write_table(pa.table(columns), path, row_group_size=2)


def write_tar(path: Path, members: Sequence[tuple[str | tarfile.TarInfo, bytes]]) -> None:
    """A tar file with these members in order; a ``TarInfo`` is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    """A link in an archive."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def _settings(root: Path | None, tmp_path: Path, changes: dict[str, Any]) -> dict[str, Any]:
    common = {
        "root": root,
        "resolution": 4,
        "name": "mine",
        "version": "1",
        "captions_per_record": 1,
        "cache_dir": tmp_path / "cache",
    }
    return {**common, **changes}


def image_folder(root: Path | None, tmp_path: Path, **changes: Any) -> ImageFolder:
    sides = {"private": {"folder": "train"}, "evaluation": {"folder": "test"}}
    counts = {"private_records": 3, "evaluation_records": 2}
    return ImageFolder(**_settings(root, tmp_path, {**sides, **counts, **changes}))


def public_folder(root: Path | None, tmp_path: Path, **changes: Any) -> PublicImageFolder:
    return PublicImageFolder(**_settings(root, tmp_path, {"public_records": 3, **changes}))


def parquet(root: Path | None, tmp_path: Path, **changes: Any) -> Parquet:
    sides = {"private": {"files": "train-*.parquet"}, "evaluation": {"files": "test.parquet"}}
    counts = {"private_records": 5, "evaluation_records": 2}
    return Parquet(**_settings(root, tmp_path, {**sides, **counts, **changes}))


def public_parquet(root: Path | None, tmp_path: Path, **changes: Any) -> PublicParquet:
    return PublicParquet(**_settings(root, tmp_path, {"public_records": 3, **changes}))


def webdataset(root: Path | None, tmp_path: Path, **changes: Any) -> WebDataset:
    return WebDataset(**_settings(root, tmp_path, {"public_records": 3, **changes}))
