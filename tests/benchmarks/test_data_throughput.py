"""The benchmark of data and metrics: what is written, and that both sides work; not how fast."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.dp_merf import DPMerf
from benchmarks.throughput import comparison as module
from benchmarks.throughput import (
    data,
    distances,
    methods,
    networks,
    photographs,
    priors,
    sheet,
    wavelet,
)
from benchmarks.throughput.comparison import Compared, Comparison, Sides, compare
from wavedp.data import cache as caches
from wavedp.dp.errors import UserError


class Clock:
    """A clock that only work moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.log = 0.0, ""
        monkeypatch.setattr(module, "clock", lambda device: self.now)

    def work(self, name: str, seconds: Callable[[int], float]) -> Callable[[], None]:
        runs = count()

        def run() -> None:
            self.log += name
            self.now += seconds(next(runs))

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def comparison(sides: Sides, **changes: object) -> Comparison:
    plain = Comparison("features", "a case", 12, lambda folder: sides, turns=5)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_both_sides_take_turns_and_the_row_has_medians(tmp_path: Path, clock: Clock) -> None:
    """Ratios 2 2.5 3 3.5 4 after two runs of warm-up, of which the clock sees nothing."""
    harness = clock.work("h", lambda run: 99 if run < 2 else 4 + (run - 2))
    sides = Sides(harness, clock.work("b", lambda run: 2), note="random")
    found = compare(comparison(sides), tmp_path, "cpu")
    assert clock.log == "hb" * 7
    assert found == Compared(6, 2, 3, 2.5, 3.5, "random")


def test_where_only_the_time_is_asked_for_there_is_no_ratio(tmp_path: Path, clock: Clock) -> None:
    found = compare(comparison(Sides(clock.work("h", lambda run: 3))), tmp_path, "cpu")
    assert found == Compared(3, None, None, None, None, "")


def refused(folder: Path) -> Sides:
    raise UserError("package x missing")


def test_the_table_has_every_row_with_a_figure_or_a_reason(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    sides = Sides(clock.work("h", lambda run: 3), clock.work("b", lambda run: 2))
    rows = [
        comparison(sides, case="good", at_most=1.6),
        comparison(sides, case="slow", at_most=1.4),
        comparison(Sides(clock.work("h", lambda run: 3)), work="score", case="alone"),
        comparison(sides, case="absent", make=refused),
    ]
    table = sheet.Sheet("data", lambda: rows)
    monkeypatch.setattr("sys.argv", ["data", "--folder", str(tmp_path)])
    assert table.main("Speed.") == 1
    assert "1 rows take longer" in capsys.readouterr().out
    (path,) = tmp_path.glob("data-*.csv")
    good, slow, alone, absent = csv.DictReader(path.open())
    assert tuple(good) == sheet.COLUMNS
    assert (good["time_ratio"], good["at_most"], good["samples_per_s"]) == ("1.500", "1.600", "4")
    assert (slow["time_ratio"], slow["status"]) == ("1.500", "measured")
    assert (alone["seconds"], alone["time_ratio"], alone["samples_per_s"]) == ("3", "", "")
    assert (absent["status"], absent["reason"]) == ("missing", "refused: package x missing")
    monkeypatch.setattr("benchmarks.throughput.table.code_revision", lambda: "0123abc")
    assert table.main("Speed.") == 1
    clock.log = ""
    assert table.main("Speed.") == 1  # only what is missing, which is not there now either
    assert clock.log == ""
    monkeypatch.setattr("benchmarks.throughput.table.code_revision", lambda: "0123abc+")
    for _ in range(2):  # changed code: nobody knows whether it is the same change
        clock.log = ""
        assert table.main("Speed.") == 1
        assert clock.log != ""


@pytest.mark.parametrize("table", [data.SHEET, wavelet.SHEET, methods.SHEET])
def test_every_row_has_a_name_of_its_own(table: sheet.Sheet) -> None:
    rows = table.planned()
    keys = {(row.work, row.case, row.samples) for row in rows}
    assert len(keys) == len(rows)
    assert all(row.turns >= 5 for row in rows)


def test_a_method_stands_beside_dp_wavelet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that trains by gradients sees as many records as it; one that asks queries asks all."""
    monkeypatch.setattr(DPMerf, "_match", lambda *_: None)  # what follows its query takes a minute
    size = replace(methods.sizes()[0], records=8, batch=4, steps=2, drawn=2)
    made = methods.sides(size, "dp_vae", (), methods.Work.finetune, tmp_path / "vae")
    assert made.peak
    assert made.bare is not None
    made.harness()
    made.bare()
    made.bare()
    asked = methods.sides(size, "dp_merf", (), methods.Work.finetune, tmp_path / "merf")
    asked.harness()
    ledgers = {path.name: path.read_text() for path in tmp_path.rglob("dp_*-*") if path.is_file()}
    kinds = {name: text.count('"noise_multiplier"') for name, text in ledgers.items()}
    assert kinds == {"dp_vae-0": 2, "dp_wavelet-0": 2, "dp_wavelet-1": 2, "dp_merf-0": 1}
    drawn = methods.sides(size, methods.BASE, (), methods.Work.sample, tmp_path)
    drawn.harness()
    assert (drawn.bare, drawn.peak) == (None, False)


def test_a_size_has_the_methods_of_its_folder_dp_wavelet_first() -> None:
    embedded, photographs64, paper = methods.sizes()
    for size in (embedded, photographs64, paper):
        assert size.all()[0] == methods.BASE
    assert set(photographs64.all()) > {"dp_ldm", "dp_llamagen", "dp_pixel_diffusion"}
    with pytest.raises(UserError, match="no GPU here"):
        methods.sides(paper, methods.BASE, (), methods.Work.sample, Path())


def test_a_method_is_of_the_size_that_it_is_measured_at(tmp_path: Path) -> None:
    """Also where its resolution is that of the data set."""
    size = replace(methods.sizes()[1], records=6, batch=3, steps=1, drawn=1)
    work = methods.Work(size, "dp_vae", (), tmp_path)
    assert work.generator.resolution == 64
    work.finetune()


def test_files_go_to_the_methods_that_read_them(tmp_path: Path) -> None:
    """One command measures them all, and no method reads what another one does."""
    size, given = methods.sizes()[1], [f"method.published.upsampler={tmp_path}/missing"]
    for method in ("dp_vae", "dp_ldm"):
        methods.Work(size, method, given, tmp_path)
    with pytest.raises(UserError, match="missing"):
        methods.Work(size, "dp_wavelet_published", given, tmp_path)


def test_every_network_is_compared_with_the_bare_one() -> None:
    rows = data.planned()
    limited = {row.case for row in rows if row.at_most is not None}
    assert {case for case in limited if "no resampling" in case} == {
        f"{name}, no resampling" for name in networks.NETWORKS
    }


@pytest.mark.parametrize("name", networks.NETWORKS)
@pytest.mark.parametrize("whole", [False, True])
def test_the_bare_network_gives_the_features_of_the_harness(
    name: str, whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With random weights, as there are no others here; on images that need resampling, too."""
    for variable in ("WAVEDP_WEIGHTS", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr(networks, "COUNT", 2)
    open_network, side = networks.NETWORKS[name]
    space, sees, network, note = open_network()
    assert note == networks.RANDOM
    images = networks.noise(networks.SIDE if whole else side)
    with torch.inference_mode():
        bare = network(sees(images))
    np.testing.assert_allclose(bare.float().cpu(), space(images), rtol=1e-5, atol=1e-6)
    assert len(bare) == 2


def test_images_of_the_size_that_a_network_sees_are_not_resampled() -> None:
    for open_network, side in networks.NETWORKS.values():
        _, sees, _, _ = open_network()
        assert sees(networks.noise(side)).shape[-2:] == (side, side)


def test_preparing_decodes_every_file_in_every_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    real = caches.load_pixels

    def counting(picture: caches.Picture, *rest: object) -> np.ndarray:
        decoded.append(picture.name)
        return real(picture, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(caches, "load_pixels", counting)
    sides = photographs.sides(tmp_path, 24, 16, 8, count=3)
    assert sides.bare is not None
    for _ in range(2):
        sides.harness()
        sides.bare()
    assert decoded == ["0.jpg", "1.jpg", "2.jpg"] * 2
    assert np.load(tmp_path / "cache/x.npy").shape == (3, 3, 8, 8)


def test_both_ways_to_a_frechet_distance_give_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "WIDTH", 8)
    one, other = distances.frechet(tmp_path), distances.by_eigenvalues(tmp_path)
    assert one.harness() == pytest.approx(other.harness(), rel=1e-6)
    assert abs(float(distances.kid(tmp_path).harness())) < 0.1  # type: ignore[arg-type]
    shares = distances.prdc(tmp_path).harness()
    assert 0.5 < shares.covered.mean() <= 1  # type: ignore[attr-defined]


def test_both_ways_of_sampling_draw_the_same_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(priors, "device_here", lambda: "cpu")
    size = priors.Size("tiny", 2, 4, 2, 16, 16, 1, 2, batch=3, plain=True)
    assert priors.sampling(replace(size, plain=False), tmp_path).bare is None
    sides = priors.sampling(size, tmp_path)
    assert sides.bare is not None
    drawn = sides.harness()
    assert drawn.shape == (3, 8, 2)  # type: ignore[attr-defined]
    assert torch.equal(drawn, sides.bare())  # type: ignore[arg-type]
    training = priors.finetuning(size, tmp_path)
    training.harness()
    with pytest.raises(UserError, match="no GPU here"):
        replace(size, gpu=True).make()
