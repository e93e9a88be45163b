"""The committed reference results: what the project claims follows from their records."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.cell import public_config
from benchmarks.config import cells, compose
from benchmarks.record import Record, load_folder
from benchmarks.report import markdown, write_summary
from benchmarks.report.facts import datasets, slug
from benchmarks.report.latex import latex
from benchmarks.report.plots import plots_of
from benchmarks.tune import SEARCHES
from wavedp.dp.accounting import Event, epsilon_of

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "embedded"
TRAINED_CODES = ROOT / "results" / "trained_codes"
ABLATION = ROOT / "results" / "ablation_scales"
METHODS = list(compose(["suite=embedded"]).suite.grid.method)
SUITES = [RESULTS, TRAINED_CODES, ABLATION]
COLUMNS = [
    *("dataset", "method", "row", "epsilon_target", "epsilon_spent", "delta", "seed", "status"),
    *("sampling_probability", "noise_multiplier", "steps", "fd_toy", "clip_toy", "n_samples"),
    *("train_examples_per_s", "train_seconds", "sample_images_per_s", "peak_memory_mb"),
]


def scores(
    method: str,
    row: str,
    epsilon: float | None = None,
    dataset: str = "toyfaces",
    metric: str = "fd_toy",
) -> np.ndarray:
    """One per seed."""
    table = pd.read_csv(RESULTS / "summary.csv")
    chosen = (table["dataset"] == dataset) & (table["method"] == method) & (table["row"] == row)
    if epsilon is not None:
        chosen &= table["epsilon_target"] == epsilon
    found: np.ndarray = table[chosen].sort_values("seed")[metric].to_numpy()
    assert len(found) == 3
    return found


def quoted(sentence: str) -> tuple[str, ...]:
    """The numbers of a sentence in the README, which a pattern finds whatever its lines are."""
    found = re.search(sentence, " ".join((ROOT / "README.md").read_text().split()))
    assert found, "the sentence has changed: compare its numbers here"
    return found.groups()


def test_every_cell_of_the_suite_is_there_and_succeeded() -> None:
    table = pd.read_csv(RESULTS / "summary.csv")
    assert set(COLUMNS) <= set(table.columns)
    assert (table["status"] == "ok").all()
    cells = table.groupby(["dataset", "method", "row", "epsilon_target"], dropna=False)["seed"]
    assert len(cells) == 2 * len(METHODS) * 5
    assert (cells.nunique() == 3).all()


def digest_of_weights(name: str) -> str:
    """As the record of their making says."""
    made = (ROOT / "wavedp" / "weights" / f"{name}.json").read_text()
    return str(json.loads(made)["sha256"])


def committed(folder: Path) -> list[Record]:
    """The records of a suite that is committed."""
    records = load_folder(folder / "records")
    assert records
    return records


@pytest.mark.parametrize("folder", SUITES, ids=lambda folder: folder.name)
def test_summary_and_tables_are_made_from_the_records(folder: Path, tmp_path: Path) -> None:
    records = committed(folder)
    assert (folder / "table.md").read_text() == markdown(records)
    assert (folder / "table.tex").read_text() == latex(records)
    again = write_summary(records, tmp_path / "summary.csv")
    assert (folder / "summary.csv").read_bytes() == again.read_bytes()


@pytest.mark.parametrize("folder", SUITES, ids=lambda folder: folder.name)
def test_plots_show_the_numbers_of_the_records(folder: Path) -> None:
    """Pictures may differ in a pixel with another matplotlib; what they plot may not."""
    records = committed(folder)
    made = {
        f"{name}-{slug(dataset)}": plot.data
        for dataset in datasets(records)
        for name, plot in plots_of(records, dataset).items()
    }
    assert {path.stem for path in (folder / "plots").glob("*.png")} == set(made)
    for name, data in made.items():
        assert (folder / "plots" / f"{name}.csv").read_text() == data, name


@pytest.mark.parametrize("folder", SUITES, ids=lambda folder: folder.name)
def test_records_come_from_the_weights_and_the_code_that_are_committed(folder: Path) -> None:
    for record in committed(folder):
        assert not record.provenance.code_revision.endswith("+"), record.cell
        parts = record.config["method"]["weights"]
        known = {part: digest_of_weights(name) for part, name in parts.items()}
        assert record.provenance.weights == known, record.cell
        for score in record.metrics.values():
            assert score.weights == {name: digest_of_weights(name) for name in score.weights}


def test_the_methods_are_configured_as_they_were_run() -> None:
    now = {
        (cell.config.dataset.name, cell.config.method.name): public_config(cell)["method"]
        for cell in cells(["suite=embedded"])
    }
    records = committed(RESULTS)
    assert {(record.dataset, record.method) for record in records} == set(now)
    for record in records:
        ran, has = dict(record.config["method"]), now[record.dataset, record.method]
        for told in (ran, has):  # what else was tried says nothing of what ran
            for search in SEARCHES.values():
                told.pop(search, None)
        assert ran == has, record.cell


def test_the_readme_shows_the_rows_of_the_table() -> None:
    lines = set(markdown(committed(RESULTS)).splitlines())
    first = (ROOT / "README.md").read_text().partition("\n## Start\n")[0]
    shown = [line for line in first.splitlines() if line[:1] == "|"]
    assert len(shown) == 2 * (2 + len(METHODS))
    assert set(shown) <= lines


def test_the_readme_quotes_what_is_best() -> None:
    """DP-Wavelet at both budgets, DP-LDM by captions of scenes, others without privacy."""
    for dataset in ("toyfaces", "toyscenes"):
        for epsilon in (1, 10):
            found = {m: scores(m, "private", epsilon, dataset).mean() for m in METHODS}
            assert min(found, key=lambda method: found[method]) == "dp_wavelet"
    found = quoted(
        r"`clip_toy` is ([\d.]+) and ([\d.]+) at ε = 1 and 10, and ([\d.]+) and ([\d.]+) for "
        r"DP-Wavelet"
    )
    follow = [
        scores(method, "private", epsilon, "toyscenes", "clip_toy").mean()
        for method in ("dp_ldm", "dp_wavelet")
        for epsilon in (1, 10)
    ]
    assert list(found) == [f"{score:.1f}" for score in follow]
    found = quoted(
        r"on faces (\d+) for full finetuning, (\d+) for DP-LDM and (\d+) for DP-Wavelet, on scenes "
        r"(\d+), (\d+) and (\d+)"
    )
    free = [
        scores(method, "non_private", dataset=dataset).mean()
        for dataset in ("toyfaces", "toyscenes")
        for method in ("dp_full_finetune", "dp_ldm", "dp_wavelet")
    ]
    assert list(found) == [f"{score:.0f}" for score in free]


def test_the_readme_quotes_what_methods_cost() -> None:
    table = pd.read_csv(ROOT / "results" / "throughput" / "methods-1-thread-cpu.csv")
    rows = table.set_index(["work", "case"])
    found = quoted(
        r"DP-LDM takes ([\d.]+) times as long as DP-Wavelet to finetune at 32 px and ([\d.]+) "
        r"times at 64 px, ([\d.]+) and ([\d.]+) times the memory, and ([\d.]+) and ([\d.]+) "
        r"times as long to sample"
    )
    sizes = ("32 px", "64 px")
    peak = [
        rows.at[("finetune", f"dp_ldm, {size}"), "peak_mb"]
        / rows.at[("finetune", f"dp_wavelet, {size}"), "peak_mb"]
        for size in sizes
    ]
    slower, drawing = (
        [rows.at[(work, f"dp_ldm, {size}"), "time_ratio"] for size in sizes]
        for work in ("finetune", "sample")
    )
    assert list(found) == [f"{ratio:.1f}" for ratio in [*slower, *peak, *drawing]]


def means(table: str, dataset: str, column: str) -> dict[str, float]:
    """The means of one column of a ``table.md``, by row."""
    part = table.split(f"### {dataset}\n\n")[1].split("\n\n")[1]
    heading, _, *rows = ([cell.strip() for cell in line.split("|")] for line in part.splitlines())
    place = next(number for number, title in enumerate(heading) if title.startswith(column))
    texts = {row[2]: row[place].strip("*").split(" ± ")[0] for row in rows}
    return {row: float(text.replace(",", "")) for row, text in texts.items()}


def test_the_readme_quotes_the_rows_with_trained_codes() -> None:
    found = quoted(
        r"\(results/trained_codes\), one seed, rate (\S+)\) it scores "
        r"(\d+) and (\d+) on faces and (\d+) and (\d+) on scenes at ε = 1 and 10, against "
        r"(\d+) and (\d+), and (\d+) and (\d+), of the same seed",
    )
    rate, *numbers = map(float, found)
    frozen = {
        (record.dataset, record.privacy.epsilon_target): record.metrics["fd_toy"].value
        for record in committed(RESULTS)
        if (record.method, record.seed) == ("dp_wavelet", 0)
    }
    same_seed = [frozen[d, e] for d in ("toyfaces", "toyscenes") for e in (1, 10)]
    table = (TRAINED_CODES / "table.md").read_text()
    faces, scenes = (means(table, dataset, "fd_toy") for dataset in ("Toyfaces", "Toyscenes"))
    scored = [part[row] for part in (faces, scenes) for row in ("ε = 1", "ε = 10")]
    expected = [f"{score:.0f}" for score in [*scored, *same_seed]]
    assert expected == [f"{number:.0f}" for number in numbers]
    records = committed(TRAINED_CODES)
    assert {record.seed for record in records} == {0}
    generators = [record.config["method"]["generator"] for record in records]
    assert {generator["training"]["finetuning_rate"] for generator in generators} == {rate}
    assert not any(generator["freeze_codes"] for generator in generators)


def test_the_readme_quotes_the_ablation() -> None:
    """The mean over seeds of every number of scales, at both budgets."""
    found = quoted(
        r"(\d+) and (\d+) with LL at a quarter of the side, (\d+) and (\d+) with LL at half, "
        r"(\d+) and (\d+) with all scales under DP at ε = 1 and 10",
    )
    table = pd.read_csv(ABLATION / "summary.csv")
    private = table[table["row"] == "private"]
    assert private.groupby(["method", "epsilon_target"])["seed"].nunique().eq(3).all()
    mean = private.groupby(["method", "epsilon_target"])["fd_toy"].mean()
    methods = ("dp_wavelet_quarter", "dp_wavelet", "dp_wavelet_all_scales")
    expected = [f"{mean[method, epsilon]:.0f}" for method in methods for epsilon in (1, 10)]
    assert list(found) == expected


def test_the_readme_quotes_the_oracles() -> None:
    table = pd.read_csv(ROOT / "results" / "oracles" / "toyfaces.csv")
    found = quoted(
        r"upsampled, scores ([\d.]+), a raster VQ of all 192 codes ([\d.]+), the spectral "
        r"tokenizer of the same codes ([\d.]+), LL at a quarter ([\d.]+) "
        r"\(.*?real images ([\d.]+)\)",
    )
    rows = [
        ("detail network", "LL 16 px"),
        ("raster VQ", "192 codes"),
        ("SIT, 3 of 3 scales", "192 codes"),
        ("detail network", "LL 8 px"),
    ]
    scores = table.set_index(["part", "given"])["oracle"]
    expected = [*(scores[row] for row in rows), table["floor"].dropna().iloc[0]]
    assert [float(text) for text in found] == pytest.approx(expected, abs=0.051)


def test_the_readme_quotes_the_oracles_of_photographs() -> None:
    table = pd.read_csv(ROOT / "results" / "oracles" / "mmcelebahq64.csv")
    found = quoted(
        r"raster VQ of 768 codes scores ([\d.]+), the spectral tokenizer ([\d.]+), LL at half the "
        r"side ([\d.]+) and at a quarter ([\d.]+); enlarged by bicubic interpolation they score "
        r"([\d.]+) and ([\d.]+) \(real images ([\d.]+)\)",
    )
    scores = table.set_index(["part", "given"])["oracle"]
    expected = [
        scores["raster VQ", "768 codes"],
        scores["SIT, 3 of 3 scales", "768 codes"],
        *(scores["detail network", f"LL {side} px"] for side in (32, 16)),
        *(scores["bicubic", f"LL {side} px"] for side in (32, 16)),
        table["floor"].iloc[-1],
    ]
    assert [float(text) for text in found] == pytest.approx(expected, abs=0.0051)


def test_no_private_row_spent_more_than_its_target() -> None:
    private = [r.privacy for r in load_folder(RESULTS / "records") if r.row == "private"]
    assert len(private) == 2 * len(METHODS) * 2 * 3
    for privacy in private:
        counts = {
            Event(q.sampling_probability, q.noise_multiplier): q.count for q in privacy.queries
        }
        assert privacy.delta is not None
        again = epsilon_of(counts, privacy.delta)
        assert privacy.epsilon_spent == pytest.approx(again, rel=1e-6)
        assert privacy.epsilon_target is not None
        assert again <= privacy.epsilon_target


def test_dp_wavelet_brings_what_is_claimed_on_faces() -> None:
    before = scores("dp_wavelet", "pretrained")
    assert (scores("dp_wavelet", "private", 1) < 0.7 * before).all()
    left = scores("dp_wavelet", "private", 10) - scores("dp_wavelet", "oracle")
    closed = 1 - left / (before - scores("dp_wavelet", "oracle"))
    assert (closed > 0.8).all()


@pytest.mark.parametrize("dataset", ["toyfaces", "toyscenes"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_from_records_and_from_a_larger_budget(
    method: str, dataset: str
) -> None:
    """Without noise it beats its public row; epsilon 10 is no worse than 1 beyond the interval."""
    before, free = (scores(method, row, dataset=dataset) for row in ("pretrained", "non_private"))
    assert free.mean() < before.mean()
    less, more = (scores(method, "private", epsilon, dataset) for epsilon in (1, 10))
    worse = more - less
    assert worse.mean() - 4.303 * worse.std(ddof=1) / np.sqrt(3) <= 0


def test_the_suite_discriminates_beyond_the_interval_over_seeds() -> None:
    """The 95 % t-interval of the cost of privacy to full finetuning stays above 20 %."""
    free = scores("dp_full_finetune", "non_private")
    gap = scores("dp_full_finetune", "private", 1) - free
    cost = gap / (scores("dp_full_finetune", "pretrained") - free)
    half_width = 4.303 * cost.std(ddof=1) / np.sqrt(3)
    assert cost.mean() - half_width > 0.2
