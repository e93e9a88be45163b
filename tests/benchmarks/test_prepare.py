"""The command that decodes a data set once."""

from __future__ import annotations

import pytest
from published_sets import PRIVATE, faces, photographs

from benchmarks import prepare, run
from wavedp.dp.errors import UserError

SIZE = ["dataset.resolution=32", "dataset.private_records=8", "dataset.evaluation_records=4"]


def options(tmp_path, name, root):
    return [f"dataset={name}", f"dataset.root={root}", f"cache_dir={tmp_path}/cache", *SIZE]


def test_prepares_and_marks_what_is_private(tmp_path, capsys):
    root = faces(tmp_path / "faces")
    command = options(tmp_path, "mmcelebahq", root)
    assert prepare.main(command) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "8 private, 4 evaluation images of 32 px are ready and verified" in shown
    assert "which only you can open" in shown
    place = tmp_path / "cache/photos/private"
    assert place.stat().st_mode & 0o077 == 0
    before = {file: file.stat().st_mtime_ns for file in place.rglob("*.npy")}
    assert len(before) == 1
    (root / f"image/images/{PRIVATE[0]}.jpg").touch()  # another time: decoded again
    prepare.main(command)
    assert {file: file.stat().st_mtime_ns for file in place.rglob("*.npy")} != before


def test_a_corpus_and_a_drawn_set_are_prepared_too(tmp_path, cache, capsys):
    root = photographs(tmp_path / "coco") / "train2017"
    for image in root.iterdir():
        image.with_suffix(".txt").write_text("a photo")
    corpus = ["dataset=public_image_folder", f"dataset.root={root}", "dataset.public_records=8"]
    assert prepare.main([*corpus, f"cache_dir={tmp_path}/cache"]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "8 public images" in shown
    assert "only you" not in shown
    assert prepare.main(["dataset=toyfaces", *SIZE, f"cache_dir={cache}"]) == 0


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["dataset.root=null"], "dataset.root is not set"),
        (["dataset.private_records=many"], "dataset.private_records=many"),
        (["dataset.resolution=0"], "dataset.resolution=0"),
        (["dataset.private_records=100000000", "dataset.resolution=4096"], "MB free"),
        (["dataset.private_records=9"], "lists 8"),
    ],
)
def test_what_is_wrong_is_one_sentence_before_work_starts(tmp_path, more, named):
    root = faces(tmp_path / "faces")
    with pytest.raises(UserError) as caught:
        prepare.main([*options(tmp_path, "mmcelebahq", root), *more])
    assert named in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_corpus_cannot_be_the_private_side_of_a_run(in_root):
    with pytest.raises(UserError, match="parquet is a public corpus without a private side"):
        run.main(["suite=smoke", "dataset=parquet"])
