"""Search hyper-parameters on stand-in records: ``python -m benchmarks.tune method=dp_wavelet``.

Each method names in ``search`` one setting and the few values that are tried of it; all of them are
run under ``suite=tuning``, on other records of the same law than those that are reported, at one
epsilon and one seed. Records are kept as those of any suite, so a search that was interrupted goes
on, and ``results/tuning/search.csv`` has a line for each. Nothing is chosen here: the value in the
config is, by whoever reads the table, and a test compares the two.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import run
from benchmarks.config import compose
from benchmarks.console import console, run_command
from benchmarks.record import Record, load_folder
from benchmarks.written import write
from wavedp.dp.errors import UserError

SUITE = "suite=tuning"
METRIC = "fd_toy"


def main(overrides: list[str]) -> int:
    """Run the search of the method that the overrides name; returns the exit code."""
    if any(override.startswith(("dataset", "+dataset")) for override in overrides):
        raise UserError("The search runs on stand-in records alone: leave the data set out.")
    config = compose([*overrides, SUITE])
    setting, values = search_of(config.method)
    failed = 0
    for value in values:
        console.print(f"{config.method.name}: {setting} = {value:g}")
        failed |= run.main([*overrides, SUITE, f"method.{setting}={value}"])
    folder = Path(config.results_dir) / "tuning"
    table = table_of(load_folder(folder / "records"))
    write(folder / "search.csv", table.to_csv(index=False))
    console.print(table[table["method"] == config.method.name].to_string(index=False))
    return failed


def search_of(method: Any) -> tuple[str, list[float]]:
    """The setting that a method's search tries, and its values.

    Raises:
        UserError: its config names none.
    """
    search = method.get("search")
    if not search or len(search) != 1:
        raise UserError(
            f"Method {method.name} names no search: give its config one setting and the values "
            "to try, such as `search: {finetuning.clip: [0.5, 1, 2]}`."
        )
    [(setting, values)] = search.items()
    return str(setting), [float(value) for value in values]


def value_of(method: Any, setting: str) -> float:
    """What a method's config has at a dotted place."""
    for key in setting.split("."):
        method = method[key]
    return float(method)


def table_of(records: list[Record]) -> pd.DataFrame:
    """A line per record that tried a value of the search in its own config, by method and value."""
    lines = []
    for record in records:
        for setting in record.config["method"].get("search") or {}:
            score = record.metrics.get(METRIC)
            lines.append(
                {
                    "method": record.method,
                    "setting": setting,
                    "value": value_of(record.config["method"], setting),
                    "epsilon": record.privacy.epsilon_target,
                    METRIC: round(score.value, 2) if score else math.nan,
                    "standard error": _rounded(score.standard_error) if score else math.nan,
                    "status": record.status,
                    "revision": record.provenance.code_revision,
                }
            )
    columns = [
        *("method", "setting", "value", "epsilon", METRIC),
        *("standard error", "status", "revision"),
    ]
    return pd.DataFrame(lines, columns=columns).sort_values(["method", "setting", "value"])


def _rounded(value: float | None) -> float:
    return math.nan if value is None else round(value, 2)


if __name__ == "__main__":
    run_command(main)
