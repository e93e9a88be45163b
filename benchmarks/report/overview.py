"""One metric of one data set, methods by budgets: what a comparison comes to."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.report.comparison import Cell, Comparison
from benchmarks.report.facts import row_label


@dataclass(frozen=True)
class Overview:
    """A table of methods by rows.

    Attributes:
        title: of the metric.
        columns: labels of the rows of the comparison, ``pretrained``, ``ε = 1``, ...
        methods: a name per setup of a method, with a cell per column; None where it has none.
    """

    title: str
    columns: tuple[str, ...]
    methods: dict[str, tuple[Cell | None, ...]]


def overview(comparison: Comparison) -> Overview:
    """Of the first metric, as the lines of the comparison have it and in their order.

    Args:
        comparison: with at least one metric.
    """
    columns: dict[str, None] = {}
    found: dict[str, dict[str, Cell]] = {}
    for line in comparison.lines:
        column = row_label(line.row, line.epsilon)
        columns[column] = None
        found.setdefault(line.name, {})[column] = line.cells[0]
    return Overview(
        title=comparison.metrics[0].title,
        columns=tuple(columns),
        methods={name: tuple(map(cells.get, columns)) for name, cells in found.items()},
    )
