"""The speed of preparing data and of scoring, beside bare Pillow and bare networks.

    python -m benchmarks.throughput.data              # what is missing from this machine's table
    python -m benchmarks.throughput.data --fresh      # all of it again, a few minutes

Writes ``results/throughput/data-<hardware>.csv``. A row that needs what is not here says so.

Exit code: 1 if the harness takes longer than a row allows, else 0.
"""

from __future__ import annotations

import sys

from benchmarks.throughput import distances, networks, photographs
from benchmarks.throughput.comparison import Comparison
from benchmarks.throughput.sheet import Sheet


def planned() -> list[Comparison]:
    """The rows of a table."""
    return [*photographs.planned(), *networks.planned(), *distances.planned()]


SHEET = Sheet("data", planned)

if __name__ == "__main__":
    sys.exit(SHEET.main("Speed of preparing data and of scoring."))
