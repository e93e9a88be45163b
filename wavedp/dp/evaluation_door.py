"""The door for evaluation: private records are looked at, no ledger is charged, nothing is private.

Not for methods. Import-linter keeps every module that a method is made of from importing it, and
the harness has one place that does: ``benchmarks/private_view.py``, for metrics which say that
they read private records. What is seen here may be shown to the owner of the data and must never
become part of a release.
"""

from __future__ import annotations

from collections.abc import Callable

from wavedp.dp.private import Columns, PrivateRecords, open_columns


def look(private: PrivateRecords, visit: Callable[[Columns], object], chunk: int = 512) -> None:
    """Call ``visit`` with all private records in order, the columns of up to ``chunk`` at a time.

    Nothing is kept on disk, and what ``visit`` returns is dropped.
    """
    columns = open_columns(private)
    for start in range(0, len(next(iter(columns.values()))), chunk):
        visit({name: values[start : start + chunk] for name, values in columns.items()})
