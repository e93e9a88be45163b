"""The comparison as a terminal table and as Markdown. Both hold the same cells.

In Markdown the first metric comes first, methods by budgets.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from benchmarks.record import Record
from benchmarks.report.comparison import COST_TITLES, Cell, Comparison, compare
from benchmarks.report.facts import clean, datasets, label
from benchmarks.report.marks import FLOOR_TITLE
from benchmarks.report.notes import footer
from benchmarks.report.overview import Overview, overview
from benchmarks.report.quoted import COLUMNS, WARNING, Quoted, quoted, title

OVERLAP = "overlap"
"""Of the pretraining data with the private records: beside epsilon, as it limits it."""
INDENT = "  "
HEADING = 26
"""Characters of a heading before it goes on in a second line; a mark in words needs two."""


def terminal(records: Sequence[Record], width: int = 80) -> RenderableType:
    """All comparisons with their failed cells and the footer, for a rich console.

    Metrics that do not fit into ``width`` columns go into further tables below the first.
    """
    parts: list[RenderableType] = []
    for dataset in datasets(records):
        comparison = compare(records, dataset)
        for number, block in enumerate(_blocks(comparison, width)):
            title = label(dataset) if number == 0 else f"{label(dataset)} (continued)"
            parts += [Text(f"\n {title}", style="bold"), _terminal_table(comparison, block)]
        parts += [_sentence(f"failed: {text}", "red") for text in comparison.failures]
    parts += [_sentence(sentence, "dim") for sentence in footer(records)]
    return Group(*parts)


def print_tables(records: Sequence[Record], console: Console) -> None:
    """Print :func:`terminal`, at most 100 columns wide."""
    width = min(console.width, 100)
    console.print(terminal(records, width), width=width)


def _sentence(text: str, style: str) -> RenderableType:
    return Padding(Text(text, style=style), (0, 1))


def _blocks(comparison: Comparison, width: int) -> list[list[int]]:
    """Which columns go into which table: the costs into the first, metrics as they fit."""
    metrics = len(comparison.metrics)
    costs = list(range(metrics, metrics + len(COST_TITLES)))
    lead = _lead_width(comparison)
    first_costs = sum(_column_width(comparison, index) for index in costs)
    blocks: list[list[int]] = [[]]
    used = lead + first_costs
    for index in range(metrics):
        need = _column_width(comparison, index)
        if blocks[-1] and used + need > width:
            blocks.append([])
            used = lead
        blocks[-1].append(index)
        used += need
    blocks[0] += costs
    return blocks


def _lead_width(comparison: Comparison) -> int:
    methods = [len(line.method) for line in comparison.lines]
    titles = [len(INDENT + line.title) for line in comparison.lines]
    overlaps = [len(line.overlap) for line in comparison.lines]
    beside = max(len(OVERLAP), *overlaps) + 2 if comparison.shows_overlap else 0
    return max([len(FLOOR_TITLE), *methods, *titles]) + 4 + beside


def _column_width(comparison: Comparison, index: int) -> int:
    texts = [line.cells[index].text for line in comparison.lines]
    return max(map(len, [*_heading(comparison.columns[index]), *texts])) + 2


def _heading(title: str) -> list[str]:
    return textwrap.wrap(title, HEADING, break_long_words=False)


def _terminal_table(comparison: Comparison, columns: Sequence[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=True, padding=(0, 1), header_style="bold")
    table.add_column("method", overflow="fold")
    if comparison.shows_overlap:
        table.add_column(OVERLAP, overflow="fold")
    for index in columns:
        title = "\n".join(_heading(comparison.columns[index]))
        table.add_column(title, justify="right", overflow="fold")
    for method, lines in groupby(comparison.lines, key=lambda line: line.method):
        table.add_row(Text(method, style="cyan"))
        for line in lines:
            cells = [_terminal_cell(line.cells[index]) for index in columns]
            lead = [Text(line.overlap or "–")] if comparison.shows_overlap else []
            table.add_row(Text(INDENT + line.title), *lead, *cells)
        table.add_section()
    if comparison.floor:
        floor = [Text(comparison.floor[index].text, style="dim") for index in columns]
        lead = [Text("–")] if comparison.shows_overlap else []
        table.add_row(Text(FLOOR_TITLE, style="dim"), *lead, *floor)
    return table


def _terminal_cell(cell: Cell) -> Text:
    style = "red" if cell.text == "failed" else "bold" if cell.best else ""
    return Text(cell.text, style=style)


def markdown(records: Sequence[Record]) -> str:
    """All comparisons as Markdown, with their failed cells and the footer as lists."""
    parts = []
    for dataset in datasets(records):
        comparison = compare(records, dataset)
        parts.append(f"### {_escape(label(dataset))}")
        if comparison.metrics:
            parts.append(_markdown_overview(overview(comparison)))
        parts.append(_markdown_table(comparison))
        if comparison.failures:
            failures = "\n".join(f"- {_escape(text)}" for text in comparison.failures)
            parts.append(f"Failed cells:\n\n{failures}")
        if found := quoted(records, dataset):
            heading = f"#### {_escape(title(dataset))}\n\n{_escape(WARNING)}"
            parts.append(f"{heading}\n\n{_markdown_quoted(found)}")
    parts.append("\n".join(f"- {_escape(sentence)}" for sentence in footer(records)))
    return "\n\n".join(parts) + "\n"


def _markdown_overview(found: Overview) -> str:
    rows = [[found.title, *found.columns]]
    for name, cells in found.methods.items():
        rows.append([name, *(_markdown_cell(cell) if cell else "" for cell in cells)])
    return _markdown_lines(rows, "|---|" + "--:|" * len(found.columns))


def _markdown_table(comparison: Comparison) -> str:
    shown = comparison.shows_overlap
    rows = [["method", "row", *([OVERLAP] if shown else []), *comparison.columns]]
    for line in comparison.lines:
        lead = [line.method, line.title, *([line.overlap or "–"] if shown else [])]
        rows.append(lead + [_markdown_cell(cell) for cell in line.cells])
    if comparison.floor:
        lead = [FLOOR_TITLE, "floor", *(["–"] if shown else [])]
        rows.append(lead + [cell.text for cell in comparison.floor])
    return _markdown_lines(rows, "|---|---|" + "---|" * shown + "--:|" * len(comparison.columns))


def _markdown_lines(rows: Sequence[Sequence[str]], rule: str) -> str:
    heading, *rest = ["| " + " | ".join(map(_escape, row)) + " |" for row in rows]
    return "\n".join([heading, rule, *rest])


def _markdown_quoted(found: Sequence[Quoted]) -> str:
    return _markdown_lines([COLUMNS, *(row.cells for row in found)], "|---" * len(COLUMNS) + "|")


def _markdown_cell(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.best else cell.text


def _escape(text: str) -> str:
    return html.escape(clean(text), quote=False).replace("|", "\\|")
