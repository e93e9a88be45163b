"""Records of different setups are no seeds of each other, in any part of the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from matplotlib.figure import Figure
from PIL import Image
from report_records import record

from benchmarks.record import Evaluated, NotComputed, Record
from benchmarks.report.comparison import compare
from benchmarks.report.frame import aggregate, frame
from benchmarks.report.grid import sample_grid
from benchmarks.report.html import render
from benchmarks.report.intervals import intervals
from benchmarks.report.notes import footer, headlines
from benchmarks.report.plots import Plot
from benchmarks.report.plots import plot as drawing
from benchmarks.report.plots.epsilon import metric_figure
from benchmarks.report.plots.throughput import throughput_figure
from benchmarks.report.setup import Setups
from benchmarks.report.tables import markdown

CONFIG: dict[str, Any] = {
    "dataset": {"name": "toy_shapes", "private_records": 4000},
    "method": {
        "finetuning": {"steps": 120},
        "public": {"seed": 0},
        "pretraining": {"prior": {"steps": 9}},
    },
    "privacy": {"epsilon": [1, 10], "delta": 1e-5, "noise_seed": None, "sampling_seed": None},
    "hardware": {"amp": None, "threads": None},
}
PROMPTS = Evaluated(
    protocol="quick", prompts=500, prompts_sha256="ab" * 32, reference="rest", preparation="none"
)
OLD, NEW = "2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"


def changed(config: Mapping[str, Any], place: str, value: Any) -> dict[str, Any]:
    """The configuration with another value at a dotted place."""
    key, _, rest = place.partition(".")
    return {**config, key: changed(config.get(key, {}), rest, value) if rest else value}


def run(
    method: str = "a",
    place: str = "",
    value: Any = None,
    created: str = OLD,
    **changes: Any,
) -> Record:
    """A cell of a configuration that differs in one place, perhaps."""
    made = record(method, **changes)
    config = changed(CONFIG, place, value) if place else CONFIG
    # By name, a cell of another configuration comes first: letters and order are not by name.
    name = f"{'0' if place else '1'}-{made.cell}-{place}-{value}"
    new: dict[str, Any] = {"config": config, "cell": name}
    new["provenance"] = made.provenance.model_copy(update={"created": created})
    new["evaluated"] = None if made.status == "failed" else PROMPTS
    return made.model_copy(update=new)


def other_weights(item: Record) -> Record:
    part = item.provenance.model_copy(update={"weights": {"tokenizer": "cd" * 32}})
    return item.model_copy(update={"provenance": part})


def other_prompts(item: Record) -> Record:
    return item.model_copy(update={"evaluated": PROMPTS.model_copy(update={"prompts": 600})})


def titles(records: list[Record]) -> list[str]:
    return [line.title for line in compare(records, "toy_shapes").lines]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("dataset.private_records", 5000),
        ("method.finetuning.steps", 240),
        ("privacy.delta", 1e-6),
        ("hardware.amp", "bf16"),
    ],
)
def test_another_setting_is_a_line_of_its_own_and_named(place: str, value: Any) -> None:
    records = [
        run(place=place, value=value, fd=40.0, seed=1, created=NEW),
        run(fd=20.0),
        run(fd=22.0, seed=1),
    ]
    means = aggregate(frame(records))
    assert means["fd_toy"].tolist() == [21.0, 40.0]
    assert means["seeds"].tolist() == [2, 1]
    assert titles(records) == ["ε = 1 (a)", "ε = 1 (b)"]
    sentence = next(text for text in footer(records) if "not averaged" in text)
    assert sentence.startswith("Toy shapes: setups (a) and (b) of A, the oldest first, are not")
    assert f"They differ in {place} (a: " in sentence
    assert f"b: {value})." in sentence


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (other_weights, "weights.tokenizer"),
        (other_prompts, "evaluated.prompts"),
        (lambda r: r.model_copy(update={"dataset_version": "2"}), "dataset_version"),
        (lambda r: r.model_copy(update={"resolution": 16}), "resolution"),
        (lambda r: r.model_copy(update={"evaluated": None}), "evaluated.prompts"),
    ],
)
def test_other_weights_data_or_prompts_are_a_line_of_their_own(
    change: Callable[[Record], Record], key: str
) -> None:
    records = [run(fd=20.0), change(run(fd=40.0, seed=1, created=NEW))]
    assert aggregate(frame(records))["fd_toy"].tolist() == [20.0, 40.0]
    assert any("not averaged" in text and key in text for text in footer(records))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("method.public.seed", 1),
        ("method.pretraining.prior.steps", 10),
        ("privacy.epsilon", [1]),
        ("privacy.noise_seed", 3),
        ("hardware.threads", 4),
        ("seed", 1),
        ("privacy.later", None),  # a setting that older records do not have yet
    ],
)
def test_what_a_run_does_not_depend_on_makes_no_other_line(place: str, value: Any) -> None:
    records = [run(fd=20.0), run(place=place, value=value, fd=22.0, seed=1)]
    assert aggregate(frame(records))["fd_toy"].tolist() == [21.0]
    assert titles(records) == ["ε = 1"]
    assert not any("not averaged" in text for text in footer(records))


def test_a_failed_seed_belongs_to_the_line_of_its_siblings() -> None:
    """It was not evaluated, and its weights may have been missing."""
    failed = run(seed=1, reason="no memory")
    without = failed.provenance.model_copy(update={"weights": {}})
    for item in (failed, failed.model_copy(update={"provenance": without})):
        assert titles([run(), item]) == ["ε = 1 *"]
        assert compare([run(), item], "toy_shapes").lines[0].seeds == "1 of 2 failed"
    other = run(place="method.finetuning.steps", value=1, seed=1, reason="no memory")
    assert titles([run(), other]) == ["ε = 1 (a)", "ε = 1 (b)"]
    assert compare([run(), other], "toy_shapes").failures == ("A, ε = 1 (b), seed 1: no memory",)


def test_letters_stay_with_their_setup_in_every_row() -> None:
    """Rows of two setups are told apart even where no row has both."""
    records = [
        run(row="pretrained", epsilon=0.0),
        run(),
        run(place="method.finetuning.steps", value=1, epsilon=10.0, created=NEW),
        run("b"),
    ]
    assert titles(records) == ["pretrained (a)", "ε = 1 (a)", "ε = 10 (b)", "ε = 1"]
    assert len({Setups(records).of(item) for item in records}) == 2


def test_two_records_of_one_seed_are_not_two_seeds() -> None:
    """The budgets of a run are part of a cell's identity and no part of the setup."""
    records = [run(fd=20.0), run(fd=24.0, place="privacy.epsilon", value=[1])]
    mean = aggregate(frame(records)).iloc[0]
    assert (mean["fd_toy"], mean["seeds"], mean["failed"]) == (22.0, 1, 0)
    assert math.isnan(mean["fd_toy_half"])
    third = [*records, run(fd=32.0, seed=1)]
    assert aggregate(frame(third)).iloc[0]["fd_toy"] == 27.0
    repaired = [run(fd=20.0), run(place="privacy.epsilon", value=[1], reason="no memory")]
    assert titles(repaired) == ["ε = 1"]


def two_setups(**changes: Any) -> list[Record]:
    return [
        run(fd=20.0, **changes),
        run(place="method.finetuning.steps", value=240, fd=40.0, created=NEW, **changes),
    ]


def test_every_part_of_the_report_keeps_setups_apart(tmp_path: Path) -> None:
    records = two_setups()
    scores = [
        {
            name: score.model_copy(update={"standard_error": 1.0, "n_samples": count})
            for name, score in item.metrics.items()
        }
        for item, count in zip(records, (500, 600), strict=True)
    ]
    records = [
        item.model_copy(update={"metrics": found, "samples": f"{count}.png"})
        for count, (item, found) in enumerate(zip(records, scores, strict=True))
    ]
    for count in range(2):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{count}.png")
    assert "| A | ε = 1 (a) |" in markdown(records)
    assert "| A | ε = 1 (b) |" in markdown(records)
    found = [(entry.title, entry.mean) for entry in intervals(records) if "fd" in entry.metric]
    assert found == [("ε = 1 (a)", 20.0), ("ε = 1 (b)", 40.0)]
    counts = next(text for text in footer(records) if "number of samples" in text)
    assert "on 500 samples: A (ε = 1 (a)); on 600 samples: A (ε = 1 (b))" in counts
    grids = [sample_grid(tmp_path, "toy_shapes", part) for part in (records, records[:1])]
    assert grids[0].height == grids[1].height + 96 + 4  # type: ignore[union-attr]
    page = render(records, {"toy_shapes": _Empty})  # type: ignore[dict-item]
    ledger = page.split('aria-label="Privacy ledger"')[1].split("</table>")[0]
    assert "ε = 1 (a)" in ledger
    assert "ε = 1 (b)" in ledger


class _Empty:
    plots: ClassVar[dict[str, Plot]] = {}
    grids = prompts = ()


def drawn(make: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Figure:
    figures: list[Figure] = []
    monkeypatch.setattr(drawing, "flat_png", lambda figure: figures.append(figure) or b"")
    make()
    return figures[0]


def test_each_setup_is_a_curve_and_a_bar_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [*two_setups(), *two_setups(epsilon=10.0)]
    figure = drawn(lambda: metric_figure(records, "toy_shapes"), monkeypatch)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["A (a)", "A (b)", "real images†"]
    for curve in figure.axes[0].containers:
        assert len(curve[0].get_xdata()) == 2
    cost = records[1].cost.model_copy(update={"train_examples_per_s": 10.0})
    slow = [records[0], records[1].model_copy(update={"cost": cost})]
    figure = drawn(lambda: throughput_figure(slow, "toy_shapes"), monkeypatch)
    bars = [container[0].get_width() for container in figure.axes[0].containers]
    assert bars == [1280.0, 10.0]


def test_headlines_compare_setups_by_name() -> None:
    assert headlines(two_setups())[0].startswith(
        "Toy shapes, ε = 1: A (a) has the best mean fd_toy†, 20.00, against A (b) 40.00;"
    )


def test_only_rows_that_were_scored_alike_are_compared() -> None:
    records = [run("a", fd=20.0), run("b", fd=30.0), other_prompts(run("c", fd=10.0))]
    best = [(line.method, line.cells[0].best) for line in compare(records, "toy_shapes").lines]
    assert best == [("A", True), ("B", False), ("C", False)]
    assert "C" not in headlines(records)[0].split("against")[1]
    sentence = next(text for text in footer(records) if "scored alike" in text)
    assert "protocol quick: 500 prompts (SHA-256 abababababababab…)" in sentence
    assert ": A (ε = 1) and B (ε = 1); protocol quick: 600 prompts" in sentence
    old = [run("a"), run("b").model_copy(update={"evaluated": None})]
    assert any("as older records do not say: B (ε = 1)." in text for text in footer(old))
    failed = [run("a"), run("b", reason="no memory")]
    assert not any("scored alike" in text for text in footer(failed))


def test_a_mean_over_fewer_seeds_than_its_row_is_marked() -> None:
    late = run(seed=2, fd=24.0)
    absent = NotComputed(reason="weights are missing", direction="lower")
    scores = {"clip_toy": late.metrics["clip_toy"]}
    late = late.model_copy(update={"metrics": scores, "not_computed": {"fd_toy": absent}})
    records = [run(fd=20.0), run(fd=22.0, seed=1), late]
    cells = compare(records, "toy_shapes").lines[0].cells
    assert cells[0].text == "21 ± 13 §"
    assert "§" not in cells[1].text
    assert any(text.startswith("§ a mean over fewer seeds") for text in footer(records))
    assert not any("§" in text for text in footer(records[:2]))
    # A failed seed marks the row instead: it lacks every score.
    failed = [*records[:2], run(seed=2, reason="no memory")]
    assert "§" not in markdown(failed)
