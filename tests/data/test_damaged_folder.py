"""The doctor, as a user runs it, on 2,000 damaged files of every kind: a folder and tar shards.

Every file is decoded right or named in the report, in the table and in JSON. After its owner took
out what was named, the rest is prepared, and every image of the cache shows what it should.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from corpora import link, write_tar
from damage import ENDINGS, KINDS, encoded, kind_of, png
from photo_folders import REPOSITORY
from PIL import Image

SIDE = 16
COUNTS = {"train": 1500, "test": 400, "shards": 200}
SECONDS = 300
"""After that the doctor hangs; it takes about ten."""

# None is no file at all; False, a record without captions.
CAPTIONS: dict[str, tuple[bytes | None, bool]] = {
    "plain": (b"one\n", True),
    "byte order mark": ("\ufeffone\n".encode(), True),
    "accents": ("un \u00e9t\u00e9\r\n\r\n".encode(), True),
    "latin-1": ("un \u00e9t\u00e9".encode("latin-1"), False),
    "utf-16": ("one".encode("utf-16"), False),
    "empty": (b"", False),
    "blank": (b" \r\n\t\n", False),
    "absent": (None, False),
}
NOT_UTF8 = ("latin-1", "utf-16")
HARMLESS = {"greyscale image", "small image", "exact duplicate", "near duplicate"}
"""What is said of images that can be used."""


def picture(number: int) -> Image.Image:
    """A smooth picture of its own, a little wider than high."""
    cells = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((24, 20), Image.Resampling.BICUBIC)


def square(image: Image.Image) -> np.ndarray:
    """What of a picture a cache holds, ``[3, SIDE, SIDE]``."""
    small = image.crop((2, 0, 22, 20)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(small).transpose(2, 0, 1).astype(int)


@dataclass
class Planted:
    """What was put where, by the names that a report has for it.

    Attributes:
        wrong: by kind of finding and side, what must be named.
        either: files with flipped bytes, which may be decoded or not.
        shown: what the image in a file is, and how far it may be off.
    """

    wrong: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    either: set[str] = field(default_factory=set)
    shown: dict[str, tuple[np.ndarray, float]] = field(default_factory=dict)

    def image(self, number: int, name: str, side: str) -> bytes:
        """The bytes of a file of some kind; notes what they must come to."""
        kind, drawn = KINDS[kind_of(number)], picture(number)
        if kind.decodes is None:
            self.either.add(name)
        elif kind.decodes:
            self.shown[name] = square(kind.shows(drawn)), kind.levels
        else:
            self.wrong["corrupt file", side].add(name)
        return kind.make(drawn, np.random.default_rng(number))


def fill_train(root: Path, planted: Planted) -> None:
    """Images with a text file beside each, and what is no plain file."""
    (root / "train").mkdir(parents=True)
    captions = list(CAPTIONS.items())
    for number in range(COUNTS["train"]):
        stem, ending = f"train/{number:05d}", ENDINGS[number % len(ENDINGS)]
        name = f"{stem}.{ending}"
        (root / name).write_bytes(planted.image(number, name, "private"))
        kind, (content, good) = captions[number % len(captions)]
        if content is not None:
            (root / f"{stem}.txt").write_bytes(content)
        if not good:
            planted.wrong["no caption", "private"].add(name)
        if kind in NOT_UTF8:
            planted.wrong["unreadable text", "private"].add(f"{root}/{stem}.txt")
    special: dict[str, Callable[[Path], object]] = {
        "device.png": lambda path: path.symlink_to("/dev/zero"),
        "giant.jpg": lambda path: (path.touch(), os.truncate(path, 2**40)),
        "loop.gif": lambda path: path.symlink_to(path),
        "nowhere.bmp": lambda path: path.symlink_to("/no/such/file"),
        "pipe.jpg": os.mkfifo,
    }
    for name, make in special.items():
        make(root / "train" / name)
        (root / "train" / name).with_suffix(".txt").write_text("one")
        kind = "corrupt file" if name == "giant.jpg" else "missing file"
        planted.wrong[kind, "private"].add(f"train/{name}")


def fill_test(root: Path, planted: Planted) -> None:
    """Images with a table of captions, in which some rows are wrong."""
    (root / "test").mkdir()
    lines = ["\ufefffile_name,text"]
    for number in range(COUNTS["test"]):
        file = f"{number:05d}.{ENDINGS[number % len(ENDINGS)]}"
        name = f"test/{file}"
        (root / name).write_bytes(planted.image(10_000 + number, name, "evaluation"))
        text = "" if number % 10 == 3 else "one"
        lines += [f'{file},"{text}"'] * (2 if number % 10 == 7 else 1)  # twice: two captions
        if not text:
            planted.wrong["no caption", "evaluation"].add(name)
        if number % 10 == 7:
            planted.wrong["caption count", "evaluation"].add(name)
    for number, name in enumerate(("../train/00000.jpg", "/etc/passwd", "a/../../b.png", "..\\c")):
        lines.append(f"{name},stolen {number}")
        planted.wrong["unsafe entry", "evaluation"].add(repr(name))
    lines.append("99999.jpg,gone")
    planted.wrong["missing file", "evaluation"].add("test/99999.jpg")
    (root / "test/metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def fill_shards(root: Path, planted: Planted) -> None:
    """A shard with damaged images, links and names that leave it; and one that is cut short."""
    members: list[tuple[str | tarfile.TarInfo, bytes]] = []
    for number in range(COUNTS["shards"]):
        name = f"a.tar/{number:05d}.jpg"
        kind = list(CAPTIONS)[number % len(CAPTIONS)]
        content, good = CAPTIONS[kind]
        members.append((f"{number:05d}.jpg", planted.image(20_000 + number, name, "public")))
        members += [] if content is None else [(f"{number:05d}.txt", content)]
        if not good:
            planted.wrong["no caption", "public"].add(name)
        if kind in NOT_UTF8:
            planted.wrong["unreadable text", "public"].add(f"a.tar/{number:05d}.txt")
    hostile = ("../../up.jpg", "/etc/up.jpg", "b/../../up.jpg")
    members += [(name, png(picture(0))) for name in hostile]
    links = {"soft.jpg": tarfile.SYMTYPE, "hard.jpg": tarfile.LNKTYPE, "zero.jpg": tarfile.CHRTYPE}
    members += [(link(name, "/etc/passwd", kind), b"") for name, kind in links.items()]
    planted.wrong["unsafe entry", "public"] |= {f"a.tar/{name}" for name in (*hostile, *links)}
    again = [("00000.jpg", png(picture(30_000))), ("00000.txt", b"one")]
    write_tar(root / "a.tar", members + again)
    planted.wrong["repeated record", "public"] |= {"record a.tar/00000", "file a.tar/00000.jpg"}
    write_tar(root / "b.tar", [("x.jpg", encoded(picture(30_001), "BMP")), ("x.txt", b"one")])
    whole = (root / "b.tar").read_bytes()
    (root / "b.tar").write_bytes(whole[:1000])
    planted.wrong["corrupt file", "public"] |= {"b.tar", "b.tar/x.jpg"}
    planted.wrong["no caption", "public"].add("b.tar/x.jpg")


@dataclass(frozen=True)
class Doctored:
    """A run of the doctor: what was there, what it said and wrote."""

    root: Path
    planted: Planted
    ended: subprocess.CompletedProcess[str]
    named: dict[tuple[str, str], list[str]]


def command(module: str, root: Path, train: int, test: int, cache: Path) -> list[str]:
    return [
        *(sys.executable, "-m", f"benchmarks.{module}", "dataset=image_folder"),
        *(f"dataset.root={root}", f"dataset.resolution={SIDE}", f"cache_dir={cache}"),
        *(f"dataset.private_records={train}", f"dataset.evaluation_records={test}"),
    ]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    """As a user would, and stopped if it hangs."""
    wide = {**os.environ, "COLUMNS": "120"}
    return subprocess.run(
        words, cwd=REPOSITORY, env=wide, capture_output=True, text=True, timeout=SECONDS
    )


def items_of(report: Path) -> dict[tuple[str, str], list[str]]:
    """What a report names, by kind and side; of an image that is corrupt without the reason."""
    named: dict[tuple[str, str], list[str]] = defaultdict(list)
    for finding in json.loads(report.read_text())["findings"]:
        cut = finding["kind"] == "corrupt file"
        items = [item.split(": ")[0] if cut else item for item in finding["items"]]
        named[finding["kind"], finding["side"]] += items
    return named


@pytest.fixture(scope="module")
def doctored(tmp_path_factory: pytest.TempPathFactory) -> Doctored:
    place, planted = tmp_path_factory.mktemp("damaged"), Planted()
    fill_train(place / "mine", planted)
    fill_test(place / "mine", planted)
    fill_shards(place / "shards", planted)
    train = len([p for p in (place / "mine/train").iterdir() if p.suffix != ".txt"])
    words = command("doctor", place / "mine", train, COUNTS["test"] + 1, place / "cache")
    words += ["public=webdataset", f"public.root={place / 'shards'}"]
    words += [f"public.public_records={COUNTS['shards'] + 2}", f"json={place / 'report.json'}"]
    ended = run(words)
    return Doctored(place / "mine", planted, ended, items_of(place / "report.json"))


def test_it_ends_with_findings_and_without_a_traceback(doctored: Doctored) -> None:
    assert doctored.ended.returncode == 1, doctored.ended.stderr
    assert "Traceback" not in doctored.ended.stdout + doctored.ended.stderr
    assert "error:" not in doctored.ended.stderr


def test_every_file_that_is_wrong_is_named_and_no_other(doctored: Doctored) -> None:
    planted = doctored.planted.wrong
    named = {
        key: set(items) - doctored.planted.either if key[0] == "corrupt file" else set(items)
        for key, items in doctored.named.items()
        if key[0] not in HARMLESS
    }
    assert named.keys() == planted.keys()
    for key, items in planted.items():
        assert named[key] == items, key
    assert sum(map(len, planted.values())) > 2000


def test_the_table_counts_what_json_names(doctored: Doctored) -> None:
    rows = re.findall(r"│ \d+ +│ ([a-z ]+?) +│ ([a-z ]+?) +│ ([\d,]+) +│", doctored.ended.stdout)
    counted: dict[tuple[str, str], int] = defaultdict(int)
    for kind, side, count in rows:
        counted[kind, side] += int(count.replace(",", ""))
    assert counted == {key: len(items) for key, items in doctored.named.items()}


def test_what_is_left_is_decoded_right(doctored: Doctored, tmp_path: Path) -> None:
    """The owner moves the good files to a new folder; preparing them takes every one."""
    bad = {
        name
        for (kind, _), names in doctored.named.items()
        if kind not in HARMLESS | {"caption count"}
        for name in names
    }
    kept: dict[str, list[str]] = {}
    for side in ("train", "test"):
        (tmp_path / "good" / side).mkdir(parents=True)
        files = [p for p in (doctored.root / side).iterdir() if p.suffix not in (".txt", ".csv")]
        names = sorted(f"{side}/{p.name}" for p in files)
        kept[side] = [name for name in names if name not in bad]
        for name in kept[side]:
            place = tmp_path / "good" / name
            place.write_bytes((doctored.root / name).read_bytes())
            place.with_suffix(".txt").write_text("one")
    counts = len(kept["train"]), len(kept["test"])
    ended = run(command("prepare", tmp_path / "good", *counts, tmp_path / "cache"))
    assert ended.returncode == 0, ended.stderr
    checked = 0
    for side, part in (("train", "private"), ("test", "evaluation")):
        (file,) = (tmp_path / "cache/photos" / part).glob("*.npy")
        for image, name in zip(np.load(file), kept[side], strict=True):
            if name in doctored.planted.shown:
                expected, levels = doctored.planted.shown[name]
                assert np.abs(image - expected).mean() <= levels, name
                checked += 1
    good = {name for name in doctored.planted.shown if not name.startswith("a.tar")} - bad
    assert checked == len(good) > 300
