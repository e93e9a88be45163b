"""Ctrl-C, and the signal by which clusters take a machine back: stop after what is safe.

The first one lets the step that runs come to its end, whose checkpoint is then taken; the second
ends at once, which loses what was done since the last checkpoint and nothing else.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""Ctrl-C, what most clusters send, and what submitit asks SLURM to send."""

_asked = False


def asked() -> bool:
    """Whether somebody wants this process to stop."""
    return _asked


def stop_if_asked() -> None:
    """For places where nothing is lost.

    Raises:
        KeyboardInterrupt: somebody wants this process to stop.
    """
    if _asked:
        raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[None]:
    """Within it, the first signal is :func:`asked` for and the second one ends the process."""
    global _asked

    def ask(number: int, frame: FrameType | None) -> None:
        global _asked
        if _asked:
            raise KeyboardInterrupt
        _asked = True
        # Not through the console, in whose middle the signal may have come.
        os.write(2, b"\nstopping after this step; once more stops at once.\n")

    _asked = False
    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked = False
