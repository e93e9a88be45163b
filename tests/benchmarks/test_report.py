"""The report: from hand-built records to summary and tables."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from typing import Any

import pytest
from report_records import INF, grid_of_records, record
from rich.console import Console

from benchmarks.record import (
    Record,
    load_folder,
    save,
)
from benchmarks.report.comparison import best_cells, compare
from benchmarks.report.facts import metrics_of, row_label
from benchmarks.report.frame import aggregate, frame, mean_and_half_width
from benchmarks.report.latex import escaped, latex
from benchmarks.report.notes import footer, headlines
from benchmarks.report.overview import overview
from benchmarks.report.tables import markdown, print_tables


def test_summary_has_the_columns_and_the_order(suite: Path) -> None:
    with (suite / "summary.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == (
        "dataset,method,row,epsilon_target,setup,epsilon_spent,delta,sampling_probability,"
        "noise_multiplier,steps,fd_toy,clip_toy,n_samples,train_examples_per_s,train_seconds,"
        "sample_images_per_s,peak_memory_mb,seed,status,cell,reason,accountant,relation,"
        "evaluated,evaluation_not_private"
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
        for s in ("| DP-Wavelet | ε = 1 |", "| DP full finetune | ε = 1 |")
    )
    assert "**25.5 ± 6.4**" in wavelet
    assert "**" not in finetune
    assert "| DP full finetune | ε = 10 | failed | failed |" in text
    assert "<script>" not in text
    assert "\\| a" in text
    assert "| real images† | floor | 1.000 | 0.3100 |" in text


def test_an_overview_has_the_first_metric_by_methods_and_budgets() -> None:
    comparison = compare(grid_of_records(), "toy_shapes")
    found = overview(comparison)
    assert found.title == comparison.columns[0]
    shown = {
        (name, column): cell
        for name, cells in found.methods.items()
        for column, cell in zip(found.columns, cells, strict=True)
        if cell
    }
    expected = {
        (line.name, row_label(line.row, line.epsilon)): line.cells[0] for line in comparison.lines
    }
    assert shown == expected
    assert len(expected) == len(comparison.lines)


def test_latex_has_the_cells_of_the_markdown_table() -> None:
    text = latex(grid_of_records())
    assert text.isascii()
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 2
    tables = re.findall(r"\\begin\{tabular\}\{(l+r+)\}(.*?)\\end\{tabular\}", text, re.DOTALL)
    *_, glance, shapes = tables
    assert len(tables) == 4
    for columns, body in tables:
        rows = [line for line in body.splitlines() if line.endswith(r" \\")]
        assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {len(columns)}
    assert r"\midrule" in glance[1]
    assert re.search(r"DP-Wavelet & .*\\textbf\{25.5 \$\\pm\$ 6.4\}", glance[1])
    row = next(line for line in shapes[1].splitlines() if "DP-Wavelet" in line)
    assert row.startswith("DP-Wavelet & pretrained &")
    private = [line for line in shapes[1].splitlines() if r"$\varepsilon$ = 1 &" in line]
    assert sum(r"\textbf{25.5 $\pm$ 6.4}" in line for line in private) == 1
    assert r"fd\_toy\textsuperscript{\dag} $\downarrow$" in shapes[1]
    assert r"real images\textsuperscript{\dag} & floor & 1.000" in shapes[1]


def test_latex_prints_what_it_would_otherwise_read() -> None:
    """Nothing of a record's text is a command, a comment or the end of a cell."""
    assert escaped(r"50% of \input{x} & $a_b$ #1 ~^") == (
        r"50\% of \textbackslash{}input\{x\} \& \$a\_b\$ \#1 "
        r"\textasciitilde{}\textasciicircum{}"
    )
    assert escaped("ε = ∞ ± 1 – 語") == r"$\varepsilon$ = $\infty$ $\pm$ 1 -- ?"


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
    for words in ("fd_toy† ↓", "clip_toy ↑", "another_long_metric_1", "continued", "failed:"):
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
        "what the method's public parts keep of real held-out images",
        "an evaluation, not a release",
        "real images†: what real held-out images score",
        "† fd_toy reads private records",
        "‡ reproducible noise, not a release",
    ):
        assert words in text
    over = record("c", spent={"epsilon_spent": 1.5})
    assert over.cell in " ".join(footer([over]))


def test_headlines_name_the_winner_and_how_sure_it_is() -> None:
    close = headlines(grid_of_records())
    assert any(
        "Toy shapes, ε = 1: DP-Wavelet has the best mean fd_toy" in sentence
        and sentence.endswith("the intervals overlap.")
        for sentence in close
    )
    far = [record(m, fd=f + s / 10, seed=s) for m, f in (("a", 9), ("b", 90)) for s in (0, 1)]
    assert headlines(far)[0].endswith("do not overlap.")
    single = [record("a", fd=9.0), record("b", fd=90.0)]
    assert headlines(single)[0].endswith("90.00; one seed each: no interval.")
    sure = [with_error(item, 0.5) for item in single]
    assert headlines(sure)[0].endswith(
        "A has the best mean fd_toy†, 9.00 ± 0.98, against B 90.00 ± 0.98; one seed each: "
        "± is over samples and says nothing of other seeds."
    )
    assert headlines([*far, record("b", fd=9.0, spent={"epsilon_spent": 1.1}, seed=2)]) == []


def with_error(item: Record, error: float) -> Record:
    score = item.metrics["fd_toy"].model_copy(update={"standard_error": error})
    return item.model_copy(update={"metrics": {"fd_toy": score}})


def test_the_order_of_records_does_not_matter() -> None:
    records = grid_of_records()
    assert markdown(records) == markdown(records[::-1])
    assert frame(records).equals(frame(records[::-1]))
