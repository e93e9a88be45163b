"""The figures of the report: what is plotted, and that methods look the same in all of them."""

from __future__ import annotations

import io
import math
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_records import INF, grid_of_records, privacy, record
from scipy.stats import norm

from benchmarks.record import Cost, MetricValue, Query, Record
from benchmarks.report.plots import FIGURES, Plot, plots_of
from benchmarks.report.plots.cost import pareto
from benchmarks.report.plots.plot import over_seeds
from benchmarks.report.plots.style import looks, wide
from benchmarks.report.plots.training import spending
from wavedp.dp import DPPlan
from wavedp.dp.accounting import Event, epsilon_of

METHODS = [f"method_{letter}" for letter in "abcdefghi"]
BANDS = ("d1", "d2", "d3", "ll")


def data(plot: Plot) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(plot.data))


def timed(method: str, seconds: float | None, fd: float, **changes: object) -> Record:
    made = record(method, fd=fd, **changes)  # type: ignore[arg-type]
    return made.model_copy(update={"cost": Cost(train_seconds=seconds)})


def with_bands(item: Record, first: float) -> Record:
    """Energies from ``first`` in LL, one decibel less in each finer band; distances above 1."""
    found = {
        f"spectral_{quantity}_{band}": MetricValue(
            value=first - place if quantity == "energy" else 1.0 + place,
            direction="zero" if quantity == "energy" else "lower",
            n_samples=9,
            floor=0.01 * place,
            protocol="p",
            reads="evaluation",
        )
        for quantity in ("energy", "fd")
        for place, band in enumerate(reversed(BANDS))
    }
    return item.model_copy(update={"metrics": item.metrics | dict(reversed(found.items()))})


def test_a_front_worked_by_hand() -> None:
    # The third is slower than the second and worse; the fourth is slow, but the best.
    assert pareto([1.0, 2.0, 3.0, 9.0], [50.0, 20.0, 30.0, 10.0]) == [True, True, False, True]
    assert pareto([1.0, 1.0, 2.0], [5.0, 5.0, 5.0]) == [True, True, False]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=9))
def test_a_front_falls_and_everything_else_lies_behind_it(points: list[tuple[int, int]]) -> None:
    seconds, costs = ([float(point[axis]) for point in points] for axis in (0, 1))
    on = pareto(seconds, costs)
    front = sorted({point for point, is_on in zip(points, on, strict=True) if is_on})
    assert front
    assert all(before[1] > after[1] for before, after in pairwise(front))
    for point, is_on in zip(points, on, strict=True):
        ahead = [f for f in front if f[0] <= point[0] and f[1] <= point[1] and f != point]
        assert bool(ahead) is not is_on


def test_cost_is_plotted_at_the_largest_budget_that_most_methods_share() -> None:
    records = [
        *(timed("a", s, fd, seed=n) for n, (s, fd) in enumerate([(10.0, 40.0), (30.0, 42.0)])),
        timed("b", 5.0, 60.0),
        timed("c", 90.0, 70.0),
        timed("d", None, 10.0),  # no time: no point
        *(timed(m, 1.0, 1.0, epsilon=10.0) for m in "ab"),  # fewer methods
        *(timed(m, 1.0, 1.0, row="non_private", epsilon=INF) for m in "abcd"),
    ]
    plot = FIGURES["cost"](records, "toy_shapes")
    assert plot is not None
    points = data(plot)
    assert points["name"].tolist() == ["B", "A", "C"]
    assert points["seconds"].tolist() == [5.0, 20.0, 90.0]
    assert points["score"].tolist() == [60.0, 41.0, 70.0]
    assert points["front"].tolist() == [True, True, False]
    assert points["seeds"].tolist() == [1, 2, 1]
    # t(0.975, 1) / sqrt(2) times the deviation of 40 and 42.
    assert points["score_half_width"].tolist()[1] == pytest.approx(12.7062, rel=1e-5)
    assert "at ε = 1." in plot.caption
    assert "on these prompts: D." in plot.caption
    assert "Dashed: the Pareto front, whose points no other beats in both." in plot.caption
    more = [*records, timed("c", 1.0, 1.0, epsilon=10.0)]
    assert "at ε = 10." in FIGURES["cost"](more, "toy_shapes").caption  # type: ignore[union-attr]
    assert FIGURES["cost"](records[:2], "toy_shapes") is None


def test_bands_go_from_coarse_to_fine_with_their_floors_and_marks() -> None:
    records = [with_bands(record(m, seed=s), first=s) for m in "ab" for s in (0, 1)]
    plot = FIGURES["bands"](records, "toy_shapes")
    assert plot is not None
    points = data(plot)
    energies = points[points["quantity"] == "spectral_energy"]
    mine = energies[energies["name"] == "A"]
    assert mine["band"].tolist() == ["ll", "d3", "d2", "d1"]
    assert mine["mean"].tolist() == [0.5, -0.5, -1.5, -2.5]
    assert set(mine["seeds"]) == {2}
    floor = points[(points["quantity"] == "spectral_fd") & (points["name"] == "real images†")]
    assert floor["mean"].tolist() == [0.0, 0.01, 0.02, 0.03]
    assert "spectral_fd† and spectral_energy†" in plot.alt
    assert FIGURES["bands"](grid_of_records(), "toy_shapes") is None


def test_rates_are_means_over_the_cells_of_a_method() -> None:
    cost = Cost(train_examples_per_s=100.0)
    fast = record(epsilon=10.0).model_copy(update={"cost": cost})
    plot = FIGURES["throughput"]([record(), fast, record(row="oracle", epsilon=None)], "toy_shapes")
    assert plot is not None
    points = data(plot).set_index("rate")
    assert points.loc["train_examples_per_s", ["row", "cells", "mean"]].tolist() == [
        "private",
        2,
        (1280.0 + 100.0) / 2,
    ]
    assert points.loc["sample_images_per_s", "cells"] == 1
    assert "1 to 2 cells, one seed" in plot.caption


def test_a_curve_of_spending_is_the_account_of_the_queries_until_then() -> None:
    """A ledger of 15 noisy histograms of 4,000 records and one noisy sum of a sample, by hand."""
    queries = [
        Query(sampling_probability=1.0, noise_multiplier=9.0, count=15),
        Query(sampling_probability=0.5, noise_multiplier=4.0, count=1),
    ]
    moments = list(spending(privacy("private", 2.0, queries=queries)))
    asked, seen, spent = (list(column) for column in zip(*moments, strict=True))
    assert asked == [1, 2, 3, 5, 7, 11, 16]  # 16 to the power of 0/7, 1/7 and so on, rounded
    assert seen == [4_000.0 * count for count in asked[:-1]] + [15 * 4_000.0 + 0.5 * 4_000.0]
    for count, epsilon in zip(asked[:-1], spent[:-1], strict=True):
        assert epsilon == pytest.approx(epsilon_of({Event(1.0, 9.0): count}, 1e-5), rel=6e-3)
    assert spent[-1] == 2.0  # of the record, which has 1.998
    # One Gaussian query: delta of epsilon in closed form (Balle and Wang 2018, Theorem 8).
    low, high = (norm.cdf(1 / 18 * sign - 9 * spent[0]) for sign in (1, -1))
    assert low - math.exp(spent[0]) * high == pytest.approx(1e-5, rel=0.1)


@pytest.mark.parametrize(("epsilon", "steps"), [(0.1, 2_000), (1.0, 8_000), (4.0, 200)])
def test_a_curve_of_spending_is_near_the_exact_account_at_every_budget(
    epsilon: float, steps: int
) -> None:
    plan = DPPlan.calibrate(
        epsilon=epsilon, delta=1e-5, records=10_000, expected_batch=100, steps=steps
    )
    queries = [Query(**plan.event.as_dict(), count=steps)]
    for asked, _, spent in [*spending(privacy("private", epsilon, queries=queries))][::3]:
        assert spent == pytest.approx(epsilon_of({plan.event: asked}, 1e-5), rel=0.02)


def test_kinds_of_query_that_are_alike_are_counted_together() -> None:
    halves = [Query(sampling_probability=1.0, noise_multiplier=5.0, count=4)] * 2
    whole = [Query(sampling_probability=1.0, noise_multiplier=5.0, count=8)]
    found = [list(spending(privacy("private", 9.0, queries=these))) for these in (halves, whole)]
    assert found[0] == found[1]


def test_a_curve_needs_queries_and_an_accountant_that_is_here() -> None:
    rows = [record(row="non_private", epsilon=INF), record(row="oracle", epsilon=None)]
    without = [{"queries": []}, {"accountant": "gdp"}, {"accountant": None}, {"delta": None}]
    unknown = [record(f"m{n}", spent=changes) for n, changes in enumerate(without)]
    assert FIGURES["training"]([*rows, *unknown, record(reason="boom")], "toy_shapes") is None
    plot = FIGURES["training"]([*rows, *unknown, record(), record("b")], "toy_shapes")
    assert plot is not None
    points = data(plot)
    assert set(points["name"]) == {"DP-Wavelet", "B"}
    assert points.groupby("name")["seen"].max().tolist() == [200 * 256.0] * 2
    first = points["spent"].min()
    assert f"The first query alone costs {first:.0%} of ε = 1." in plot.caption


def test_nine_methods_differ_and_each_looks_the_same_on_every_dataset() -> None:
    everything = [record(method, dataset="one") for method in METHODS]
    everything += [record(method, dataset="two") for method in METHODS[3:]]
    found = [looks(everything, name).items() for name in ("one", "two")]
    one, two = ({key[0]: (look.colour, look.marker) for key, look in items} for items in found)
    assert len({colour for colour, _ in one.values()}) == len(METHODS)
    assert len({marker for _, marker in one.values()}) == len(METHODS)
    assert two == {method: one[method] for method in METHODS[3:]}


def test_captions_say_how_many_seeds_and_which_interval() -> None:
    assert over_seeds([3, 3, 0]).startswith("Points are means over 3 seeds, bars their 95%")
    assert "over 2 to 3 seeds" in over_seeds([3, 2])
    assert over_seeds([1, 1]) == "Points are single seeds, so there are no intervals"
    for plot in plots_of(grid_of_records(), "toy_faces").values():
        assert "seeds" in plot.caption
        assert "interval" in plot.caption


def test_the_order_of_records_does_not_matter() -> None:
    records = [with_bands(item, 1.0) if item.metrics else item for item in grid_of_records()]
    plots, again = plots_of(records, "toy_faces"), plots_of(records[::-1], "toy_faces")
    assert plots.keys() == FIGURES.keys()
    assert plots == again


def test_only_positive_numbers_of_several_magnitudes_are_wide() -> None:
    assert wide([1.0, 100.0])
    assert not wide([1.0, 20.0])
    assert not wide([0.0, 100.0])
    assert not wide([])
