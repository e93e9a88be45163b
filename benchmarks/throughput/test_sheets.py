"""The tables of comparisons under pytest-benchmark, one test per row.

The figures are medians of turns that both sides took together (see ``comparison.py``); they
are each test's ``extra_info``. The time that pytest-benchmark itself shows is that of the row. A
row that takes longer than it may fails.
"""

import pytest

from benchmarks.throughput.data import SHEET as DATA
from benchmarks.throughput.sheet import row_of, too_slow, try_to_compare
from benchmarks.throughput.table import device_here
from benchmarks.throughput.wavelet import SHEET as WAVELET

DEVICE = device_here()
ROWS = [(sheet, row) for sheet in (DATA, WAVELET) for row in sheet.planned()]
NAMES = [f"{sheet.name} {row.work} {row.case}" for sheet, row in ROWS]


@pytest.fixture(scope="module")
def tables():
    return {sheet.name: sheet.open(DEVICE) for sheet in (DATA, WAVELET)}


@pytest.mark.parametrize(("sheet", "comparison"), ROWS, ids=NAMES)
def test_row(benchmark, tables, sheet, comparison):
    found = benchmark.pedantic(try_to_compare, (comparison, DEVICE), rounds=1)
    row = tables[sheet.name].put(row_of(comparison, DEVICE, found))
    benchmark.extra_info.update(row)
    if isinstance(found, str):
        pytest.skip(found)
    assert not too_slow(row), f"{row['time_ratio']}, and {row['at_most']} is allowed"
