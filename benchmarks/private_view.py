"""The one place where the harness looks at private images: to evaluate, never to release.

Methods cannot come here (``benchmarks`` is above them), and of the metrics only those that declare
``reads = "private"`` may; what comes of it is marked "evaluation, not private" in every record
and table. ``benchmarks.neighbours`` shows them, to their owner alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavedp.dp.evaluation_door import look
from wavedp.dp.private import PrivateRecords


def for_evaluation(private: PrivateRecords, see: Callable[[Tensor], object]) -> None:
    """Call ``see`` with all private images, a batch at a time: uint8 ``[b, 3, H, W]``."""

    def visit(columns: Mapping[str, Any]) -> None:
        see(torch.from_numpy(np.array(columns["images"])))

    look(private, visit)
