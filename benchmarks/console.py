"""What the terminal shows: progress bars with time left, and errors in one sentence."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from benchmarks.stopping import stop_if_asked, stoppable
from wavedp.dp.errors import UserError

T = TypeVar("T")
console = Console(stderr=True, highlight=False, soft_wrap=False)


def track(steps: Iterable[T], label: str, stops: bool = True) -> Iterator[T]:
    """Iterate over a sized sequence with a progress bar that disappears when it is done.

    Args:
        stops: False where several ranks take the steps, and one must not leave alone.

    Raises:
        KeyboardInterrupt: between two steps, when somebody wants to stop.
    """
    with _bar() as bar:
        task = bar.add_task(label, total=len(steps))  # type: ignore[arg-type]
        for step in steps:
            if stops:
                stop_if_asked()
            yield step
            bar.advance(task)


def track_images(batches: Iterable[Tensor], total: int, label: str) -> Iterator[Tensor]:
    """As :func:`track`, over batches, with a bar that counts images."""
    with _bar() as bar:
        task = bar.add_task(label, total=total)
        for images in batches:
            stop_if_asked()
            yield images
            bar.advance(task, len(images))


def _bar() -> Progress:
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # in a log, an unfinished bar is only noise
    )


def run_command(main: Callable[[list[str]], int]) -> None:
    """Run a command line: a :class:`UserError` is one sentence and exit code 2."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="opacus")
    try:
        with stoppable():
            code = main(sys.argv[1:])
    except UserError as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        code = 2
    except KeyboardInterrupt:
        console.print("stopped; run the same command again to go on (force=true would begin anew).")
        code = 130
    sys.exit(code)
