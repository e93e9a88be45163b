"""What there is to choose from: ``python -m benchmarks.list``, or some of it by group.

    python -m benchmarks.list                # methods, data sets, metrics, protocols and suites
    python -m benchmarks.list method suite

A line each: the name as an override takes it, and the first sentence of its config.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.config import CONFIGS, unknown
from benchmarks.console import run_command
from benchmarks.installed import installed
from wavedp.dp.errors import UserError

GROUPS = ("method", "dataset", "metric", "protocol", "suite")


def main(groups: list[str]) -> int:
    """Print the groups, all of them if none is named; returns the exit code.

    Raises:
        UserError: there is no such group.
    """
    for group in groups:
        if group not in GROUPS:
            raise UserError(unknown("group", group, GROUPS))
    console = Console(highlight=False)
    for group in groups or GROUPS:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column()
        for name, text in entries(group):
            table.add_row(f"{group}={name}", escape(text))
        console.print(table)
        console.print()
    return 0


def entries(group: str) -> Iterator[tuple[str, str]]:
    """Names in a group, those of this project first, and what each is."""
    folder = CONFIGS / group
    for path in sorted(folder.rglob("*.yaml"), key=lambda path: (path.parent != folder, path)):
        yield path.relative_to(folder).with_suffix("").as_posix(), first_sentence(path)
    if group == "method":
        for method in installed():
            text = "its config is missing"
            if method.folder:
                text = first_sentence(method.folder / "method" / f"{method.name}.yaml")
            yield method.name, f"{text} (of the package {method.package} {method.version})"


def first_sentence(path: Path) -> str:
    """The first sentence of the comment that a config begins with; empty if it has none."""
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        for word in line.removeprefix("#").split():
            words.append(word)
            if word.endswith("."):
                return " ".join(words)
    return " ".join(words)


if __name__ == "__main__":
    run_command(main)
