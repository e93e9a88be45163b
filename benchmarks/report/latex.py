"""The comparison as LaTeX, to be put into a paper: ``\\input{table}``, with booktabs.

The cells are those of the Markdown tables. What a reader must know beside them is set below.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from benchmarks.record import Record
from benchmarks.report.comparison import Cell, Comparison, compare
from benchmarks.report.facts import clean, datasets, label
from benchmarks.report.marks import FLOOR_TITLE
from benchmarks.report.notes import footer
from benchmarks.report.overview import Overview, overview
from benchmarks.report.quoted import COLUMNS, WARNING, Quoted, quoted, title
from benchmarks.report.tables import OVERLAP

SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{"ε": r"$\varepsilon$", "δ": r"$\delta$", "∞": r"$\infty$", "±": r"$\pm$", "≥": r"$\geq$"},
    **{"↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\to$", "×": r"$\times$", "·": r"$\cdot$"},
    **{"†": r"\textsuperscript{\dag}", "‡": r"\textsuperscript{\ddag}", "§": r"\S{}"},
    **{"–": "--", "…": r"\dots{}", "’": "'", "“": "``", "”": "''"},
}
"""Characters that LaTeX reads otherwise, or not at all in every font."""


def latex(records: Sequence[Record]) -> str:
    """A ``table*`` for every data set, and one more where papers are quoted."""
    parts = ["% Made by python -m benchmarks.report; needs \\usepackage{booktabs}."]
    for dataset in datasets(records):
        mine = [record for record in records if record.dataset == dataset]
        parts.append(_table(compare(records, dataset), footer(mine)))
        if found := quoted(records, dataset):
            parts.append(_quoted(title(dataset), found))
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Text as LaTeX prints it; a character that it may not know becomes a question mark."""
    signs = (SIGNS.get(sign, sign if sign.isascii() else "?") for sign in clean(text))
    return "".join(signs)


def _table(comparison: Comparison, notes: Sequence[str]) -> str:
    shown = comparison.shows_overlap
    columns = "ll" + "l" * shown + "r" * len(comparison.columns)
    heading = ["Method", "Row", *([OVERLAP.capitalize()] if shown else []), *comparison.columns]
    lines = [_row(heading)]
    for method, group in groupby(comparison.lines, key=lambda line: line.method):
        lines.append(r"\midrule")
        for place, line in enumerate(group):
            lead = ["" if place else method, line.title]
            lead += [line.overlap or "–"] if shown else []
            lines.append(_row(lead, line.cells))
    if comparison.floor:
        lead = [FLOOR_TITLE, "floor", *(["–"] if shown else [])]
        lines += [r"\midrule", _row(lead, comparison.floor)]
    tabulars = [_overview(overview(comparison))] if comparison.metrics else []
    tabulars.append(_tabular(columns, lines))
    said = [*(f"Failed: {text}" for text in comparison.failures), *notes]
    return _float(label(comparison.dataset), tabulars, said)


def _overview(found: Overview) -> str:
    rows = [
        _row([name], [cell or Cell("") for cell in cells]) for name, cells in found.methods.items()
    ]
    heading = _row([found.title, *found.columns])
    return _tabular("l" + "r" * len(found.columns), [heading, r"\midrule", *rows])


def _quoted(caption: str, found: Sequence[Quoted]) -> str:
    lines = [_row(COLUMNS), r"\midrule", *(_row(row.cells) for row in found)]
    return _float(caption, [_tabular("l" * len(COLUMNS), lines)], [WARNING])


def _float(caption: str, tabulars: Sequence[str], said: Sequence[str]) -> str:
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering",
            f"\\caption{{{escaped(caption)}}}",
            "\n\\par\\bigskip\n".join(tabulars),
            r"\par\smallskip\footnotesize\raggedright",
            *(escaped(sentence) for sentence in said),
            r"\end{table*}",
        ]
    )


def _tabular(columns: str, lines: Sequence[str]) -> str:
    begin, end = f"\\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    return "\n".join([begin, r"\toprule", *lines, r"\bottomrule", end])


def _row(texts: Sequence[str], cells: Sequence[Cell] = ()) -> str:
    values = [rf"\textbf{{{escaped(c.text)}}}" if c.best else escaped(c.text) for c in cells]
    return " & ".join([*map(escaped, texts), *values]) + r" \\"
