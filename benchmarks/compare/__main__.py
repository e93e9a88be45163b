"""``python -m benchmarks.compare BEFORE AFTER``: exit code 1 if something became worse.

Each side is a suite's folder, a folder of records, or either as a git revision has it:
``python -m benchmarks.compare HEAD~1:results/embedded results/embedded``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from benchmarks.compare.changes import changes
from benchmarks.compare.source import records_of
from benchmarks.compare.tables import as_csv, as_json, print_changes
from benchmarks.console import run_command
from benchmarks.written import write
from wavedp.dp.errors import UserError


def main(arguments: list[str]) -> int:
    """Compare two sets of records; 0, or 1 if something became worse beyond noise."""
    given = _parser().parse_args(arguments)
    found = changes(
        records_of(given.before), records_of(given.after), given.simultaneous, given.costs
    )
    if not any(match.before and match.after for match in found.matches):
        raise UserError(
            f"{given.before} and {given.after} have no row in common (data set, method and "
            "epsilon), so nothing can be compared: name two runs of one suite."
        )
    print_changes(found, Console())
    for path, text in ((given.csv, as_csv), (given.json, as_json)):
        if path is not None:
            write(path, text(found))
    return 1 if found.worse else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Say what changed between two sets of records, and whether it is noise. Exit "
        "code 1: something became worse beyond noise; 2: the input is not right.",
    )
    what = "a suite's folder, a folder of records, or REVISION:FOLDER"
    parser.add_argument("before", metavar="BEFORE", help=what)
    parser.add_argument("after", metavar="AFTER", help="the same")
    parser.add_argument(
        "--simultaneous", action="store_true", help="intervals that hold together with 95 %%"
    )
    parser.add_argument("--costs", action="store_true", help="judge time and images/s, too")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the rows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows and sentences")
    return parser


if __name__ == "__main__":
    run_command(main)
