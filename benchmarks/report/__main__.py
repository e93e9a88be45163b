"""``python -m benchmarks.report suite=embedded``, or the paths of suites' folders."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.report import make_report
from wavedp.dp.errors import UserError

USAGE = "usage: python -m benchmarks.report (suite=NAME | FOLDER) ..."
RESULTS = Path("results")


def main(arguments: Sequence[str]) -> int:
    """Make the reports that the arguments name; 0, or 2 if the user has something to mend."""
    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    try:
        for folder in _folders(arguments):
            print(f"\n{make_report(folder, Console())}")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _folders(arguments: Sequence[str]) -> list[Path]:
    if not arguments or not all(arguments):
        raise UserError(USAGE)
    names = [argument.removeprefix("suite=") for argument in arguments]
    return [
        Path(name) if name == argument else RESULTS / name
        for name, argument in zip(names, arguments, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
