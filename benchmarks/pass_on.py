"""What may be passed on of a run on photographs that may not:

    python -m benchmarks.pass_on results/local/real64-mmcelebahq64 results/real64

Copies records, ledgers and the samples of the rows that touched no private record or that an
epsilon covers, and makes the report of them. What shows or quotes the data set stays behind: real
images, the oracle's pictures, which are made of real images, and captions; so do the samples of
rows without noise, which no epsilon covers. So does what depends on private records in numbers:
scores that read them, training time, peak memory. ``--evaluation`` copies those, too, for data
whose owner publishes evaluations of it; tables mark them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.console import console, run_command
from benchmarks.export import public_record
from benchmarks.record import Record, load_folder, save
from benchmarks.report import make_report
from benchmarks.written import write
from wavedp.dp.errors import UserError

RELEASED = ("pretrained", "private")
"""The rows whose samples may be shown."""


def main(arguments: list[str]) -> int:
    """Copy from one results folder to another; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pass_on",
        description="Copy what may be passed on of results on photographs, and report it.",
    )
    parser.add_argument("source", type=Path, metavar="FROM", help="results/local/SUITE-DATASET")
    parser.add_argument("target", type=Path, metavar="TO", help="another folder, such as results/X")
    parser.add_argument(
        "--evaluation",
        action="store_true",
        help="copy numbers, too, that depend on private records and are covered by no epsilon",
    )
    given = parser.parse_args(arguments)
    pass_on(given.source, given.target, evaluation=given.evaluation)
    return 0


def pass_on(source: Path, target: Path, *, evaluation: bool = False) -> None:
    """Copy what may be passed on, and make the report of it.

    Args:
        source, target: results folders.
        evaluation: numbers that no epsilon covers, too.

    Raises:
        UserError: there are no records, some failed or show the noise that was drawn, or the
            target has records of other cells.
    """
    records = load_folder(source / "records")
    if not records:
        raise UserError(f"There are no records in {source / 'records'}: name a results folder.")
    for record in records:
        if record.status != "ok":
            raise UserError(f"{record.cell} has failed: run its suite again before passing it on.")
        if record.privacy.reproducible_noise:
            raise UserError(
                f"{record.cell} was run with a seed of its noise, so no epsilon covers it: leave "
                "privacy.noise_seed out and run it again."
            )
    known = {record.cell for record in records}
    others = [r.cell for r in load_folder(target / "records") if r.cell not in known]
    if others:
        raise UserError(f"{target} has other results, such as {others[0]}: name another folder.")
    for record in records:
        _copy(record if evaluation else public_record(record), source, target)
    console.print(f"Report: {make_report(target, console)}", soft_wrap=True)


def _copy(record: Record, source: Path, target: Path) -> None:
    ledger = Path("ledgers") / f"{record.cell}.jsonl"
    if (source / ledger).exists():
        write(target / ledger, (source / ledger).read_bytes())
    shown = record.samples if record.row in RELEASED else None
    if shown is not None:
        write(target / shown, (source / shown).read_bytes())
    save(record.model_copy(update={"samples": shown}), target / "records")


if __name__ == "__main__":
    run_command(main)
