"""The table of the speed of data and metrics under pytest-benchmark, one test per row.

The figures are medians of turns that the harness and the bare work took together (see
``comparison.py``); they are each test's ``extra_info``. The time that pytest-benchmark itself shows
is that of the row. A row in which the harness takes longer than it may fails.
"""

import pytest

from benchmarks.throughput.data import open_table, planned, row_of, too_slow, try_to_compare
from benchmarks.throughput.table import device_here

DEVICE = device_here()


@pytest.fixture(scope="module")
def table():
    return open_table(DEVICE)


@pytest.mark.parametrize("comparison", planned(), ids=lambda row: f"{row.work} {row.case}")
def test_row(benchmark, table, comparison):
    found = benchmark.pedantic(try_to_compare, (comparison, DEVICE), rounds=1)
    row = table.put(row_of(comparison, DEVICE, found))
    benchmark.extra_info.update(row)
    if isinstance(found, str):
        pytest.skip(found)
    assert not too_slow(comparison, found), f"{row['time_ratio']}, and {row['at_most']} is allowed"
