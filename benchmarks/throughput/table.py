"""``results/throughput/core-<hardware>.csv``: a row as soon as it is measured.

Beside it a ``.json`` says what all its rows were measured with. A table of another torch,
number of threads or code revision is not continued but begun again.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.provenance import code_revision, processor
from benchmarks.throughput.cases import Case
from benchmarks.throughput.measure import Measured

KEY = ("model", "engine", "batch", "tokens", "dtype", "compiled")
COLUMNS = (
    *KEY,
    "time_ratio",
    "memory_ratio",
    "examples_per_s",
    "time_low",
    "time_high",
    "micro_batch",
    "status",
    "reason",
)
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


class Table:
    """The table of one machine, on disk.

    Args:
        folder: of the results.
        machine: named in the file; see :class:`Machine`.
        planned: ``(case, engine)`` of every row, in order: those that were not measured say so.
        fresh: begin again, whatever is there.
    """

    def __init__(
        self,
        folder: Path,
        machine: Machine,
        planned: Iterable[tuple[Case, str]],
        fresh: bool = False,
    ) -> None:
        self.path = folder / f"core-{machine.hardware}.csv"
        self._rows = {}
        for case, engine in planned:
            row = _missing(case, engine, "not measured yet")
            self._rows[_key(row)] = row
        about, described = self.path.with_suffix(".json"), asdict(machine)
        if not fresh and self.path.exists() and _read_json(about) == described:
            self._rows |= {_key(row): row for row in _read(self.path) if _key(row) in self._rows}
        folder.mkdir(parents=True, exist_ok=True)
        about.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        self._write()

    def has(self, case: Case, engine: str) -> bool:
        """Whether the row was measured."""
        row = self._rows.get(_key(_missing(case, engine, "")))
        return row is not None and row["status"] == "measured"

    def put(self, case: Case, engine: str, found: Measured | str) -> Row:
        """Write a row down: what was measured, or why it was not."""
        row = _missing(case, engine, found) if isinstance(found, str) else _row(case, engine, found)
        self._rows[_key(row)] = row
        self._write()
        return row

    def _write(self) -> None:
        partial = self.path.with_suffix(".tmp")
        with partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows.values())
        partial.replace(self.path)


def _row(case: Case, engine: str, found: Measured) -> Row:
    figures = {
        "time_ratio": f"{found.time_ratio:.3f}",
        "time_low": f"{found.low:.3f}",
        "time_high": f"{found.high:.3f}",
        "memory_ratio": f"{found.memory_ratio:.3f}",
        "examples_per_s": f"{found.examples_per_s:.4g}",
    }
    return _missing(case, engine, "") | figures | {"status": "measured"}


def _missing(case: Case, engine: str, reason: str) -> Row:
    known = {
        "model": case.model,
        "engine": engine,
        "batch": str(case.batch),
        "tokens": str(case.tokens),
        "dtype": case.dtype,
        "compiled": str(case.compiled).lower(),
        "micro_batch": str(case.micro_batch),
        "status": "missing",
        "reason": reason,
    }
    return {column: known.get(column, "") for column in COLUMNS}


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row[column] for column in KEY)


def _read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
