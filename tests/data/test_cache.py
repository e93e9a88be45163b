"""The cache of decoded images: whole, verified, resumable, and one at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photo_folders import REPOSITORY, colour, save, shown

from wavedp.data import cache as caches
from wavedp.data.cache import BLOCK, ImageCache, Picture
from wavedp.data.stored import File
from wavedp.dp.errors import UserError

COUNT = 3 * BLOCK + 5


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for number in range(COUNT):
        save(tmp_path / f"images/{number}.png", number)
    return [tmp_path / f"images/{number}.png" for number in range(COUNT)]


def cache_of(files: list[Path], folder: Path, **changes: Any) -> ImageCache:
    pictures = [Picture(file.name, File(file)) for file in files]
    settings = {"root": files[0].parent, "resolution": 4, "private": False, "workers": 1}
    return ImageCache(folder / "x.npy", pictures, **{**settings, **changes})


class Decoded:
    """Counts the images that are decoded, and stops the work after some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop: int = 10**9) -> None:
        self.names: list[str] = []
        self._stop, self._load = stop, caches.load_pixels
        monkeypatch.setattr(caches, "load_pixels", self)

    def __call__(self, picture: Picture, *rest: Any) -> np.ndarray:
        if len(self.names) == self._stop:
            raise KeyboardInterrupt
        self.names.append(picture.name)
        return self._load(picture, *rest)


def test_a_stopped_build_goes_on_after_its_last_whole_block(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Decoded(monkeypatch, stop=2 * BLOCK + 3)
    with pytest.raises(KeyboardInterrupt):
        cache_of(files, tmp_path).images()
    assert not cache_of(files, tmp_path).is_built()
    monkeypatch.undo()
    decoded = Decoded(monkeypatch)
    images = cache_of(files, tmp_path).images()
    assert decoded.names == [file.name for file in files[2 * BLOCK :]]
    assert shown(images) == [colour(number) for number in range(COUNT)]
    assert sorted(path.suffix for path in tmp_path.glob("x.*")) == [".json", ".npy"]


def test_only_the_block_of_a_mended_file_is_decoded_again(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = files[-1].read_bytes()
    files[-1].write_bytes(good[:-20])
    with pytest.raises(UserError, match=rf"{files[-1].name} cannot be decoded"):
        cache_of(files, tmp_path).images()
    files[-1].write_bytes(good)
    decoded = Decoded(monkeypatch)
    cache_of(files, tmp_path).images()
    assert decoded.names == [file.name for file in files[3 * BLOCK :]]


@pytest.mark.parametrize("damage", ["bytes", "journal", "lines"])
def test_a_block_that_rotted_meanwhile_is_not_taken_over(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    Decoded(monkeypatch, stop=2 * BLOCK)
    with pytest.raises(KeyboardInterrupt):
        cache_of(files, tmp_path).images()
    monkeypatch.undo()
    journal, partial = tmp_path / "x.journal", tmp_path / "x.partial"
    if damage == "bytes":
        content = bytearray(partial.read_bytes())
        content[200] ^= 1
        partial.write_bytes(content)
    elif damage == "journal":
        journal.write_bytes(b"\xff\xfe[0, junk\n" + journal.read_bytes())
    else:
        journal.write_text('[0]\n{"a": 1}\n[1, 2, 3]\n["x", [], null]\n[0, "d", 1, 2]\nnull\n')
    decoded = Decoded(monkeypatch)
    images = cache_of(files, tmp_path).images()
    assert files[0].name in decoded.names
    assert shown(images) == [colour(number) for number in range(COUNT)]


def test_checksums_find_a_flipped_bit(files: list[Path], tmp_path: Path) -> None:
    cache_of(files, tmp_path).images()
    assert not cache_of(files, tmp_path).damaged()
    content = bytearray((tmp_path / "x.npy").read_bytes())
    content[-7] ^= 4
    (tmp_path / "x.npy").write_bytes(content)
    rotten = cache_of(files, tmp_path)
    assert rotten.is_built()  # as far as its shape and stamp tell
    assert rotten.damaged()
    rotten.discard()
    assert shown(cache_of(files, tmp_path).images())[-1] == colour(COUNT - 1)
    assert not cache_of(files, tmp_path).damaged()


def test_one_crc_by_hand(tmp_path: Path) -> None:
    """Two black images of 1 px: CRC-32 of six zero bytes is 0xB1C2A1A3."""
    for number in range(2):
        save(tmp_path / f"{number}.png", 0, size=(1, 1))
    files = [tmp_path / "0.png", tmp_path / "1.png"]
    cache_of(files, tmp_path, resolution=1).images()
    stamp = json.loads((tmp_path / "x.json").read_text())
    assert stamp["crc32"] == [0xB1C2A1A3]
    assert stamp["shape"] == [2, 3, 1, 1]


def test_the_cache_does_not_depend_on_the_number_of_workers(
    files: list[Path], tmp_path: Path
) -> None:
    written = []
    for workers in (1, 3):
        cache_of(files, tmp_path / str(workers), workers=workers).images()
        written.append([(tmp_path / f"{workers}/x.{e}").read_bytes() for e in ("npy", "json")])
    assert written[0] == written[1]


def test_builders_at_the_same_time_decode_once(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = Decoded(monkeypatch)
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(lambda _: cache_of(files, tmp_path).images(), range(4)))
    assert len(decoded.names) == COUNT
    for images in built:
        assert shown(images) == [colour(number) for number in range(COUNT)]


KILLED = """
import sys, time
from pathlib import Path
from wavedp.data import cache
from wavedp.data.stored import File
load = cache.load_pixels
def slowly(*arguments):
    time.sleep(0.005)
    return load(*arguments)
cache.load_pixels = slowly
files = sorted(Path(sys.argv[1]).iterdir(), key=lambda file: int(file.stem))
pictures = [cache.Picture(file.name, File(file)) for file in files]
cache.ImageCache(Path(sys.argv[2]) / "x.npy", pictures, root=files[0].parent, resolution=4,
                 private=False, workers=1).images()
"""


def test_a_killed_process_leaves_what_another_goes_on_from(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", KILLED, str(files[0].parent), str(tmp_path)]
    process = subprocess.Popen(command, cwd=REPOSITORY)
    journal = tmp_path / "x.journal"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (journal.exists() and journal.read_text()):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    decoded = Decoded(monkeypatch)
    images = cache_of(files, tmp_path).images()  # the lock died with the process
    assert 0 < len(decoded.names) <= COUNT - BLOCK
    assert shown(images) == [colour(number) for number in range(COUNT)]


def test_private_images_are_for_their_owner_from_the_first_byte(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Decoded(monkeypatch, stop=BLOCK)
    with pytest.raises(KeyboardInterrupt):
        cache_of(files, tmp_path / "private", private=True).images()
    assert (tmp_path / "private").stat().st_mode & 0o077 == 0
    for file in (tmp_path / "private").glob("x.*"):
        assert file.stat().st_mode & 0o077 == 0, file
