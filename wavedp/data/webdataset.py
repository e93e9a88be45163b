"""Public corpora in WebDataset shards: tar files in which the members of a record are neighbours.

Layout (https://github.com/webdataset/webdataset, "The WebDataset Format"): members of one record
share the path up to the first dot of the file name, ``000012.jpg`` and ``000012.txt``. One ending
holds the image, one the captions (one per line) or a class label.

Only the headers and the texts of a shard are read for the index, without unpacking anything; an
image is read from its place in the shard when it is decoded. So a shard may be of any size. A
shard is never trusted: links, devices and names that leave the folder are reported.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

from wavedp.data.captions import check_template, clean_captions
from wavedp.data.findings import Finding, Kind, Report
from wavedp.data.names import is_inside
from wavedp.data.photos import PUBLIC, Photo, PhotoCorpus, take
from wavedp.data.stored import Extent, list_archives

_MAX_TEXT = 2**20
_ZEROS_READ = 2**16


class WebDataset(PhotoCorpus):
    """A public corpus in tar shards.

    Args:
        files: a shard or a pattern relative to the root; shards are sorted by name.
        image: the endings of image members, in any case.
        text: the ending of the member with captions or the class label (``txt``, ``cls``).
        template: None, or what makes captions of labels: ``"a photo of a {label}"``.
        settings: those of :class:`~wavedp.data.photos.PhotoCorpus`.
    """

    holds: ClassVar[str] = "the .tar shards"

    def __init__(
        self,
        *,
        files: str = "*.tar",
        image: Sequence[str] = ("jpg", "jpeg", "png", "webp"),
        text: str = "txt",
        template: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._files, self._image, self._text, self._template = files, image, text, template

    def index(self, root: Path, report: Report) -> dict[str, list[Photo]]:
        """The public records, in the order of the shards."""
        check_template(self._template)
        photos = self._photos(root, report)
        source = root / self._files
        return {
            PUBLIC: take(photos, self.public_records, side=PUBLIC, source=source, report=report)
        }

    def _photos(self, root: Path, report: Report) -> Iterator[Photo]:
        for path in list_archives(root, self._files, PUBLIC, report):
            name = path.relative_to(root).as_posix()
            for members in _neighbours(list_members(path, name, self._text, report)):
                yield from self._photo(name, members, report)

    def _photo(self, shard: str, members: list[Member], report: Report) -> Iterator[Photo]:
        images = [m for m in members if m.ending.lower() in self._image]
        place = f"{shard}/{members[0].key}"
        if len(images) != 1:
            text = (
                f"{place} has {len(images)} images among its members "
                f"({', '.join(m.ending for m in members)}) and a record is one: correct the shard "
                "or dataset.image."
            )
            report(Finding(Kind.MISSING if not images else Kind.REPEATED, PUBLIC, (place,), text))
            return
        texts = [line for m in members if m.text is not None for line in m.text.split("\n")]
        captions = clean_captions(texts, self._template)
        yield Photo(place, f"{place}.{images[0].ending}", captions, shard, images[0].image)


class Member(NamedTuple):
    """One regular member of a shard.

    Attributes:
        key: its path up to the first dot of its name; equal for the members of a record.
        ending: what follows that dot.
        image: its bytes, where they lie.
        text: them as text, for the ending that holds the captions, else None.
    """

    key: str
    ending: str
    image: Extent
    text: str | None


def list_members(path: Path, shard: str, text: str, report: Report) -> Iterator[Member]:
    """The members of a tar file in order, headers only, lazily.

    Reports members that are no plain files (folders are passed over), names that leave the
    folder, texts that are not UTF-8, and a shard that is damaged, cut short or compressed.
    """
    try:
        with open(path, "rb") as stream:
            yield from _members(stream, path, shard, text, report)
    except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError) as error:
        reason = (
            f"{path} is not a whole tar file ({error}): copy it again, and unpack a compressed "
            "one with gunzip first."
        )
        report(Finding(Kind.CORRUPT, PUBLIC, (shard,), reason))


def _members(
    stream: IO[bytes], path: Path, shard: str, text: str, report: Report
) -> Iterator[Member]:
    time = path.stat().st_mtime_ns
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        reached = -1
        while (info := tar.next()) is not None:
            # A size below zero would lead back to a header that was read already, for ever.
            if info.size < 0 or tar.offset <= reached:
                raise tarfile.ReadError(f"a header before byte {tar.offset} has no possible size")
            reached = tar.offset
            # Or a long shard would fill the memory with its headers.
            tar.members.clear()  # type: ignore[attr-defined]
            if _is_sound(info, shard, report):
                extent = Extent(path, info.offset_data, info.size, time)
                folder, _, name = info.name.rpartition("/")
                stem, _, ending = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                words = _text(stream, info, shard, report) if ending == text else None
                yield Member(key, ending, extent, words)
        _check_end(stream, tar.offset)


def _is_sound(info: tarfile.TarInfo, shard: str, report: Report) -> bool:
    """Whether a member is a plain file with a name that stays in its folder."""
    if info.isdir():
        return False
    plain = info.isreg() and not info.issparse()
    if plain and is_inside(info.name.removeprefix("./")):
        return True
    what = "is a link, device or sparse file" if not plain else "has a name that leaves the folder"
    text = f"{shard}: member {info.name!r} {what}: do not trust this shard, fetch it again."
    report(Finding(Kind.UNSAFE, PUBLIC, (f"{shard}/{info.name}",), text))
    return False


def _text(stream: IO[bytes], info: tarfile.TarInfo, shard: str, report: Report) -> str:
    place = stream.tell()
    stream.seek(info.offset_data)
    data = stream.read(min(info.size, _MAX_TEXT + 1))
    stream.seek(place)
    try:
        if len(data) <= _MAX_TEXT:
            return data.decode("utf-8-sig")
        reason = "is longer than a mebibyte"
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 text (byte {error.start})"
    text = f"{shard}: member {info.name!r} {reason}: make the shard again."
    report(Finding(Kind.TEXT, PUBLIC, (f"{shard}/{info.name}",), text))
    return ""


def _check_end(stream: IO[bytes], offset: int) -> None:
    """A tar file ends with zeros. Python's reader also stops, silently, at a damaged header.

    Raises:
        tarfile.ReadError: something else follows the last member, or nothing does.
    """
    stream.seek(offset)
    if len(stream.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it has no end mark, so it may be cut short")
    stream.seek(offset)
    while data := stream.read(_ZEROS_READ):
        if data.strip(b"\0"):
            raise tarfile.ReadError(f"a damaged header, or a second archive, after byte {offset}")


def _neighbours(members: Iterator[Member]) -> Iterator[list[Member]]:
    """Consecutive members of the same record."""
    record: list[Member] = []
    for member in members:
        if record and member.key != record[0].key:
            yield record
            record = []
        record.append(member)
    if record:
        yield record
