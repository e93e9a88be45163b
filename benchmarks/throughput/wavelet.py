"""The speed of DP-Wavelet's parts: transform, finetuning, sampling.

    python -m benchmarks.throughput.wavelet           # what is missing from this machine's table
    python -m benchmarks.throughput.wavelet --fresh   # all of it again, a few minutes

Writes ``results/throughput/wavelet-<hardware>.csv``. The transform stands beside a loop of
PyWavelets over the images, cached sampling beside the plain forward pass for every token, and a
private finetuning step beside the same step without privacy.

Exit code: 1 if a row takes longer than it may, else 0.
"""

from __future__ import annotations

import sys

from benchmarks.throughput import priors, transforms
from benchmarks.throughput.comparison import Comparison
from benchmarks.throughput.sheet import Sheet


def planned() -> list[Comparison]:
    """The rows of a table."""
    return [*transforms.planned(), *priors.planned()]


SHEET = Sheet("wavelet", planned)

if __name__ == "__main__":
    sys.exit(SHEET.main("Speed of the wavelet transform, of finetuning and of sampling."))
