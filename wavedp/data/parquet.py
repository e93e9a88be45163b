"""Images and captions in parquet files: one row per record, the image as bytes.

The image column holds the bytes of an image file, plain or in the field ``bytes`` of a struct
(the Hugging Face convention). The text column holds a caption or a list of them; a class label
becomes a caption with a ``template``. Rows keep the order of the files, which are sorted by name.

Images are read by row group, when they are decoded: memory holds one row group per core, so a
file may be of any size.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from wavedp.data.captions import check_template, clean_captions
from wavedp.data.findings import Finding, Kind, Report
from wavedp.data.photos import (
    EVALUATION,
    PRIVATE,
    PUBLIC,
    Photo,
    PhotoCorpus,
    PhotoDataset,
    part_settings,
    take,
)
from wavedp.data.stored import MAX_BYTES, File, list_archives
from wavedp.dp.errors import UserError, one_line

_TEXT_ROWS = 4096
# What pyarrow raises on damaged files. Its own errors are ValueError, KeyError and others, too.
_DAMAGED = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, OverflowError)


@dataclass(frozen=True)
class Columns:
    """How a parquet file is read.

    Attributes:
        image: the column with the image bytes.
        text: the column with the caption, captions or class label.
        template: None, or what makes captions of labels: ``"a photo of a {label}"``.
        only: texts as the column has them, such as class labels; a row without any of them is
            passed over. None takes every row.
    """

    image: str = "image"
    text: str = "text"
    template: str | None = None
    only: Sequence[str] | None = None

    def check(self) -> None:
        """Raises:
        UserError: a setting that reads no file.
        """
        check_template(self.template)
        if isinstance(self.only, str) or (self.only is not None and not self.only):
            raise UserError(
                f"dataset.only={self.only} must be a list of texts, such as [cat,dog], or null."
            )

    def takes(self, texts: Sequence[object]) -> bool:
        """Whether a row with these texts is a record."""
        return self.only is None or any(text in self.only for text in texts)

    def told(self, source: Path) -> str:
        """What is read of a source, for messages."""
        return f"{source}" if self.only is None else f"{source}, text {' or '.join(self.only)}"


class Parquet(PhotoDataset):
    """Parquet files with a private and an evaluation side.

    Args:
        private: ``files``, a file or pattern relative to the root (``data/train-*.parquet``).
            Optionally ``start``, default 0: the rows ``start`` to ``start + private_records``
            are private, of those that are taken.
        evaluation: the same; it may name the same files with another ``start``.
        image, text, template, only: see :class:`Columns`.
        settings: those of :class:`~wavedp.data.photos.PhotoDataset`.
    """

    holds: ClassVar[str] = "the parquet files"

    def __init__(
        self,
        *,
        private: Mapping[str, Any],
        evaluation: Mapping[str, Any],
        image: str = "image",
        text: str = "text",
        template: str | None = None,
        only: Sequence[str] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._parts = {PRIVATE: dict(private), EVALUATION: dict(evaluation)}
        self._columns = Columns(image, text, template, only)

    def index(self, root: Path, report: Report) -> dict[str, list[Photo]]:
        """Both sides, in the order of the rows."""
        self._columns.check()
        sides: dict[str, list[Photo]] = {}
        for side, given in self._parts.items():
            part = part_settings(given, side, files=..., start=0)
            sides[side] = take(
                list_rows(root, part["files"], self._columns, side, report),
                self.declared[side],
                side=side,
                source=self._columns.told(root / str(part["files"])),
                start=part["start"],
                report=report,
            )
        return sides


class PublicParquet(PhotoCorpus):
    """A public corpus in parquet files; ``files`` and the columns as in :class:`Parquet`."""

    holds: ClassVar[str] = "the parquet files"

    def __init__(
        self,
        *,
        files: str = "*.parquet",
        image: str = "image",
        text: str = "text",
        template: str | None = None,
        only: Sequence[str] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._files, self._columns = files, Columns(image, text, template, only)

    def index(self, root: Path, report: Report) -> dict[str, list[Photo]]:
        """The public records, in the order of the rows."""
        self._columns.check()
        rows = list_rows(root, self._files, self._columns, PUBLIC, report)
        source = self._columns.told(root / self._files)
        return {PUBLIC: take(rows, self.public_records, side=PUBLIC, source=source, report=report)}


def list_rows(
    root: Path, pattern: str, columns: Columns, side: str, report: Report
) -> Iterator[Photo]:
    """One record per row, lazily; images are not read.

    Reports a pattern without files, and files that are no parquet or lack a column.
    """
    for path in list_archives(root, pattern, side, report):
        name = path.relative_to(root).as_posix()
        try:
            yield from _rows_of(path, name, columns)
        except _DAMAGED as error:
            text = f"{path} cannot be read as parquet ({one_line(error)}): copy it again."
            report(Finding(Kind.CORRUPT, side, (name,), text))


def _rows_of(path: Path, name: str, columns: Columns) -> Iterator[Photo]:
    with pq.ParquetFile(path) as file:
        known = file.schema_arrow.names
        for setting, column in (("image", columns.image), ("text", columns.text)):
            if column not in known:
                raise ValueError(
                    f"no column {column!r} but {', '.join(known)}; set dataset.{setting}"
                )
        total = 0
        for group in range(file.num_row_groups):
            batches = file.iter_batches(_TEXT_ROWS, row_groups=[group], columns=[columns.text])
            row = 0
            for batch in batches:
                for value in batch.column(0).to_pylist():
                    texts = value if isinstance(value, list) else [value]
                    if columns.takes(texts):
                        place = f"{name}/{total}"
                        captions = clean_captions(texts, columns.template)
                        cell = Cell(path, columns.image, group, row)
                        yield Photo(place, place, captions, name, cell)
                    row, total = row + 1, total + 1


@dataclass(frozen=True, slots=True)
class Cell:
    """The bytes in one cell of a parquet file."""

    path: Path
    column: str
    group: int
    row: int

    def read(self) -> bytes:
        """The cell's bytes, from the row group that this thread read last if it is in it."""
        stamp = File(self.path).stamp()
        wanted = (self.path, self.column, self.group, stamp)
        if getattr(_last, "wanted", None) != wanted:
            _last.wanted, _last.cells = None, None  # let go of one before reading the next
            _last.cells = _read_group(self.path, self.column, self.group)
            _last.wanted = wanted
        if self.row >= len(_last.cells):
            raise OSError("the file has fewer rows than when it was listed")
        value = _last.cells[self.row].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes) or len(data) > MAX_BYTES:
            raise OSError("the cell holds no bytes of an image")
        return data

    def stamp(self) -> tuple[int, int]:
        """Size and time of the file; which cell it is, the record's name tells."""
        return File(self.path).stamp()


_last = threading.local()


def _read_group(path: Path, column: str, group: int) -> pa.ChunkedArray:
    """Raises:
    OSError: the file is damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            return file.read_row_group(group, columns=[column], use_threads=False).column(0)
    except _DAMAGED as error:
        raise OSError(f"{path.name}: {one_line(error)}") from error
