"""``results/throughput/<what>-<hardware>.csv``: a row as soon as it is measured.

Beside it a ``.json`` says what all its rows were measured with. A table of another torch,
number of threads or code revision is not continued but begun again.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.provenance import code_revision, processor
from benchmarks.written import write

RESULTS = Path(__file__).resolve().parents[2] / "results" / "throughput"
MEASURED, MISSING = "measured", "missing"
"""What a row's ``status`` is; where it is missing, ``reason`` says why."""
Row = dict[str, str]


@dataclass(frozen=True)
class Machine:
    """What every row of a table was measured with."""

    hardware: str
    processor: str
    threads: int
    torch_version: str
    code_revision: str
    malloc: dict[str, str]

    @classmethod
    def here(cls, device: str) -> Machine:
        name = torch.cuda.get_device_name() if device == "cuda" else f"{_threads()}-cpu"
        return cls(
            hardware=re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"),
            processor=processor(),
            threads=torch.get_num_threads(),
            torch_version=torch.__version__,
            code_revision=code_revision(),
            # How glibc keeps freed buffers (see the Makefile) changes times on a CPU.
            malloc={k: v for k, v in sorted(os.environ.items()) if k.startswith("MALLOC_")},
        )


def _threads() -> str:
    count = torch.get_num_threads()
    return "1-thread" if count == 1 else f"{count}-threads"


def device_here() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


class Table:
    """The table of one machine, on disk.

    Args:
        path: the file.
        machine: what its rows are measured with; see :class:`Machine`.
        key: the columns that tell its rows apart.
        columns: all of them, ``status`` and ``reason`` among them.
        planned: every row, in order, as it is before it is measured.
        fresh: begin again, whatever is there.
    """

    def __init__(
        self,
        path: Path,
        machine: Machine,
        key: Sequence[str],
        columns: Sequence[str],
        planned: Iterable[Row],
        fresh: bool = False,
    ) -> None:
        self.path = path
        self._key, self._columns = key, columns
        self._rows = {self._place(row): row for row in planned}
        about, described = path.with_suffix(".json"), asdict(machine)
        # Two states of changed code have one revision, so a table of changed code is not continued.
        same = _read_json(about) == described and not machine.code_revision.endswith("+")
        if not fresh and path.exists() and same:
            kept = {self._place(row): row for row in _read(path)}
            self._rows |= {place: row for place, row in kept.items() if place in self._rows}
        write(about, json.dumps(described, indent=2) + "\n")
        self._write()

    @property
    def rows(self) -> list[Row]:
        """All of them, in order."""
        return list(self._rows.values())

    def has(self, row: Row) -> bool:
        """Whether the row with these keys was measured."""
        found = self._rows.get(self._place(row))
        return found is not None and found["status"] == MEASURED

    def put(self, row: Row) -> Row:
        """Write a row down: what was measured, or why it was not."""
        self._rows[self._place(row)] = row
        self._write()
        return row

    def show(self, row: Row) -> None:
        """Print a row as one line."""
        print("  ".join(row[column] for column in self._columns if row[column]), flush=True)

    def _place(self, row: Row) -> tuple[str, ...]:
        return tuple(row[column] for column in self._key)

    def _write(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows.values())
        write(self.path, text.getvalue())


def _read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
