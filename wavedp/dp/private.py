"""The sealed handle on private records.

A method gets a :class:`PrivateRecords` and can do two things with it: hand it to the trainer
together with a per-example loss, or ``map`` a frozen per-record function over it, which gives
another sealed handle. There is no indexing, no iteration, no length and no pickling, so that
a method cannot look at private data by accident. It prevents mistakes, not malice. Evaluation has
a door of its own, which no method can reach: :mod:`wavedp.dp.evaluation_door`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from wavedp.dp.errors import UserError
from wavedp.dp.progress import Progress, silent
from wavedp.dp.store import PrivateStore

Columns = Mapping[str, Any]
PerRecord = Callable[[Columns], Mapping[str, Tensor]]


class PrivateRecords:
    """Private records, sealed.

    Args:
        columns: name to a tensor, array or list with one entry per record.
        name: name and version of the data set, public.
        records: N, the declared number of records: a public constant from the config.
            The true number may differ by the record that a neighbouring data set adds
            or lacks, and is never shown.
        store: where results of :meth:`map` are kept between runs; None keeps nothing.
    """

    __slots__ = ("__columns", "__store", "name", "records")

    def __init__(
        self, columns: Columns, *, name: str, records: int, store: PrivateStore | None = None
    ) -> None:
        sizes = {len(values) for values in columns.values()}
        if len(sizes) != 1:
            raise ValueError("every column needs one entry per record")
        self.__columns = dict(columns)
        self.__store = store
        self.name = name
        self.records = records

    def map(
        self, *functions: PerRecord, chunk: int = 512, progress: Progress = silent
    ) -> PrivateRecords:
        """Apply frozen, public, per-record functions and seal their results side by side.

        Args:
            functions: each from columns of up to ``chunk`` records to tensors with one row per
                record. It must treat every record on its own (so no batch statistics) and
                must not learn: it runs without gradients. If it has an attribute ``key``, a
                public name of itself and all that it depends on (such as the digest of its
                weights), and there is a store, its result is kept on disk under that name.
            chunk: how many records at a time; the result must not depend on it.
            progress: called with the chunks.

        Raises:
            UserError: a function does not return one row per record, or two return columns
                of the same name.
        """
        mapped: dict[str, Tensor] = {}
        for function in functions:
            columns = self._kept(function, chunk, progress)
            if twice := mapped.keys() & columns.keys():
                raise UserError(f"Two mapped functions return a column {sorted(twice)[0]!r}.")
            mapped |= columns
        keys = [getattr(function, "key", None) for function in functions]
        store = self.__store.derived(str(keys)) if self.__store and None not in keys else None
        return PrivateRecords(mapped, name=self.name, records=self.records, store=store)

    def _kept(self, function: PerRecord, chunk: int, progress: Progress) -> dict[str, Tensor]:
        key = getattr(function, "key", None)
        if self.__store is None or key is None:
            return self._mapped(function, chunk, progress)
        kept = self.__store.load(key)
        if kept is None or _size(kept) != _size(self.__columns):
            kept = self._mapped(function, chunk, progress)
            self.__store.save(key, kept)
        return kept

    def _mapped(self, function: PerRecord, chunk: int, progress: Progress) -> dict[str, Tensor]:
        # As many parts as the declared number asks for, whatever the true one is.
        size, count = _size(self.__columns), max(1, -(-self.records // chunk))
        parts: list[Mapping[str, Tensor]] = []
        with torch.no_grad():
            for part in progress(range(count), "encoding private records"):
                own = slice(part * size // count, (part + 1) * size // count)
                if own.start < own.stop:
                    parts.append(function({k: v[own] for k, v in self.__columns.items()}))
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        if _size(joined) != size:
            raise UserError("A mapped function must return one row per record.")
        return joined

    def __repr__(self) -> str:
        return f"PrivateRecords(name={self.name!r}, records={self.records})"

    def _sealed(self, *_: object) -> NoReturn:
        raise TypeError(
            "Private records cannot be read by a method: hand them to Trainer.fit with a "
            "per-example loss, or map a frozen per-record function over them."
        )

    __getitem__ = __iter__ = __len__ = __contains__ = _sealed
    __reduce_ex__ = __copy__ = __deepcopy__ = _sealed


def _size(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def open_columns(private: PrivateRecords) -> Columns:
    """The columns behind the seal: for the core and for mechanisms that charge the ledger.

    Nothing outside ``wavedp.dp`` may import this; ``tests/test_house.py`` checks it.
    """
    columns: Columns = private._PrivateRecords__columns  # type: ignore[attr-defined]
    return columns
