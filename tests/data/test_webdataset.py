"""The WebDataset loader: shards are read in place and never trusted."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import image_bytes, link, webdataset, write_tar
from photo_folders import colour, refused, shown

from wavedp.data.findings import Finding, Kind
from wavedp.data.schema import PublicDataset


def record(number: int, image: str = "png") -> list[tuple[str, bytes]]:
    text = f"says {number}\n second".encode()
    name = f"./{number:06d}"
    return [(f"{name}.{image}", image_bytes(number)), (f"{name}.txt", text), (f"{name}.json", b"{")]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards with two records each."""
    root = tmp_path / "shards"
    write_tar(root / "a-0.tar", record(0) + record(1, "JPG"))
    write_tar(root / "a-1.tar", record(2) + record(3))
    return root


def surveyed(root: Path, tmp_path: Path, **changes: Any) -> tuple[list[str], list[Finding]]:
    found: list[Finding] = []
    photos = webdataset(root, tmp_path, **changes).survey(found.append)["public"]
    return [photo.file for photo in photos], found


def test_neighbours_are_records_in_the_order_of_the_shards(shards: Path, tmp_path: Path) -> None:
    corpus = webdataset(shards, tmp_path, public_records=4)
    assert isinstance(corpus, PublicDataset)
    corpus.check()
    records = corpus.records(0, 4)
    assert shown(records.images) == [colour(i) for i in range(4)]
    assert records.captions[2] == ("says 2", "second")


def test_class_labels_become_captions(tmp_path: Path) -> None:
    members = [("n/1.jpg", image_bytes(1)), ("n/1.cls", b"red panda")]
    write_tar(tmp_path / "s/x.tar", members)
    corpus = webdataset(
        tmp_path / "s", tmp_path, public_records=1, text="cls", template="a photo of a {label}"
    )
    assert corpus.records(0, 1).captions == [("a photo of a red panda",)]


def test_shards_are_read_no_further_than_declared(shards: Path, tmp_path: Path) -> None:
    whole = (shards / "a-1.tar").read_bytes()
    (shards / "a-1.tar").write_bytes(whole[: len(whole) // 2])
    assert len(webdataset(shards, tmp_path, public_records=2).records(0, 2)) == 2
    refused(webdataset(shards, tmp_path, public_records=4), "a-1.tar is not a whole tar file")


@pytest.mark.parametrize(
    "name", ["../x.png", "/etc/x.png", "a/../../x.png", "a\\..\\x.png", ".hidden/../../x.png"]
)
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / "s/x.tar", [(name, image_bytes(1)), *record(2)])
    refused(webdataset(tmp_path / "s", tmp_path), "leaves the folder", "do not trust")
    files, found = surveyed(tmp_path / "s", tmp_path, public_records=1)
    assert (files, [f.kind for f in found]) == (["x.tar/./000002.png"], [Kind.UNSAFE])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]  # nothing is unpacked


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    members = [(link("000001.png", "/etc/passwd", kind), b""), ("000001.txt", b"x"), *record(2)]
    write_tar(tmp_path / "s/x.tar", members)
    refused(webdataset(tmp_path / "s", tmp_path), "link, device or sparse file", "000001.png")


def test_folders_in_a_shard_are_passed_over(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("000001")
    folder.type = tarfile.DIRTYPE
    write_tar(tmp_path / "s/x.tar", [(folder, b""), ("000001/a.png", image_bytes(1))])
    files, found = surveyed(tmp_path / "s", tmp_path, public_records=1)
    assert files == ["x.tar/000001/a.png"]
    assert [f.kind for f in found] == [Kind.CAPTIONLESS]


def test_a_record_has_one_image_and_one_place(tmp_path: Path) -> None:
    text, two = ("1.txt", b"x"), ("1.jpg", image_bytes(1))
    write_tar(tmp_path / "s/x.tar", [("1.png", image_bytes(1)), two, text, ("2.txt", b"alone")])
    _, found = surveyed(tmp_path / "s", tmp_path, public_records=1)
    assert [f.kind for f in found] == [Kind.REPEATED, Kind.MISSING, Kind.COUNT]
    write_tar(tmp_path / "s/x.tar", record(1) + record(2) + record(1))
    refused(webdataset(tmp_path / "s", tmp_path), "000001", "again", "counts once")


def test_texts_that_are_no_text_are_named(tmp_path: Path) -> None:
    members = [("1.png", image_bytes(1)), ("1.txt", "été".encode("latin-1"))]
    write_tar(tmp_path / "s/x.tar", members)
    refused(webdataset(tmp_path / "s", tmp_path), "1.txt", "not UTF-8")
    write_tar(tmp_path / "s/x.tar", [members[0], ("1.txt", b"x" * 2**20 + b"x")])
    refused(webdataset(tmp_path / "s", tmp_path), "1.txt", "mebibyte")


def test_a_damaged_header_does_not_end_a_shard_silently(shards: Path, tmp_path: Path) -> None:
    """Python's reader stops there as if the archive were complete."""
    content = bytearray((shards / "a-1.tar").read_bytes())
    with tarfile.open(shards / "a-1.tar") as tar:
        second = next(m for m in tar.getmembers() if m.name.endswith("3.png"))
    content[second.offset + 150] ^= 1  # in its checksum
    (shards / "a-1.tar").write_bytes(content)
    refused(webdataset(shards, tmp_path, public_records=4), "a-1.tar", "damaged header")


@pytest.mark.parametrize("damage", ["no end", "two archives", "gzip", "empty", "text"])
def test_what_is_no_whole_tar_file_is_refused(shards: Path, tmp_path: Path, damage: str) -> None:
    file = shards / "a-1.tar"
    whole = file.read_bytes()
    end = whole.rstrip(b"\0")
    unended = whole[: -(-len(end) // 512) * 512]
    content = {
        "no end": unended,
        "two archives": whole + whole,
        "gzip": gzip.compress(whole),
        "empty": b"",
        "text": b"<html>not found</html>" * 100,
    }
    file.write_bytes(content[damage])
    refused(webdataset(shards, tmp_path, public_records=5), "a-1.tar is not a whole tar file")


def test_random_damage_is_never_a_traceback(shards: Path, tmp_path: Path) -> None:
    file = shards / "a-0.tar"
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    for trial in range(200):
        content = bytearray(whole)
        place = int(rng.integers(len(whole.rstrip(b"\0"))))
        if trial % 4:
            content[place] ^= int(rng.integers(1, 256))
        else:
            del content[place:]
        file.write_bytes(content)
        files, found = surveyed(shards, tmp_path, public_records=4)
        assert found or len(files) == 4


def test_reading_stays_within_the_member(tmp_path: Path) -> None:
    """A shard that shrinks between index and reading is noticed."""
    write_tar(tmp_path / "s/x.tar", record(1))
    photo = webdataset(tmp_path / "s", tmp_path, public_records=1).survey()["public"][0]
    assert photo.image.read() == image_bytes(1)
    (tmp_path / "s/x.tar").write_bytes((tmp_path / "s/x.tar").read_bytes()[:520])
    with pytest.raises(OSError, match="ends before"):
        photo.image.read()
    assert io.BytesIO(image_bytes(1)).read()[:4] == b"\x89PNG"


def test_a_shard_that_has_become_a_device_is_not_read(tmp_path: Path) -> None:
    """As little as a file that is one: to read it may never end."""
    write_tar(tmp_path / "s/x.tar", record(1))
    photo = webdataset(tmp_path / "s", tmp_path, public_records=1).survey()["public"][0]
    (tmp_path / "s/x.tar").unlink()
    (tmp_path / "s/x.tar").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="not a plain file"):
        photo.image.read()


def header(name: str, size: int) -> bytes:
    """A tar header whose size is a signed number in base 256, as the format allows."""
    block = bytearray(tarfile.TarInfo(name).tobuf())
    block[124:136] = (size % 256**12).to_bytes(12, "big")
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


@pytest.mark.parametrize("size", [-512, -1024, -1])
def test_a_size_below_zero_does_not_lead_back_for_ever(tmp_path: Path, size: int) -> None:
    root = tmp_path / "shards"
    write_tar(root / "a.tar", record(0))
    whole = (root / "a.tar").read_bytes()
    end = len(whole.rstrip(b"\0")) + -len(whole.rstrip(b"\0")) % 512
    (root / "a.tar").write_bytes(whole[:end] + header("000001.png", size) + bytes(1024))
    _, found = surveyed(root, tmp_path)
    assert found[0].kind is Kind.CORRUPT
    assert "not a whole tar file" in found[0].text


def test_compressed_shards_are_refused_with_the_way(shards: Path, tmp_path: Path) -> None:
    """They cannot be read in place: an image has no bytes of its own in them."""
    packed = shards / "b-0.tar.gz"
    packed.write_bytes(gzip.compress((shards / "a-0.tar").read_bytes()))
    corpus = webdataset(shards, tmp_path, public_records=2, files="*.tar.gz")
    refused(corpus, "b-0.tar.gz is not a whole tar file", "gunzip")
