"""The table of the core's speed under pytest-benchmark, one test per row.

The figures are ratios of private to ordinary steps that took turns (see ``measure.py``); they
are each test's ``extra_info``. The time that pytest-benchmark itself shows is that of the row.
"""

import pytest

from benchmarks.throughput.core import effort, open_table, planned, row_of, try_to_measure
from benchmarks.throughput.table import device_here

DEVICE = device_here()
ROWS = planned(DEVICE)


@pytest.fixture(scope="module")
def table():
    return open_table(DEVICE)


def name(row):
    case, engine = row
    kind = "-compiled" if case.compiled else ""
    return f"{case.model}-{case.tokens}-{case.dtype}{kind}-{engine}"


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_row(benchmark, table, row):
    case, engine = row
    found = benchmark.pedantic(try_to_measure, (case, engine, effort(DEVICE, engine)), rounds=1)
    benchmark.extra_info.update(table.put(row_of(case, engine, found)))
    if isinstance(found, str):
        pytest.skip(found)
