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

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)
"""Ctrl-C, what most clusters send, what submitit asks SLURM to send, and a terminal that closes."""
LEADER = "WAVEDP_LEADER"
"""The process by which a helper was started (:mod:`benchmarks.workers`), in its environment."""

_asked = False


def asked() -> bool:
    """Whether somebody wants this process to stop; that of a helper's leader is gone."""
    return _asked or os.environ.get(LEADER, str(os.getppid())) != str(os.getppid())


def stop_if_asked() -> None:
    """For places where nothing is lost.

    Raises:
        KeyboardInterrupt: somebody wants this process to stop.
    """
    if asked():
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
    before = {number: signal.signal(number, ask) for number in SIGNALS if not _outlives(number)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked = False


def _outlives(number: int) -> bool:
    """Whether this is the signal of a closed terminal, and `nohup` wants it to be ignored."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
