"""The doctor: a set in the published layout is clean, and each planted fault is found.

The fixtures are faces in the layout of MM-CelebA-HQ and photographs in that of MS-COCO.
"""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from published_sets import EVALUATION, PRIVATE, faces, photographs, picture, save

from benchmarks import doctor
from benchmarks.console import run_command
from wavedp.data.duplicates import near_pairs


@pytest.fixture
def examine(tmp_path: Path) -> Callable[..., tuple[int, dict[tuple[str, str], dict[str, Any]]]]:
    """Runs the doctor; its exit code, and its findings by kind and side."""

    def run(name: str, root: Path, *more: str) -> tuple[int, dict[tuple[str, str], Any]]:
        report = tmp_path / "report.json"
        report.unlink(missing_ok=True)
        code = doctor.main(
            [
                f"dataset={name}",
                f"dataset.root={root}",
                "dataset.resolution=32",
                f"dataset.private_records={len(PRIVATE)}",
                f"dataset.evaluation_records={len(EVALUATION)}",
                f"cache_dir={tmp_path}/cache",
                f"json={report}",
                *more,
            ]
        )
        found = json.loads(report.read_text())["findings"]
        by_kind = {(finding["kind"], finding["side"]): finding for finding in found}
        assert len(by_kind) <= len(found)
        return code, by_kind

    return run


@pytest.fixture
def face_set(tmp_path: Path) -> Path:
    return faces(tmp_path / "faces")


@pytest.fixture
def coco_set(tmp_path: Path) -> Path:
    return photographs(tmp_path / "coco")


LISTED = ["dataset.private.listed=8", "dataset.evaluation.listed=4"]


def notes(root: Path, side: str, edit: Callable[[dict[str, Any]], Any], year: int = 2017) -> None:
    path = root / f"annotations/captions_{side}{year}.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


# Clean sets ---------------------------------------------------------------------------------


def test_published_layouts_are_clean(face_set, coco_set, examine, capsys):
    assert examine("mmcelebahq", face_set) == (0, {})
    assert examine("coco2017", coco_set, *LISTED) == (0, {})
    shown = capsys.readouterr().out
    assert "8 private, 4 evaluation records" in shown
    assert "Nothing found." in shown


def test_2014_and_2017_have_a_config_each(tmp_path, examine):
    assert examine("coco2014", photographs(tmp_path / "older", 2014), *LISTED) == (0, {})


# One planted fault each ---------------------------------------------------------------------


def test_a_missing_file(face_set, examine):
    (face_set / "image/images/3.jpg").unlink()
    code, found = examine("mmcelebahq", face_set)
    assert code == 1
    assert found.keys() == {("missing file", "private")}
    assert found["missing file", "private"]["items"] == ["image/images/3.jpg"]


def test_corrupt_files(face_set, examine):
    file = face_set / "image/images/9.jpg"
    file.write_bytes(file.read_bytes()[:-300])
    (face_set / "image/images/10.jpg").write_bytes(b"")
    code, found = examine("mmcelebahq", face_set)
    assert code == 1
    assert found.keys() == {("corrupt file", "evaluation")}
    items = found["corrupt file", "evaluation"]["items"]
    assert [item.partition(":")[0] for item in items] == [
        "image/images/9.jpg",
        "image/images/10.jpg",
    ]


def test_images_without_captions(face_set, coco_set, examine):
    (face_set / "text/celeba-caption/2.txt").write_text("\n \n")
    _, found = examine("mmcelebahq", face_set)
    assert found["no caption", "private"]["items"] == ["image/images/2.jpg"]

    def drop(content):
        content["annotations"] = [n for n in content["annotations"] if n["image_id"] != 8]

    notes(coco_set, "val", drop)
    code, found = examine("coco2017", coco_set, *LISTED)
    assert code == 1
    assert found.keys() == {("no caption", "evaluation")}


def test_wrong_counts(face_set, coco_set, examine):
    code, found = examine("mmcelebahq", face_set, "dataset.private_records=9")
    assert code == 1
    assert found.keys() == {("wrong count", "private")}
    assert "dataset.private_records=9" in found["wrong count", "private"]["text"]
    notes(coco_set, "val", lambda content: content["images"].pop())
    _, found = examine("coco2017", coco_set, *LISTED, "dataset.evaluation_records=3")
    assert found.keys() == {("wrong count", "evaluation")}
    assert "lists 3 images" in found["wrong count", "evaluation"]["text"]


def test_swapped_split_files(face_set, coco_set, examine):
    (face_set / "train").rename(face_set / "other")
    (face_set / "test").rename(face_set / "train")
    (face_set / "other").rename(face_set / "test")
    code, found = examine("mmcelebahq", face_set)
    assert code == 1
    assert ("swapped split", "private and evaluation") in found
    train, val = (coco_set / f"annotations/captions_{s}2017.json" for s in ("train", "val"))
    content = train.read_text()
    train.write_text(val.read_text())
    val.write_text(content)
    _, found = examine("coco2017", coco_set, *LISTED)
    assert ("swapped split", "private and evaluation") in found


def test_years_of_coco_that_share_photographs(coco_set, examine):
    photographs(coco_set, 2014)
    crossed = ["dataset.evaluation.images=val2014", LISTED[0], LISTED[1]]
    crossed.append("dataset.evaluation.annotations=annotations/captions_val2014.json")
    code, found = examine("coco2017", coco_set, *crossed)
    assert code == 1
    finding = found["leakage", "private and evaluation"]
    assert "COCO 2017" in finding["text"]
    assert "COCO 2014" in finding["text"]


def test_a_record_on_both_sides(coco_set, examine):
    """Under the id that the two years share, whatever the files are called."""

    def add(content):
        content["images"].append({"id": 8, "file_name": f"{8:012d}.jpg"})
        content["annotations"] += [{"image_id": 8, "caption": f"Take {k}"} for k in range(5)]
        content["images"].pop(0)

    save(picture(8), coco_set / f"train2017/{8:012d}.jpg", quality=95)
    notes(coco_set, "train", add)
    _, found = examine("coco2017", coco_set, *LISTED)
    assert found["leakage", "private and evaluation"]["items"] == ["record 8"]
    assert found["exact duplicate", "private and evaluation"]["count"] == 1


def test_a_repeated_record(coco_set, examine):
    notes(coco_set, "train", lambda content: content["images"].append(content["images"][0]))
    _, found = examine("coco2017", coco_set, *LISTED)
    assert found.keys() == {("repeated record", "private")}


@pytest.mark.parametrize(
    ("a", "b", "side"),
    [(0, 1, "private"), (0, 9, "private and evaluation"), (9, 10, "evaluation")],
)
def test_exact_duplicates(face_set, examine, a, b, side):
    """The same pixels in another file format: the bytes differ."""
    folder = face_set / "image/images"
    pixels = Image.open(folder / f"{a}.jpg").convert("RGB")
    save(pixels, folder / f"{b}.jpg", format="PNG")
    code, found = examine("mmcelebahq", face_set)
    assert code == 1
    assert found.keys() == {("exact duplicate", side)}
    items = found["exact duplicate", side]["items"]
    assert items == [f"image/images/{a}.jpg = image/images/{b}.jpg"]


@pytest.mark.parametrize("change", ["compressed", "smaller", "brighter", "square"])
def test_near_duplicates(face_set, examine, change):
    original = Image.open(face_set / "image/images/4.jpg").convert("RGB")
    changed = {
        "compressed": original,
        "smaller": original.resize((60, 50)),
        "square": original.crop((8, 0, 88, 80)),
        "brighter": original.point(lambda value: min(255, value + 5)),
    }[change]
    stream = io.BytesIO()
    changed.save(stream, format="JPEG", quality=40)
    (face_set / "image/images/11.jpg").write_bytes(stream.getvalue())
    code, found = examine("mmcelebahq", face_set, "dataset.resolution=16")
    assert code == 1
    assert found.keys() == {("near duplicate", "private and evaluation")}


def test_copies_of_a_placeholder_are_searched_once(face_set, examine, monkeypatch):
    """Their pairs are as many as their square; each is reported once, as a copy of the first."""
    first, *others = PRIVATE[:6]
    for number in others:
        (face_set / f"image/images/{number}.jpg").write_bytes(
            (face_set / f"image/images/{first}.jpg").read_bytes()
        )
    searched = []

    def spy(thumbs):
        searched.append(len(thumbs))
        return near_pairs(thumbs)

    monkeypatch.setattr("benchmarks.diagnosis.near_pairs", spy)
    _, found = examine("mmcelebahq", face_set)
    assert found.keys() == {("exact duplicate", "private")}
    items = found["exact duplicate", "private"]["items"]
    assert items == [f"image/images/{first}.jpg = image/images/{n}.jpg" for n in others]
    assert searched == [len(PRIVATE) + len(EVALUATION) - len(others)]


def test_duplicates_of_a_public_corpus(face_set, examine, tmp_path):
    for name, number in (("seen", 2), ("fair", 99), ("scored", 8)):
        save(picture(number), tmp_path / f"corpus/{name}.png")
        (tmp_path / f"corpus/{name}.txt").write_text("a picture")
    code, found = examine(
        "mmcelebahq",
        face_set,
        "public=public_image_folder",
        f"public.root={tmp_path}/corpus",
        "public.public_records=3",
    )
    assert code == 1
    assert found.keys() == {
        ("near duplicate", "private and public"),
        ("near duplicate", "evaluation and public"),
    }
    (item,) = found["near duplicate", "private and public"]["items"]
    assert item == "image/images/2.jpg = ./seen.png"


def test_wrong_caption_counts(face_set, examine):
    (face_set / "text/celeba-caption/2.txt").write_text("one\ntwo\n")
    _, found = examine("mmcelebahq", face_set)
    assert found.keys() == {("caption count", "private")}
    assert "1 with 2" in found["caption count", "private"]["text"]


def test_tiny_and_greyscale_images(face_set, examine):
    save(picture(1, (20, 16)), face_set / "image/images/1.jpg")
    save(picture(9).convert("L"), face_set / "image/images/9.jpg", quality=95)
    code, found = examine("mmcelebahq", face_set)
    assert code == 1
    assert found.keys() == {("small image", "private"), ("greyscale image", "evaluation")}
    assert "the smallest has 16" in found["small image", "private"]["text"]


def test_text_that_is_not_unicode(face_set, examine):
    (face_set / "text/celeba-caption/2.txt").write_bytes("visage rasé\n".encode("latin-1"))
    code, found = examine("mmcelebahq", face_set)
    assert code == 1
    assert {("unreadable text", "private"), ("no caption", "private")} == found.keys()


def test_a_caption_file_that_is_damaged_is_a_finding_and_the_rest_is_examined(coco_set, examine):
    path = coco_set / "annotations/captions_train2017.json"
    path.write_text(path.read_text()[:-9])
    (coco_set / "val2017/000000000009.jpg").write_bytes(b"GIF89a")
    _, found = examine("coco2017", coco_set, *LISTED)
    assert ("corrupt file", "private") in found
    assert ("corrupt file", "evaluation") in found


def test_a_split_file_that_asks_for_code(face_set, examine, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trace"),)

    (face_set / "train/filenames.pickle").write_bytes(pickle.dumps([Trap()]))
    code, found = examine("mmcelebahq", face_set)
    assert code == 1
    assert "do not trust" in found["unsafe entry", "private"]["text"]
    assert not (tmp_path / "trace").exists()


def test_a_cache_that_rotted(face_set, examine, tmp_path):
    from benchmarks import prepare

    place = [f"cache_dir={tmp_path}/cache", f"dataset.root={face_set}", "dataset=mmcelebahq"]
    size = ["dataset.resolution=32", "dataset.private_records=8", "dataset.evaluation_records=4"]
    assert prepare.main([*place, *size]) == 0
    assert examine("mmcelebahq", face_set) == (0, {})
    (cache,) = (tmp_path / "cache").rglob("*evaluation.npy")
    content = bytearray(cache.read_bytes())
    content[-1] ^= 1
    cache.write_bytes(content)
    _, found = examine("mmcelebahq", face_set)
    assert found.keys() == {("damaged cache", "evaluation")}
    prepare.main([*place, *size])
    assert examine("mmcelebahq", face_set) == (0, {})


# Real photographs ---------------------------------------------------------------------------

REAL = Path(__file__).parents[3] / "shared" / "real"


def real(name: str) -> Path:
    if not (REAL / name).is_dir():
        pytest.skip(f"real photographs ../shared/real/{name} are not on this machine")
    return REAL / name


# What is found there is checked by other means, and not written down: it is the owner's.


def pixels(root: Path, file: str) -> np.ndarray:
    return np.asarray(Image.open(root / file).convert("RGB"))


def test_real_coco_mini(examine):
    root = real("coco_mini")
    numbers = ["dataset.private_records=100", "dataset.evaluation_records=22"]
    _, found = examine("coco_mini", root, *numbers)
    assert {kind for kind, _ in found} <= {"greyscale image"}
    for finding in found.values():
        for file in finding["items"]:
            assert np.ptp(pixels(root, file), axis=-1).max() <= 2


@pytest.mark.slow
def test_real_faces(examine):
    root = real("mmcelebahq64")
    numbers = ["dataset.private_records=22000", "dataset.evaluation_records=2000"]
    _, found = examine("mmcelebahq64", root, *numbers)
    kinds = {"greyscale image", "exact duplicate", "near duplicate"}
    assert {kind for kind, _ in found} <= kinds
    for (kind, _), finding in found.items():
        for first, _, second in (item.partition(" = ") for item in finding["items"]):
            if second:
                a, b = (pixels(root, file).astype(int) for file in (first, second))
                same = (a == b).all()
                assert same == (kind == "exact duplicate")
                assert np.abs(a - b).mean() < 16


# What it says and where ---------------------------------------------------------------------


def test_the_report_is_private_by_default_and_says_that_it_is_no_release(
    face_set, tmp_path, capsys
):
    (face_set / "image/images/3.jpg").unlink()
    before = {path: path.stat().st_mtime_ns for path in face_set.rglob("*")}
    cache = tmp_path / "cache"
    options = [f"dataset.root={face_set}", "dataset.resolution=32", f"cache_dir={cache}"]
    options += ["dataset.private_records=8", "dataset.evaluation_records=4"]
    assert doctor.main(["dataset=mmcelebahq", *options]) == 1
    (report,) = (cache / "doctor").glob("*.json")
    assert report.stat().st_mode & 0o077 == 0
    assert report.parent.stat().st_mode & 0o077 == 0
    assert "not a release" in json.loads(report.read_text())["note"]
    shown = capsys.readouterr().out
    assert "not a" in shown
    assert "release" in shown
    assert {path: path.stat().st_mtime_ns for path in face_set.rglob("*")} == before


def test_the_table_fits_80_columns(face_set, examine, capsys):
    for number in PRIVATE:
        (face_set / f"image/images/{number}.jpg").unlink()
    (face_set / "image/images/9.jpg").write_bytes(b"")
    examine("mmcelebahq", face_set)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("missing file" in line for line in lines)


def test_what_is_found_many_times_is_one_row(face_set, examine, capsys, tmp_path):
    for number in PRIVATE:
        (face_set / f"text/celeba-caption/{number}.txt").write_bytes(b"\xff\n")
    examine("mmcelebahq", face_set)
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 findings, explained above." in shown
    assert "Found 8 times. The first:" in shown
    kinds = [f["kind"] for f in json.loads((tmp_path / "report.json").read_text())["findings"]]
    assert kinds.count("unreadable text") == 8


def test_names_cannot_steer_the_terminal(tmp_path, capsys):
    root = tmp_path / "mine"
    for side, name in (("train", "[red]a\x1b[2J\n.png"), ("test", "b.png"), ("test", "c.png")):
        save(picture(len(name)), root / side / name, format="PNG")
    os.rename(root / "test/c.png", os.fsencode(root / "test") + b"/\xff.png")
    options = [f"dataset.root={root}", f"json={tmp_path}/x.json", f"cache_dir={tmp_path}/cache"]
    options += ["dataset.private_records=1", "dataset.evaluation_records=2"]
    assert doctor.main(["dataset=image_folder", *options]) == 1
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "[red]a\\x1b[2J\\n.png" in shown.replace("\n", "").replace(" ", "")
    assert "\\udcff" in json.loads((tmp_path / "x.json").read_text())["findings"][1]["items"][1]


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["dataset=mmcelebahq"], "dataset.root is not set"),
        (["dataset=mmcelebahq", "dataset.root=nowhere"], "is not a folder"),
        (["dataset=mmceleba"], "mmcelebahq"),
        (["dataset=toyfaces"], "drawn by a program"),
        (["dataset=mmcelebahq", "public=mmcelebahq64"], "no public corpus"),
        (["dataset=mmcelebahq", "public=parket"], "parquet"),
        (["dataset=mmcelebahq", "json=/dev/null/x"], "cannot be written"),
    ],
)
def test_what_it_cannot_run_is_one_sentence_and_code_2(
    overrides, named, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr("sys.argv", ["doctor", f"cache_dir={tmp_path}/cache", *overrides])
    with pytest.raises(SystemExit) as ended:
        run_command(doctor.main)
    assert ended.value.code == 2
    error = " ".join(capfd.readouterr().err.split())
    assert named in error
    assert "Traceback" not in error
