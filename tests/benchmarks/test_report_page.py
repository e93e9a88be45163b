"""The report: its page, sample grids and command, from hand-built records."""

from __future__ import annotations

import io
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_records import INF, record

from benchmarks.record import (
    load_folder,
    save,
)
from benchmarks.report import __main__ as command
from benchmarks.report import make_report
from benchmarks.report.facts import label, number, plus_minus
from benchmarks.report.grid import LEFT, page_grid, sample_grid
from benchmarks.report.html import data_uri
from benchmarks.report.plots import plots_of
from wavedp.dp.errors import UserError


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
    inside = ("data:image/png;base64,", "data:image/jpeg;base64,", "#")
    assert all(address.startswith(inside) for address in page.addresses)
    assert not re.search(r"url\(|@import|https?://", re.sub(r"base64,[^\"]*", "", text))
    # Two data sets: four plots, and two grids with a row of each line that drew something.
    records = load_folder(suite / "records")
    drawn = {(r.dataset, r.method, r.row, r.privacy.epsilon_target) for r in records if r.samples}
    assert page.tags.count("img") == 2 * 4 + 2 * (2 + len(drawn))
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
    assert {
        "summary.csv",
        "table.md",
        "report.html",
        "grid-toy_faces.png",
        "glance-toy_faces.png",
    } < {p.name for p in made}
    plots = {
        f"{n}-toy_faces.{end}" for n in ("metrics", "cost", "throughput") for end in ("png", "csv")
    }
    assert plots < {p.name for p in made}
    for path in made:
        path.unlink()
    make_report(copy)
    for path in made:
        assert path.read_bytes() == (suite / path.relative_to(copy)).read_bytes(), path.name


def test_grid_has_a_row_per_line_and_a_column_per_prompt(suite: Path) -> None:
    records = load_folder(suite / "records")
    grid = sample_grid(suite, "toy_faces", records, columns=8)
    assert grid is not None
    # Tiles of 8 px are shown at 96; real, four rows and five rows, one of them failed.
    assert grid.width == LEFT + 8 * 100 - 4 + 12
    assert grid.height > 10 * 96
    assert grid.getpixel((LEFT + 48, grid.height - 12 - 48)) == (200, 30, 40)
    assert sample_grid(suite, "toy_faces", records, columns=16).width > grid.width  # type: ignore[union-attr]


def test_the_page_has_the_pixels_of_samples_and_no_others(suite: Path) -> None:
    """Tiles of 8 px in their own size, which a browser shows at 96."""
    records = load_folder(suite / "records")
    grid = page_grid(suite, "toy_faces", records, columns=8, start=8)
    assert grid is not None
    assert (grid.columns, grid.tile, grid.gap, grid.width) == (8, 96, 12, 8 * 108 - 12)
    assert len(grid.prompts) == 8
    assert [row.picture for row in grid.rows if not row.picture] == [b""], "one failed"
    for row in (row for row in grid.rows if row.picture):
        with Image.open(io.BytesIO(row.picture)) as strip:
            assert strip.size == (8 * 9 - 1, 8)
    text = (suite / "report.html").read_text(encoding="utf-8")
    assert text.count(f'width="{grid.width}" height="96"') == text.count("data:image/jpeg")
    assert "image-rendering: pixelated" in text


def test_a_person_sees_the_samples_that_were_kept_and_nine_methods_fit(in_root: None) -> None:
    """Of the reference results: noisy samples too, which are the hardest to make small."""
    folder = Path("results/embedded")
    records = [r for r in load_folder(folder / "records") if r.seed == 0 and r.samples]
    size, off = 0, []
    for cell in records:
        grid = page_grid(folder, cell.dataset, [cell], columns=8, start=8)
        assert grid is not None
        row = grid.rows[-1]
        size += 2 * len(data_uri(row.picture))  # sixteen prompts
        kept, shown = Image.open(folder / str(cell.samples)), Image.open(io.BytesIO(row.picture))
        for place in range(8):
            tile = kept.convert("RGB").crop((32 * (8 + place), 0, 32 * (9 + place), 32))
            seen = shown.crop((33 * place, 0, 33 * place + 32, 32))
            off.append(np.abs(np.subtract(tile, seen, dtype=float)).mean())
    assert max(off) < 4, "of 255"
    assert 9 * size / len({record.method for record in records}) < 2_000_000


def test_a_glance_has_the_largest_finite_budget_of_each_method(suite: Path) -> None:
    records = load_folder(suite / "records")
    most = max(r.privacy.epsilon_target or 0 for r in records if r.row == "private")
    mine = [r for r in records if r.row == "private" and r.privacy.epsilon_target == most]
    with Image.open(suite / "glance-toy_faces.png") as glance:
        again = sample_grid(suite, "toy_faces", mine)
        assert again is not None
        assert glance.tobytes() == again.tobytes()


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
    assert plots_of(failed, "toy_shapes") == {}


@pytest.mark.parametrize("arguments", [["suite=nowhere"], [], ["a", "b"], ["no/such/folder"]])
def test_a_missing_suite_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(arguments) == 2
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
    assert command.main(["suite=embedded"]) == 0
    assert capsys.readouterr().out.strip().endswith("report.html")


def test_the_command_takes_several_suites(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Path] = []
    monkeypatch.setattr(command, "make_report", lambda folder, _: made.append(folder) or folder)
    assert command.main(["suite=embedded", "elsewhere/tuning"]) == 0
    assert made == [Path("results/embedded"), Path("elsewhere/tuning")]
    assert capsys.readouterr().out.split() == ["results/embedded", "elsewhere/tuning"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dp_full_finetune", "DP full finetune"),
        ("private_evolution", "Private Evolution"),
        ("dp_lora", "DP-LoRA"),
        ("dp_wavelet_quarter", "DP-Wavelet quarter"),
    ],
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
