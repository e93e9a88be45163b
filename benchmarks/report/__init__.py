"""The report of a suite: summary, tables, plots, sample grids and one HTML page.

Everything is made from ``<suite_folder>/records/*.json`` and the samples beside them; nothing
is measured here.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from rich.console import Console

from benchmarks.record import Record, load_folder
from benchmarks.report.facts import datasets, slug
from benchmarks.report.frame import aggregate, frame, select, write_summary
from benchmarks.report.grid import page_grid, prompts_of, sample_grid
from benchmarks.report.html import Pictures, render
from benchmarks.report.latex import latex
from benchmarks.report.plots import plots_of
from benchmarks.report.tables import markdown, print_tables, terminal
from benchmarks.written import write
from wavedp.dp.errors import UserError

__all__ = [
    "aggregate",
    "frame",
    "make_report",
    "markdown",
    "sample_grid",
    "terminal",
    "write_summary",
]

GRID_COLUMNS = 8


def make_report(suite_folder: Path, console: Console | None = None) -> Path:
    """Write the report of a suite and return the path of ``report.html``.

    Writes ``summary.csv``, ``table.md``, ``table.tex``, ``plots/*.png`` with the numbers that they
    show as ``plots/*.csv``, ``grid-<dataset>.png`` (at one budget: ``glance-<dataset>.png``) and
    ``report.html`` into ``suite_folder``, and prints the tables if a console is given.

    Raises:
        UserError: the folder holds no records.
    """
    records = load_folder(suite_folder / "records")
    if not records:
        raise UserError(
            f"There are no records in {suite_folder / 'records'}; run the suite first, or name "
            "a folder that holds one."
        )
    write_summary(records, suite_folder / "summary.csv")
    write(suite_folder / "table.md", markdown(records))
    write(suite_folder / "table.tex", latex(records))
    pictures = {name: _pictures(suite_folder, records, name) for name in datasets(records)}
    for name, images in pictures.items():
        _write_pictures(suite_folder, slug(name), images)
    path = write(suite_folder / "report.html", render(records, pictures))
    if console is not None:
        print_tables(records, console)
    return path


def _pictures(suite_folder: Path, records: Sequence[Record], dataset: str) -> Pictures:
    prompts = prompts_of(suite_folder, dataset)
    starts = range(0, max(len(prompts), 1), GRID_COLUMNS)
    grids = (page_grid(suite_folder, dataset, records, GRID_COLUMNS, start) for start in starts)
    grid = sample_grid(suite_folder, dataset, records, columns=GRID_COLUMNS)
    glance = sample_grid(suite_folder, dataset, _largest_budget(records, dataset))
    return Pictures(
        plots=plots_of(records, dataset),
        grids=tuple(each for each in grids if each is not None),
        grid=_png(grid) if grid is not None else None,
        glance=_png(glance) if glance is not None else None,
        prompts=tuple(prompts),
    )


def _largest_budget(records: Sequence[Record], dataset: str) -> list[Record]:
    """The private records of a data set at its largest finite epsilon."""
    private = select(records, lambda record: record.dataset == dataset and record.row == "private")
    epsilons = [record.privacy.epsilon_target or 0.0 for record in private]
    largest = max(epsilons, default=0.0)
    return [r for r, epsilon in zip(private, epsilons, strict=True) if epsilon == largest]


def _write_pictures(suite_folder: Path, dataset: str, pictures: Pictures) -> None:
    for name, plot in pictures.plots.items():
        write(suite_folder / "plots" / f"{name}-{dataset}.png", plot.picture)
        write(suite_folder / "plots" / f"{name}-{dataset}.csv", plot.data)
    if pictures.grid:
        write(suite_folder / f"grid-{dataset}.png", pictures.grid)
    if pictures.glance:
        write(suite_folder / f"glance-{dataset}.png", pictures.glance)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
