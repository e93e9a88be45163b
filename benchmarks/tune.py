"""Search hyper-parameters on stand-in records: ``python -m benchmarks.tune method=dp_wavelet``.

Each method names in ``search`` one setting and the few values that are tried of it; all of them are
run under ``suite=tuning``, on other records of the same law than those that are reported, at one
epsilon and two seeds. Records are kept as those of any suite, so a search that was interrupted goes
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
KEYS = ("method", "setting", "value", "epsilon")


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
    """A line per value of the search that a method's own config names: the mean over seeds."""
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
                    METRIC: score.value if score else math.nan,
                    "failed": record.status != "ok",
                    "revision": record.provenance.code_revision,
                }
            )
    tried = pd.DataFrame(lines, columns=[*KEYS, METRIC, "failed", "revision"])
    table = tried.groupby(list(KEYS), as_index=False).agg(
        **{METRIC: (METRIC, "mean"), "lowest": (METRIC, "min"), "highest": (METRIC, "max")},
        seeds=(METRIC, "size"),
        failed=("failed", "sum"),
        revisions=("revision", lambda found: " ".join(sorted(set(found)))),
    )
    return table.round({METRIC: 2, "lowest": 2, "highest": 2})


if __name__ == "__main__":
    run_command(main)
