"""Where the bytes of an image lie: a file, or a part of an archive. Read when they are needed."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wavedp.data.findings import Finding, Kind, Report

MAX_BYTES = 2**28
"""No photograph is larger; without a bound one file could fill the memory of the machine."""
MISSING = (-1, 0)
"""The stamp of what is not there."""


class Stored(Protocol):
    """The bytes of one image, at rest."""

    def read(self) -> bytes:
        """All of them.

        Raises:
            OSError: not there, not readable, or more than :data:`MAX_BYTES`.
        """

    def stamp(self) -> tuple[int, int]:
        """Size in bytes and modification time in ns; :data:`MISSING` where there is nothing.

        Differs whenever the image may have changed. It is not computed from the contents.
        """


@dataclass(frozen=True, slots=True)
class File:
    """A whole file."""

    path: Path

    def read(self) -> bytes:
        """The file's bytes."""
        return read_bounded(self.path, MAX_BYTES, "photograph")

    def stamp(self) -> tuple[int, int]:
        """Missing also where it is a folder, a pipe or a device: reading those may never end."""
        try:
            status = os.stat(self.path)
        except (OSError, ValueError):  # ValueError: a name that no file system can hold
            return MISSING
        return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else MISSING


@dataclass(frozen=True, slots=True)
class Extent:
    """Consecutive bytes of an archive, such as a member of a tar file.

    ``archive_time`` is the archive's modification time in ns.
    """

    path: Path
    offset: int
    size: int
    archive_time: int

    def read(self) -> bytes:
        """The extent's bytes; what lies around them is not touched."""
        return read_bounded(self.path, MAX_BYTES, "photograph", self.offset, self.size)

    def stamp(self) -> tuple[int, int]:
        """The offset tells apart what a rewritten archive of the same age moved."""
        return self.size, self.archive_time + self.offset


def read_bounded(
    path: Path, most: int, what: str, offset: int = 0, size: int | None = None
) -> bytes:
    """``size`` bytes of a plain file from ``offset`` on; by default all of them.

    Raises:
        OSError: not there, not readable, more than ``most``, fewer than ``size``, or a pipe or
            device, whose reading may never end.
    """
    # Without O_NONBLOCK the opening of a pipe waits for somebody to write.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a plain file")
        wanted = status.st_size if size is None else size
        if wanted > most:
            raise OSError(f"larger than {most // 2**20} MiB, no {what}")
        stream.seek(offset)
        data = stream.read(wanted)
    if len(data) < wanted:
        raise OSError("the file ends before it")
    return data


def list_archives(root: Path, pattern: str, side: str, report: Report) -> list[Path]:
    """The files that a pattern such as ``train-*.parquet`` names, sorted.

    Reports that there are none, or a pattern that leaves the root.
    """
    if not pattern or pattern.startswith(("/", "~")) or ".." in pattern.split("/"):
        text = f"The pattern {pattern!r} is not a path below {root}: correct it in the config."
        report(Finding(Kind.UNSAFE, side, (repr(pattern),), text))
        return []
    found = sorted(path for path in root.glob(pattern) if File(path).stamp() != MISSING)
    if not found:
        text = f"{root} has no file {pattern}: complete the folder or correct the pattern."
        report(Finding(Kind.MISSING, side, (pattern,), text))
    return found
