"""Search hyper-parameters on stand-in records: ``python -m benchmarks.tune method=dp_wavelet``.

``suite=tuning64 method=px64/dp_wavelet`` does so for the methods of ``suite=real64``.

Each method names in ``search`` one setting and the few values that are tried of it. Of one whose
config sets it otherwise for the row without noise, in ``non_private``, the values of
``search_non_private`` are tried there, or else the same. All of them are run under a suite whose
records stand in for those that are reported, at its epsilon and seeds, without noise at one seed.
Its first metric is what they are judged by. Records are kept as those of any suite, so a search
that was interrupted goes on, and ``results/<suite>/search.csv`` has a line for each value. A method
whose other settings have changed is searched again: that is its next attempt, and those before stay
in the table. Nothing is chosen here: the value in the config is, by whoever reads the table, and a
test compares the two.
"""

from __future__ import annotations

import math
from collections import defaultdict
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import run
from benchmarks.config import cells
from benchmarks.console import console, run_command
from benchmarks.protocol import metrics_of, protocol_of
from benchmarks.record import Record, load_folder
from benchmarks.report.setup import Settings, settings
from benchmarks.written import write
from wavedp.dp.errors import UserError

SUITE = "suite=tuning"
"""Where none is named."""
SEARCHES = {"private": "search", "non_private": "search_non_private"}
"""What a method's config calls the search of each row."""
PLACES = {"private": "method", "non_private": "method.non_private"}
"""Where a method's config has the settings of each row."""
GRIDS = {"private": [], "non_private": ["suite.grid.row=[non_private]", "suite.grid.seed=[0]"]}
"""What of the suite's grid is run for each row: noise makes a run more of a matter of luck."""
KEYS = ("method", "epsilon", "attempt", "setting", "value")


def main(overrides: list[str]) -> int:
    """Run the search of the method that the overrides name; returns the exit code."""
    if any(override.startswith(("dataset", "+dataset")) for override in overrides):
        raise UserError("The search runs on stand-in records alone: leave the data set out.")
    overrides = overrides if any(o.startswith("suite=") for o in overrides) else [SUITE, *overrides]
    config = cells(overrides)[0].config
    if not config.suite.get("stand_in"):
        raise UserError(
            f"suite={config.suite.name} has records that are reported: search under one whose "
            "records stand in for them, such as suite=tuning or suite=tuning64."
        )
    metric = metrics_of(config.suite, protocol_of(config.suite))[0]
    failed = 0
    for row in searched_rows(config.method):
        setting, values = search_of(config.method, row)
        for value in values:
            console.print(f"{config.method.name}, {row}: {setting} = {value:g}")
            tried = [*GRIDS[row], f"{PLACES[row]}.{setting}={value}"]
            failed |= run.main([*overrides, *tried])
    folder = Path(config.results_dir) / config.suite.name
    table = table_of(load_folder(folder / "records"), metric)
    write(folder / "search.csv", table.to_csv(index=False))
    console.print(table[table["method"] == config.method.name].to_string(index=False))
    return failed


def searched_rows(method: Any) -> list[str]:
    """The rows that a method is tuned for: the private one, and the other if its config says so."""
    return ["private", *(["non_private"] if method.get("non_private") else [])]


def search_of(method: Any, row: str = "private") -> tuple[str, list[float]]:
    """The setting that a method's search for a row tries, and its values.

    Raises:
        UserError: its config names none.
    """
    search = _search(method, row)
    if not search or len(search) != 1:
        raise UserError(
            f"Method {method.name} names no search: give its config one setting and the values "
            "to try, such as `search: {finetuning.clip: [0.5, 1, 2]}`."
        )
    [(setting, values)] = search.items()
    return str(setting), [float(value) for value in values]


def _search(method: Any, row: str) -> Any:
    return method.get(SEARCHES[row]) or method.get("search") or {}


def value_of(method: Any, setting: str, row: str = "private") -> float:
    """What a method's config has for a row at a dotted place."""
    return float(reduce(getitem, f"{PLACES[row]}.{setting}".split("."), {"method": method}))  # type: ignore[arg-type]


def table_of(records: list[Record], metric: str) -> pd.DataFrame:
    """A line per value of the search that a method's own config names: the mean over seeds."""
    lines, attempts = [], defaultdict[tuple[str, str], list[Settings]](list)
    for record in sorted(records, key=lambda record: record.provenance.created):
        method = record.config["method"]
        for setting in _search(method, record.row):
            score = record.metrics.get(metric)
            known, others = attempts[record.method, record.row], _others(record, setting)
            if others not in known:
                known.append(others)
            lines.append(
                {
                    "method": record.method,
                    "epsilon": record.privacy.epsilon_target,
                    "attempt": known.index(others) + 1,
                    "setting": setting,
                    "value": value_of(method, setting, record.row),
                    metric: score.value if score else math.nan,
                    "failed": record.status != "ok",
                    "revision": record.provenance.code_revision,
                }
            )
    tried = pd.DataFrame(lines, columns=[*KEYS, metric, "failed", "revision"])
    table = tried.groupby(list(KEYS), as_index=False).agg(
        **{metric: (metric, "mean"), "lowest": (metric, "min"), "highest": (metric, "max")},
        seeds=(metric, "size"),
        failed=("failed", "sum"),
        revisions=("revision", lambda found: " ".join(sorted(set(found)))),
    )
    return table.round({metric: 2, "lowest": 2, "highest": 2})


def _others(record: Record, setting: str) -> Settings:
    """All that decides a record, but for the setting that is searched."""
    searched = f"{PLACES[record.row]}.{setting}"
    unread = (searched, "method.non_private.") if record.row == "private" else (searched,)
    return {key: value for key, value in settings(record).items() if not key.startswith(unread)}


if __name__ == "__main__":
    run_command(main)
