"""``python -m benchmarks.report suite=embedded``, or the path of a suite's folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.report import make_report
from wavedp.dp.errors import UserError

USAGE = "usage: python -m benchmarks.report suite=NAME | FOLDER"
RESULTS = Path("results")


def main(arguments: Sequence[str]) -> int:
    """Make the report that the arguments name; 0, or 2 if the user has something to mend."""
    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    try:
        path = make_report(_folder(arguments), Console())
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"\n{path}")
    return 0


def _folder(arguments: Sequence[str]) -> Path:
    if len(arguments) != 1 or not arguments[0]:
        raise UserError(USAGE)
    name = arguments[0].removeprefix("suite=")
    return Path(name) if name == arguments[0] else RESULTS / name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
