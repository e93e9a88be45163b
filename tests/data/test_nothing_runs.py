"""Nothing that is loaded can run code: every loader is fed a file that would, if it could."""

from __future__ import annotations

import ast
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from corpora import image_bytes, link, parquet, public_parquet, webdataset, write_tar
from photo_folders import REPOSITORY, coco, colour, faces, refused, shown, split

from wavedp.data.toyfaces import ToyFaces
from wavedp.dp.store import PrivateStore

SOURCES = [
    path
    for folder in ("wavedp", "baselines", "benchmarks")
    for path in (REPOSITORY / folder).rglob("*.py")
]


def test_a_split_file(face_root: Path, tmp_path: Path, trap: Any) -> None:
    split(face_root, "train", ["0", trap])
    refused(faces(face_root, tmp_path), "do not trust")


@pytest.mark.parametrize("stamped", [True, False])
def test_an_image_cache(coco_root: Path, tmp_path: Path, trap: Any, stamped: bool) -> None:
    coco(coco_root, tmp_path).check()
    (file,) = (tmp_path / "cache").rglob("*evaluation.npy")
    np.save(file, np.array([trap], dtype=object), allow_pickle=True)
    if not stamped:
        file.with_suffix(".json").write_bytes(pickle.dumps(trap))
    assert shown(coco(coco_root, tmp_path).evaluation().images) == [colour(1000), colour(4000)]


def test_the_remains_of_a_stopped_build(coco_root: Path, tmp_path: Path, trap: Any) -> None:
    place = tmp_path / "cache/photos/evaluation"
    place.mkdir(parents=True)
    for ending in ("journal", "partial", "json"):
        (place / f"coco_test-1-4px-evaluation.{ending}").write_bytes(pickle.dumps(trap))
    assert len(coco(coco_root, tmp_path).evaluation()) == 2


def test_kept_tokens(tmp_path: Path, trap: Any) -> None:
    store = PrivateStore(tmp_path / "private", "mine")
    store.save("tokens", {"x": torch.zeros(3)})
    (file,) = (tmp_path / "private").glob("*.pt")
    torch.save({"x": trap}, file)
    assert store.load("tokens") is None
    file.write_bytes(pickle.dumps(trap))
    assert store.load("tokens") is None
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(trap))
    assert store.load("tokens") is None


def test_drawn_pictures(tmp_path: Path, trap: Any) -> None:
    toy = ToyFaces(private_records=4, evaluation_records=4, cache_dir=str(tmp_path))
    drawn = np.array(toy.records(0, 4).images)
    (file,) = (tmp_path / "toy").glob("*-0-4.npy")
    np.save(file, np.array([trap] * 4, dtype=object), allow_pickle=True)
    assert (toy.records(0, 4).images == drawn).all()  # drawn again


def test_a_parquet_file_with_a_pickled_type(tmp_path: Path, trap: Any) -> None:
    """CVE-2023-47248: older pyarrow unpickled the class of an extension type."""
    (tmp_path / "t").mkdir()
    hostile = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(trap),
    }
    fields = [pa.field("image", pa.binary(), metadata=hostile), pa.field("text", pa.string())]
    table = pa.table([[image_bytes(1)], ["one"]], schema=pa.schema(fields))
    pq.write_table(table, tmp_path / "t/x.parquet")
    records = public_parquet(tmp_path / "t", tmp_path, public_records=1).records(0, 1)
    assert shown(records.images) == [colour(1)]


@pytest.mark.parametrize("ending", ["parquet", "tar"])
def test_a_pickle_in_place_of_an_archive(tmp_path: Path, trap: Any, ending: str) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / f"t/x.{ending}").write_bytes(pickle.dumps(trap))
    if ending == "tar":
        refused(webdataset(tmp_path / "t", tmp_path), "not a whole tar file")
    else:
        files = {"files": "x.parquet"}
        refused(parquet(tmp_path / "t", tmp_path, private=files), "cannot be read as parquet")


def test_a_shard_unpacks_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    members = [(link("a", str(tmp_path)), b""), ("a/victim.txt", b"theirs"), ("a/1.pickle", b".")]
    write_tar(tmp_path / "t/x.tar", members)
    refused(webdataset(tmp_path / "t", tmp_path), "do not trust")
    assert victim.read_text() == "mine"


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """Every call in a file, by the source of what is called."""
    tree = ast.parse(path.read_text())
    return [(ast.unparse(n.func), n) for n in ast.walk(tree) if isinstance(n, ast.Call)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(REPOSITORY).as_posix())
def test_no_source_loads_what_may_run(path: Path) -> None:
    runs = {"eval", "exec", "pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load"}
    runs |= {"os.system", "os.popen", "joblib.load", "pd.read_pickle", "torch.jit.load"}
    for name, call in calls(path):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert name not in runs
        assert given.get("allow_pickle") != "True" or not name.endswith("load")
        assert given.get("shell") != "True"
        if name == "torch.load":
            assert given.get("weights_only") == "True"
