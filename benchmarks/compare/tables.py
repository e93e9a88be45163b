"""A comparison of two sides as a terminal table, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from benchmarks.compare.changes import Change, Changes
from benchmarks.compare.estimate import Estimate
from benchmarks.compare.notes import notes, verdict
from benchmarks.report.facts import label, number, plus_minus

WIDEST = 100
STYLES = {"worse": "bold red", "better": "green", "not judged": "dim"}


def print_changes(changes: Changes, console: Console) -> None:
    """Print the rows by data set and line, the sentences under them and the outcome."""
    width = min(console.width, WIDEST)
    for dataset, rows in groupby(changes.rows, key=lambda row: row.match.key.dataset):
        console.print(Text(f"\n {label(dataset)}", style="bold"), width=width)
        console.print(_table(list(rows)), width=width)
    for sentence in notes(changes):
        console.print(Padding(Text(sentence, style="dim"), (0, 1)), width=width)
    style = "bold red" if changes.worse else "bold"
    console.print(Padding(Text(verdict(changes), style=style), (1, 1, 0, 1)), width=width)


def _table(rows: Sequence[Change]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", overflow="fold")
    for title in ("before", "after", "difference"):
        table.add_column(title, justify="right", overflow="fold")
    table.add_column("over", no_wrap=True)
    table.add_column("", no_wrap=True)
    for method, lines in groupby(rows, key=lambda row: row.match.key.method):
        table.add_row(Text(label(method), style="cyan"))
        for row_title, line in groupby(lines, key=lambda row: row.match.row_title):
            table.add_row(Text(f"  {row_title}"))
            for row in line:
                table.add_row(*_cells(row))
        table.add_section()
    return table


def _cells(row: Change) -> list[Text]:
    found, style = row.estimate, STYLES.get(row.verdict, "")
    numbers = [number(found.before), number(found.after), _difference(found)]
    texts = [f"    {row.title}", *numbers, _over(found), row.verdict]
    return [Text(text, style=style) for text in texts]


def _difference(found: Estimate) -> str:
    sign = "+" if found.difference > 0 else ""
    return "0" if found.same else sign + plus_minus(found.difference, found.half)


def _over(found: Estimate) -> str:
    """``3 pairs``, ``3+1 seeds``, ``samples``."""
    counts = {"pairs": f"{found.seeds[0]} ", "seeds": "{}+{} ".format(*found.seeds)}
    return "–" if found.over == "nothing" else counts.get(found.over, "") + found.over


def as_rows(changes: Changes) -> list[dict[str, Any]]:
    """One dictionary per row; what there is not is None, and so is what is not finite but an
    epsilon, which is the text ``inf``."""
    return [_row(row, changes.confidence) for row in changes.rows]


def _row(row: Change, confidence: float) -> dict[str, Any]:
    found, key = row.estimate, row.match.key
    bounds = (found.difference - found.half, found.difference + found.half)
    low, high = (None if math.isnan(bound) else bound for bound in bounds)
    return {
        "dataset": key.dataset,
        "method": key.method,
        "row": key.row,
        "epsilon_target": "inf" if key.epsilon == math.inf else key.epsilon,
        "setups": row.match.suffix.strip(" ()") or None,
        "name": row.name,
        "better": row.direction,
        "before": found.before,
        "after": found.after,
        "difference": found.difference,
        "low": low,
        "high": high,
        "confidence": confidence,
        "over": found.over,
        "seeds_before": found.seeds[0],
        "seeds_after": found.seeds[1],
        "verdict": row.verdict,
    }


def as_csv(changes: Changes) -> str:
    """The rows as CSV; what there is not is empty."""
    text, rows = io.StringIO(), as_rows(changes)
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_json(changes: Changes) -> str:
    """The rows, the sentences and the outcome as JSON."""
    content = {
        "worse": changes.worse,
        "verdict": verdict(changes),
        "notes": notes(changes),
        "rows": as_rows(changes),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
