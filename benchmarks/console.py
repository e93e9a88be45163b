"""What the terminal shows: progress bars with time left, and errors in one sentence."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from wavedp.dp.errors import UserError

console = Console(stderr=True, highlight=False, soft_wrap=False)


def track(steps: Iterable[int], label: str, total: int | None = None) -> Iterator[int]:
    """Iterate with a progress bar that disappears when it is done."""
    with Progress(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as progress:
        size = total if total is not None else len(steps)  # type: ignore[arg-type]
        task = progress.add_task(label, total=size)
        for step in steps:
            yield step
            progress.advance(task)


def run_command(main: Callable[[list[str]], int]) -> None:
    """Run a command line: a :class:`UserError` is one sentence and exit code 2."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="opacus")
    try:
        code = main(sys.argv[1:])
    except UserError as error:
        console.print(f"[red]error:[/red] {error}", markup=True, soft_wrap=True)
        code = 2
    except KeyboardInterrupt:
        console.print("stopped; run the same command again to go on.")
        code = 130
    sys.exit(code)
