"""What the embedded sets share: lazy captions, drawing in chunks, a cache on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from wavedp.data.drawing import Array, Attributes, Canvas, Dice, Draws
from wavedp.data.schema import Records
from wavedp.dp.errors import UserError
from wavedp.dp.private import PrivateRecords
from wavedp.dp.progress import Progress, silent
from wavedp.dp.store import PrivateStore
from wavedp.dp.written import replacing

EVALUATION_OFFSET = 10_000_000
"""Index of the first evaluation record: private records lie below it."""
_UNIFORMS_PER_CAPTION = 24


class ToySet:
    """A set of procedural captioned pictures, a function of (seed, index).

    A subclass gives the law of the attributes, the picture and the grammar.

    Args:
        resolution: 32 or 64 pixels.
        seed: another seed gives another set of the same law.
        cache_dir: where drawn pictures are kept.
        name: what results call it; by default its domain.
    """

    domain: str
    """Names the random streams: two sets never share one."""
    version = "1"
    captions_per_record = 5
    chunk = 128
    """How many pictures to draw at a time at 32 px: more where few of them share a shape."""

    def __init__(
        self,
        *,
        resolution: int = 32,
        seed: int,
        cache_dir: str = ".cache",
        name: str | None = None,
    ) -> None:
        self.name = name or self.domain
        self.resolution = resolution
        self.seed = seed
        self._cache = Path(cache_dir) / "toy"

    def attributes(self, indices: Sequence[int] | Array) -> Attributes:
        """What the records show, by name, ``[n]`` each."""
        raise NotImplementedError

    def looks(self, indices: Sequence[int] | Array, attributes: Attributes) -> Attributes:
        """What no caption mentions: pose, proportions, shades."""
        raise NotImplementedError

    def paint(self, canvas: Canvas, look: Attributes) -> None:
        """Paint the records with these attributes and looks."""
        raise NotImplementedError

    def caption(self, attributes: Attributes, row: int, dice: Dice) -> str:
        """One caption of one record."""
        raise NotImplementedError

    def _check_resolution(self) -> None:
        if self.resolution not in (32, 64):
            raise UserError(
                f"{self.name} is drawn at 32 or 64 pixels, not {self.resolution}: "
                "set its resolution to 32 or 64."
            )

    def draws(self, indices: Sequence[int] | Array) -> Draws:
        """This set's randomness for some records."""
        return Draws(self.seed, self.domain, indices)

    def draw(self, indices: Sequence[int] | Array) -> Array:
        """Pictures, uint8 ``[n, 3, resolution, resolution]``, without the cache."""
        return self.render(indices, self.attributes(indices))

    def render(self, indices: Sequence[int] | Array, attributes: Attributes) -> Array:
        """Pictures of records with other attributes than their own."""
        canvas = Canvas.blank(len(indices), self.resolution)
        self.paint(canvas, attributes | self.looks(indices, attributes))
        return canvas.image()

    def captions(self, indices: range) -> list[tuple[str, ...]]:
        """All captions of some records."""
        attributes = self.attributes(indices)
        shape = len(indices), self.captions_per_record, _UNIFORMS_PER_CAPTION
        uniforms = self.draws(indices).table("captions", shape[1] * shape[2]).reshape(shape)
        return [
            tuple(self.caption(attributes, row, Dice(u)) for u in uniforms[row])
            for row in range(len(indices))
        ]

    def records(self, start: int, stop: int, progress: Progress = silent) -> Records:
        """Records ``start`` to ``stop`` (exclusive): pictures from the cache, lazy captions.

        Raises:
            UserError: the pictures are not designed for this resolution.
        """
        self._check_resolution()
        indices = range(start, stop)
        return Records(self._stored(indices, progress), LazyCaptions(self, indices), self.name)

    @property
    def _label(self) -> str:
        """What the pictures are a function of, besides their indices."""
        return f"{self.domain}-{self.version}-{self.resolution}px-seed{self.seed}"

    def _stored(self, indices: range, progress: Progress) -> Array:
        path = self._cache / f"{self._label}-{indices.start}-{indices.stop}.npy"
        shape = len(indices), 3, self.resolution, self.resolution
        stored = _kept(path, shape)
        if stored is None:
            self._store(path, indices, progress)
            stored = _kept(path, shape)
            assert stored is not None
        return stored

    def _store(self, path: Path, indices: range, progress: Progress) -> None:
        shape = len(indices), 3, self.resolution, self.resolution
        with replacing(path) as file:
            form = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, form)
            step = self.chunk * 32**2 // self.resolution**2
            for first in progress(range(0, len(indices), step), f"drawing {self.name}"):
                file.write(np.ascontiguousarray(self.draw(indices[first : first + step])).data)


def _kept(path: Path, shape: tuple[int, ...]) -> Array | None:
    """The pictures in a file, memory-mapped; None if they are not all there."""
    try:
        stored: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return stored if stored.shape == shape and stored.dtype == np.uint8 else None


class LazyCaptions(Sequence[tuple[str, ...]]):
    """The captions of a range of records, made when asked for."""

    def __init__(self, source: ToySet, indices: range) -> None:
        self._source = source
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, key: int) -> tuple[str, ...]: ...
    @overload
    def __getitem__(self, key: slice) -> LazyCaptions: ...
    def __getitem__(self, key: int | slice) -> tuple[str, ...] | LazyCaptions:
        if isinstance(key, slice):
            return LazyCaptions(self._source, self._indices[key])
        index = self._indices[key]
        return self._source.captions(range(index, index + 1))[0]

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        # In blocks: attributes are drawn for many records in one go.
        for first in range(0, len(self._indices), 256):
            yield from self._source.captions(self._indices[first : first + 256])


class PrivateToySet(ToySet):
    """A toy set with a private and an evaluation side, at disjoint indices.

    Args:
        private_records: N, the declared number of private records.
        evaluation_records: how many records to score against.
    """

    redistributable = True

    def __init__(
        self,
        *,
        resolution: int = 32,
        private_records: int = 4000,
        seed: int = 1,
        evaluation_records: int = 6000,
        cache_dir: str = ".cache",
        name: str | None = None,
    ) -> None:
        super().__init__(resolution=resolution, seed=seed, cache_dir=cache_dir, name=name)
        self.private_records = private_records
        self.evaluation_records = evaluation_records

    def check(self, progress: Progress = silent) -> None:
        """Draw what is not cached yet; refuse a resolution or number that cannot be drawn."""
        self._check_resolution()
        for name in ("private_records", "evaluation_records"):
            count = getattr(self, name)
            if not 0 < count <= EVALUATION_OFFSET:
                raise UserError(
                    f"{self.name}: {name} is {count}; set it to a number from 1 to "
                    f"{EVALUATION_OFFSET:,}."
                )
        self.records(0, self.private_records, progress)
        self._evaluation(progress)

    def private(self) -> PrivateRecords:
        """The private records, sealed: columns ``images`` and ``captions``."""
        records = self.records(0, self.private_records)
        columns = {"images": records.images, "captions": records.captions}
        name = f"{self.name}-{self.version}"
        store = PrivateStore(self._cache / "private", f"{self._label} {self.private_records}")
        return PrivateRecords(columns, name=name, records=self.private_records, store=store)

    def evaluation(self) -> Records:
        """The evaluation records, disjoint from the private ones."""
        return self._evaluation(silent)

    def _evaluation(self, progress: Progress) -> Records:
        stop = EVALUATION_OFFSET + self.evaluation_records
        return self.records(EVALUATION_OFFSET, stop, progress)
