"""The report: from hand-built records to summary, tables, plots, grid and page."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from benchmarks.record import (
    Cost,
    Hardware,
    MetricValue,
    Privacy,
    Provenance,
    Query,
    Record,
    load_folder,
    save,
)
from benchmarks.report import make_report
from benchmarks.report.__main__ import main
from benchmarks.report.comparison import best_cells, compare
from benchmarks.report.facts import label, metrics_of, number, plus_minus
from benchmarks.report.frame import aggregate, frame, mean_and_half_width
from benchmarks.report.grid import LEFT, sample_grid
from benchmarks.report.notes import footer, headlines
from benchmarks.report.plots import metric_figure, throughput_figure
from benchmarks.report.tables import markdown, print_tables
from wavedp.dp.errors import UserError

INF = math.inf
EVIL = '<script>alert("x")</script> | a\x1b[31m`b`'
ROWS: list[tuple[str, float | None, float]] = [
    ("pretrained", 0.0, 60.0),
    ("private", 1.0, 25.0),
    ("private", 10.0, 12.0),
    ("non_private", INF, 9.0),
    ("oracle", None, 6.0),
]


def scores(fd: float) -> dict[str, MetricValue]:
    """Both embedded metrics, the second a falling function of the first."""
    return {
        "fd_toy": MetricValue(
            value=fd, direction="lower", n_samples=500, n_reference=400, floor=1.0, protocol="p"
        ),
        "clip_toy": MetricValue(
            value=0.3 - 0.002 * fd, direction="higher", n_samples=200, floor=0.31, protocol="p"
        ),
    }


def privacy(row: str, epsilon: float | None, **changes: Any) -> Privacy:
    """The privacy part of a row; a private one has a plan, a query and a spent epsilon."""
    if row != "private" or epsilon is None:
        fields: dict[str, Any] = {"epsilon_spent": epsilon, "delta": None, "relation": None}
        fields["accountant"] = None
    else:
        fields = {
            "epsilon_spent": epsilon * 0.999,
            "delta": 1e-5,
            "relation": "add_or_remove_one",
            "accountant": "pld",
            "sampling": "poisson",
            "sampling_probability": 0.064,
            "noise_multiplier": 1.2345678,
            "clip": 1.0,
            "expected_batch": 256,
            "steps": 200,
            "queries": [Query(sampling_probability=0.064, noise_multiplier=1.2345678, count=200)],
        }
    return Privacy(**({"epsilon_target": epsilon, "records": 4000} | fields | changes))


def record(
    method: str = "dp_wavelet",
    row: str = "private",
    epsilon: float | None = 1.0,
    fd: float = 25.0,
    seed: int = 0,
    dataset: str = "toy_shapes",
    reason: str | None = None,
    spent: dict[str, Any] | None = None,
) -> Record:
    """One cell; it failed if a reason is given."""
    cell = f"{dataset}-{method}-{row}-{epsilon}-{seed}"
    return Record(
        cell=cell,
        suite="embedded",
        dataset=dataset,
        dataset_version="1",
        resolution=8,
        method=method,
        row=row,  # type: ignore[arg-type]
        seed=seed,
        status="failed" if reason else "ok",
        reason=reason,
        privacy=privacy(row, epsilon, **(spent or {})),
        metrics={} if reason else scores(fd),
        cost=Cost()
        if reason
        else Cost(
            train_seconds=40.0,
            train_examples_per_s=1280.0,
            sample_images_per_s=220.0,
            peak_memory_mb=900.0,
        ),
        provenance=Provenance(
            code_revision="0123abc",
            wavedp_version="0.1.0",
            torch_version="2.9.0",
            python_version="3.11.9",
            weights={"tokenizer": "ab" * 32},
            created="2026-01-01T00:00:00Z",
        ),
        hardware=Hardware(device="cpu", processor="a processor", threads=2, memory_gb=7.8),
        config={},
        samples=None if reason else f"samples/{cell}.png",
    )


def grid_of_records() -> list[Record]:
    """Two datasets, two methods, five rows (the oracle for one method), two seeds, a failure."""
    found = []
    for dataset in ("toy_shapes", "toy_faces"):
        for place, method in enumerate(("dp_wavelet", "dp_full_finetune")):
            for row, epsilon, fd in ROWS[: 5 - place]:
                for seed in (1, 0):
                    fails = dataset == "toy_faces" and place == 1 and epsilon == 10.0
                    score = fd + 2 * place + seed
                    reason = EVIL if fails else None
                    found.append(record(method, row, epsilon, score, seed, dataset, reason))
    return found


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite's folder with records, strips and a hostile prompt, reported once."""
    folder = tmp_path_factory.mktemp("results") / "embedded"
    samples = folder / "samples"
    samples.mkdir(parents=True)
    strip = Image.new("RGB", (16 * 8, 8), (200, 30, 40))
    for item in grid_of_records():
        save(item, folder / "records")
        if item.samples:
            strip.save(folder / item.samples)
    for dataset in ("toy_shapes", "toy_faces"):
        strip.save(samples / f"real-{dataset}.png")
        prompts = [f"{EVIL} {place}" for place in range(16)]
        (samples / f"prompts-{dataset}.json").write_text(json.dumps(prompts), encoding="utf-8")
    make_report(folder)
    return folder


def test_summary_has_the_columns_and_the_order(suite: Path) -> None:
    with (suite / "summary.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == (
        "dataset,method,row,epsilon_target,epsilon_spent,delta,sampling_probability,"
        "noise_multiplier,steps,fd_toy,clip_toy,n_samples,train_examples_per_s,train_seconds,"
        "sample_images_per_s,peak_memory_mb,seed,status,cell,reason,accountant,relation"
    )
    assert [rows[0]["dataset"], rows[-1]["dataset"]] == ["toy_faces", "toy_shapes"]
    wavelet = [r for r in rows if (r["dataset"], r["method"]) == ("toy_shapes", "dp_wavelet")]
    assert [(r["row"], r["epsilon_target"], r["seed"]) for r in wavelet] == [
        (row, epsilon, seed)
        for row, epsilon in [
            ("pretrained", "0"),
            ("private", "1"),
            ("private", "10"),
            ("non_private", "inf"),
            ("oracle", ""),
        ]
        for seed in ("0", "1")
    ]
    private = wavelet[2]
    assert private["epsilon_spent"] == "0.999"
    assert private["delta"] == "1e-05"
    assert private["noise_multiplier"] == "1.23457"
    assert (private["steps"], private["n_samples"], private["fd_toy"]) == ("200", "200", "25")
    failed = [r for r in rows if r["status"] == "failed"]
    assert len(failed) == 2
    assert all(r["fd_toy"] == "" and "alert" in r["reason"] for r in failed)


def test_infinite_epsilon_survives_a_record_and_the_frame(tmp_path: Path) -> None:
    save(record(row="non_private", epsilon=INF, fd=9.0), tmp_path)
    loaded = load_folder(tmp_path)
    assert loaded[0].privacy.epsilon_target == INF
    assert frame(loaded)["epsilon_target"].tolist() == [INF]
    assert compare(loaded, "toy_shapes").lines[0].title == "ε = ∞"


def test_mean_and_half_width_worked_by_hand() -> None:
    # Two seeds: t(0.975, 1) = 12.7062, s / sqrt(2) = |a - b| / 2 = 0.5.
    mean, half = mean_and_half_width([25.0, 26.0])
    assert mean == 25.5
    assert half == pytest.approx(12.7062 * 0.5, rel=1e-5)
    # Three seeds 1, 2, 3: s = 1, t(0.975, 2) = 4.30265, half = 4.30265 / sqrt(3).
    assert mean_and_half_width([1.0, 2.0, 3.0])[1] == pytest.approx(2.48414, rel=1e-5)
    assert math.isnan(mean_and_half_width([1.0])[1])
    assert math.isnan(mean_and_half_width([])[0])


def test_aggregate_averages_seeds_that_succeeded_and_counts_the_others() -> None:
    records = [record(fd=20.0), record(fd=24.0, seed=1), record(seed=2, reason="no memory")]
    records += [record(row="oracle", epsilon=None, fd=6.0)]
    means = aggregate(frame(records))
    assert len(means) == 2
    first = means.iloc[0]
    assert (first["fd_toy"], first["seeds"], first["failed"]) == (22.0, 2, 1)
    assert first["delta"] == 1e-5
    assert first["relation"] == "add_or_remove_one"
    oracle = means.iloc[1]
    assert math.isnan(oracle["epsilon_target"])
    assert math.isnan(oracle["fd_toy_half"])


def best_of(records: list[Record]) -> set[tuple[str, float, str]]:
    means = aggregate(frame(records))
    cells = best_cells(means, metrics_of(records))
    return {(means["method"][i], means["epsilon_target"][i], name) for i, name in cells}


def test_only_the_same_budget_is_compared() -> None:
    records = [
        record("a", epsilon=1.0, fd=25.0),
        record("b", epsilon=1.0, fd=27.0),
        record("a", epsilon=10.0, fd=14.0),
        record("b", epsilon=10.0, fd=12.0),
        record("b", epsilon=3.0, fd=5.0),  # alone at its budget
        record("b", "non_private", INF, 9.0),
        record("a", "non_private", INF, 8.0),
    ]
    assert best_of(records) == {
        ("a", 1.0, "fd_toy"),
        ("a", 1.0, "clip_toy"),
        ("b", 10.0, "fd_toy"),
        ("b", 10.0, "clip_toy"),
    }


@pytest.mark.parametrize(
    "change", [{"delta": 1e-3}, {"relation": "replace_one"}, {"epsilon_spent": 1.1}]
)
def test_another_delta_or_relation_or_an_overspent_budget_is_not_compared(
    change: dict[str, Any],
) -> None:
    records = [record("a", fd=25.0), record("b", fd=20.0, spent=change)]
    assert best_of(records) == set()


def test_ties_are_all_best_and_failed_methods_compete_with_nobody() -> None:
    tie = [record("a", fd=25.0), record("b", fd=25.0)]
    assert {method for method, _, _ in best_of(tie)} == {"a", "b"}
    assert best_of([record("a", fd=25.0), record("b", reason="no memory")]) == set()


def test_markdown_bolds_the_best_and_shows_failures() -> None:
    text = markdown(grid_of_records())
    wavelet, finetune = (
        next(line for line in text.split("### Toy shapes")[1].splitlines() if line.startswith(s))
        for s in ("| DP wavelet | ε = 1 |", "| DP full finetune | ε = 1 |")
    )
    assert "**25.5 ± 6.4**" in wavelet
    assert "**" not in finetune
    assert "| DP full finetune | ε = 10 | failed | failed |" in text
    assert "<script>" not in text
    assert "\\| a" in text
    assert "| real images | floor | 1.000 | 0.3100 |" in text


def test_terminal_fits_80_columns_and_names_everything() -> None:
    # Four metrics do not fit into one table: the others follow below.
    records = [
        item.model_copy(
            update={
                "metrics": item.metrics
                | {f"another_long_metric_{k}": m for k, m in enumerate(item.metrics.values())}
            }
        )
        for item in grid_of_records()
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    print_tables(records, console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    for words in ("fd_toy ↓", "clip_toy ↑", "another_long_metric_1", "continued", "failed:"):
        assert words in text
    assert "…" not in text


def test_footer_says_what_the_numbers_are_and_are_not() -> None:
    flagged = record("b", seed=1, spent={"reproducible_noise": True})
    reading = flagged.metrics["fd_toy"].model_copy(update={"reads_private": True})
    flagged = flagged.model_copy(update={"metrics": {"fd_toy": reading}})
    text = " ".join(footer([*grid_of_records(), flagged]))
    for words in (
        "δ = 1e-05",
        "add or remove one",
        "pld",
        "one image with all its captions",
        "rows, seeds, retries and tuning on the same private records compose",
        "not FID",
        "real low band through the public stage",
        "an evaluation, not a release",
        "fd_toy 1.000",
        "† fd_toy reads private records",
        "‡ reproducible noise, not a release",
    ):
        assert words in text
    over = record("c", spent={"epsilon_spent": 1.5})
    assert over.cell in " ".join(footer([over]))


def test_headlines_name_the_winner_and_how_sure_it_is() -> None:
    close = headlines(grid_of_records())
    assert any(
        "Toy shapes, ε = 1: DP wavelet has the best mean fd_toy" in sentence
        and sentence.endswith("the intervals overlap.")
        for sentence in close
    )
    far = [record(m, fd=f + s / 10, seed=s) for m, f in (("a", 9), ("b", 90)) for s in (0, 1)]
    assert headlines(far)[0].endswith("do not overlap.")
    assert "no interval" in headlines([record("a", fd=9.0), record("b", fd=90.0)])[0]


class _Page(HTMLParser):
    """Collects tags, the addresses that a browser would fetch, and images without alt text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.silent_images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.addresses += [values[name] or "" for name in ("src", "href") if name in values]
        self.silent_images += tag == "img" and not values.get("alt")


def test_the_page_is_self_contained_and_escaped(suite: Path) -> None:
    text = (suite / "report.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert page.tags.count("script") == 1  # our own; the hostile ones are text
    assert "&lt;script&gt;alert" in text
    assert page.addresses
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert not re.search(r"url\(|@import|https?://", re.sub(r"base64,[^\"]*", "", text))
    assert page.tags.count("img") == 2 * 4
    assert page.silent_images == 0


def test_the_page_shows_ledger_failures_and_provenance(suite: Path) -> None:
    text = (suite / "report.html").read_text(encoding="utf-8")
    for words in ("200 × (q = 0.06400, σ = 1.235)", "0123abc", "a processor", "ε = ∞", "0.999"):
        assert words in text
    failed = text.split('id="failed"')[1].split("</section>")[0]
    assert failed.count("<li>") == 2
    assert "DP full finetune, ε = 10, seed 0" in failed


def test_everything_is_the_same_byte_for_byte(suite: Path, tmp_path: Path) -> None:
    copy = tmp_path / "embedded"
    shutil.copytree(suite, copy)
    made = [p for p in copy.rglob("*") if p.is_file() and p.parent.name in ("embedded", "plots")]
    assert {"summary.csv", "table.md", "report.html", "grid-toy_faces.png"} < {p.name for p in made}
    assert {"metrics-toy_faces.png", "throughput-toy_shapes.png"} < {p.name for p in made}
    for path in made:
        path.unlink()
    make_report(copy)
    for path in made:
        assert path.read_bytes() == (suite / path.relative_to(copy)).read_bytes(), path.name


def test_the_order_of_records_does_not_matter() -> None:
    records = grid_of_records()
    assert markdown(records) == markdown(records[::-1])
    assert frame(records).equals(frame(records[::-1]))


def test_grid_has_a_row_per_line_and_a_column_per_prompt(suite: Path) -> None:
    records = load_folder(suite / "records")
    grid = sample_grid(suite, "toy_faces", records, columns=8)
    assert grid is not None
    # Tiles of 8 px are shown at 96; real, four rows and five rows, one of them failed.
    assert grid.width == LEFT + 8 * 100 - 4 + 12
    assert grid.height > 10 * 96
    assert grid.getpixel((LEFT + 48, grid.height - 12 - 48)) == (200, 30, 40)
    assert sample_grid(suite, "toy_faces", records, columns=16).width > grid.width  # type: ignore[union-attr]


def test_grid_reads_nothing_outside_the_suite(tmp_path: Path) -> None:
    Image.new("RGB", (16, 8)).save(tmp_path / "outside.png")
    stray = record().model_copy(update={"samples": "../outside.png"})
    (tmp_path / "suite").mkdir()
    assert sample_grid(tmp_path / "suite", "toy_shapes", [stray]) is None


def test_a_suite_in_which_everything_failed_still_reports(tmp_path: Path) -> None:
    failed = [record(reason="no memory"), record("b", reason="no memory")]
    for item in failed:
        save(item, tmp_path / "records")
    text = make_report(tmp_path).read_text(encoding="utf-8")
    assert "no memory" in text
    assert metric_figure(failed, "toy_shapes") is None
    assert throughput_figure(failed, "toy_shapes") is None


@pytest.mark.parametrize("arguments", [["suite=nowhere"], [], ["a", "b"], ["no/such/folder"]])
def test_a_missing_suite_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip()
    assert said
    assert "\n" not in said
    with pytest.raises(UserError, match="no records"):
        make_report(tmp_path)


def test_the_command_regenerates_a_suite(
    suite: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (suite.parent / "results").symlink_to(suite.parent)
    monkeypatch.chdir(suite.parent)
    assert main(["suite=embedded"]) == 0
    assert capsys.readouterr().out.strip().endswith("report.html")


@pytest.mark.parametrize(
    ("name", "text"),
    [("dp_full_finetune", "DP full finetune"), ("private_evolution", "Private evolution")],
)
def test_labels_come_from_names_alone(name: str, text: str) -> None:
    assert label(name) == text


def test_numbers() -> None:
    assert [number(v) for v in (12.3456, 0.00012, 0.0, None, INF, 12345.6)] == [
        "12.35",
        "0.0001200",
        "0",
        "–",
        "∞",
        "12,346",
    ]
    assert plus_minus(25.5, 6.353) == "25.5 ± 6.4"
    assert plus_minus(25.5, 9.96) == "26 ± 10"
    assert plus_minus(0.25, math.nan) == "0.2500"
    assert plus_minus(0.25, 0.0) == "0.2500 ± 0"
