"""What a training has spent of its budget, as it goes on: a curve without a loss.

The loss on private records is no public number, and no record has it. What has been released at a
step follows from the queries of the record alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from benchmarks.record import Privacy, Record
from benchmarks.report.facts import joined, row_label
from benchmarks.report.frame import lines, select
from benchmarks.report.plots.plot import Plot, plot_of
from benchmarks.report.plots.style import MUTED, Look, legend, looks, panels, plain, style
from wavedp.dp import accountants
from wavedp.dp.accounting import SEARCH_INTERVAL, Event, epsilon_of

POINTS = 8
"""Of a curve, at most: each is an account of its own."""
TARGET = "target"
WIDTH, RIM, MOST = 2.0, 2.0, 3
"""Of a curve, what it is wider for each later one that hides it, and for how many at most."""
LEAST = 9.0
"""Inches that the legend needs."""


def training_figure(records: Sequence[Record], dataset: str) -> Plot | None:
    """Epsilon spent against records seen, a panel per budget; None without private rows.

    A point is the account of the queries until then; the last one is the record's own. Records are
    counted in expectation, and each time that one is seen: a query of all records sees N of them.
    """
    curves, points = looks(records, dataset), _points(records, dataset)
    if points.empty:
        return None
    budgets = sorted(points["epsilon"].unique())
    with style():
        figure, axes = panels(
            1, len(budgets), (max(LEAST, 5.8 * len(budgets) + 0.4), 4.9), sharex=True
        )
        for ax, budget in zip(axes, budgets, strict=True):
            _draw(ax, points[points["epsilon"] == budget], budget, list(curves.values()))
        plain(axes[0].xaxis)
        legend(figure, axes)
        return plot_of(figure, points, _alt(budgets), _caption(points))


def _points(records: Sequence[Record], dataset: str) -> pd.DataFrame:
    """What is plotted: a row per setup, budget and moment, in the order of the methods."""
    mine = select(records, lambda record: record.dataset == dataset)
    curves, rows = looks(records, dataset), []
    for key, cells in lines(mine).items():
        done = [cell.privacy for cell in cells if (cell.row, cell.status) == ("private", "ok")]
        known = [privacy for privacy in done if _accountable(privacy)]
        for privacy in known[:1]:  # seeds of a setup ask the same queries
            name = curves[key.method, key.setup].name
            rows += [[name, key.epsilon, *moment] for moment in spending(privacy)]
    return pd.DataFrame(rows, columns=["name", "epsilon", "queries", "seen", "spent"])


def _accountable(privacy: Privacy) -> bool:
    """Whether the record says what was asked, and this checkout has the accountant."""
    known = privacy.queries and privacy.delta and privacy.epsilon_target and privacy.epsilon_spent
    return bool(known) and privacy.accountant in accountants.names()


def spending(privacy: Privacy) -> Iterator[tuple[int, float, float]]:
    """Queries asked, records seen and epsilon spent, from the first query to the last.

    The grid of privacy losses is as fine as the budget is small, a thousandth of it. An account on
    a grid is an upper bound, and what was spent in the end bounds all that was spent before.

    Args:
        privacy: that is :func:`_accountable`; its kinds of query are taken one after the other.
    """
    delta, spent_at_the_end = privacy.delta or 0.0, privacy.epsilon_spent or 0.0
    interval = SEARCH_INTERVAL * (privacy.epsilon_target or 0.0)
    total = sum(query.count for query in privacy.queries)
    for asked in sorted({round(total ** (part / (POINTS - 1))) for part in range(POINTS)}):
        counts, left, seen = Counter[Event](), asked, 0.0
        for query in privacy.queries:
            taken = min(left, query.count)
            left -= taken
            seen += taken * query.sampling_probability * privacy.records
            counts[Event(query.sampling_probability, query.noise_multiplier)] += taken
        spent = spent_at_the_end
        if asked < total:
            spent = min(spent, epsilon_of(counts, delta, str(privacy.accountant), interval))
        yield asked, seen, float(f"{spent:.3g}")


def _draw(ax: Axes, points: pd.DataFrame, budget: float, curves: Sequence[Look]) -> None:
    drawn = [(curve, points[points["name"] == curve.name]) for curve in curves]
    traces = [tuple(zip(mine["seen"], mine["spent"], strict=True)) for _, mine in drawn]
    for place, (curve, mine) in enumerate(drawn):
        if len(mine):
            rim = RIM * min(MOST, traces[place + 1 :].count(traces[place]))
            size = curve.point["markersize"] + 2 * rim
            ax.errorbar(
                mine["seen"],
                mine["spent"],
                linestyle=curve.stroke,
                linewidth=WIDTH + rim,
                zorder=3
                + 1 / len(mine),  # a single point would be hidden by a curve that ends there
                **curve.point | {"markersize": size},
            )
    ax.axhline(budget, color=MUTED, linewidth=1.6, linestyle=(0, (4, 3)), zorder=1, label=TARGET)
    ax.set_xscale("log")
    ax.set_xlabel("records seen, logarithmic")
    ax.set_ylim(0, 1.1 * budget)
    ax.set_title(f"ε spent, {row_label('private', budget)}")
    ax.grid(False, axis="x")
    sns.despine(ax=ax, left=True)


def _alt(budgets: Sequence[float]) -> str:
    shown = joined([row_label("private", budget) for budget in budgets])
    return (
        f"Line plots of epsilon spent against records seen, by method, at {shown}. "
        "The privacy ledger has the numbers at the end."
    )


def _caption(points: pd.DataFrame) -> str:
    parts = []
    for budget in sorted(points["epsilon"].unique()):
        of_one = points[(points["queries"] == 1) & (points["epsilon"] == budget)]["spent"] / budget
        shares = dict.fromkeys(f"{share:.0%}" for share in (of_one.min(), of_one.max()))
        parts.append(f"{' to '.join(shares)} of {row_label('private', budget)}")
    return (
        "Each curve runs from the first query to the last; seeds ask the same queries, so there "
        f"are no intervals. The first query alone costs {joined(parts)}. Methods with the same "
        "sampling, noise and steps lie on each other, the wider curve below."
    )
