"""Scoring apart from drawing: metrics that come later, without another private training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fake_weights
import numpy as np
import pytest
from report_records import record

from benchmarks import config as configuration
from benchmarks import run
from benchmarks.cell import identity_of
from benchmarks.config import cells
from benchmarks.metrics import Metric
from benchmarks.metrics.clip_toy import ClipToy
from benchmarks.record import Record, load_folder
from benchmarks.report.notes import footer
from benchmarks.rescoring import GONE, OTHER_RULER
from wavedp.dp.errors import UserError
from wavedp.wavelet.generator import DPWavelet

FOUR = ("pretrained", "private", "non_private", "oracle")


def command(tmp_path: Path, *more: str, metrics: str = "fd_toy", samples: int = 24) -> list[str]:
    return [
        *("suite=smoke", f"suite.samples={samples}", f"suite.metrics=[{metrics}]"),
        *("dataset.private_records=64", "dataset.evaluation_records=100"),
        *("method=dp_wavelet", "method.finetuning.expected_batch=16"),
        *("method.finetuning.steps=2", "privacy.epsilon=[10]"),
        *(f"suite.grid.row=[{','.join(FOUR)}]",),
        *(f"results_dir={tmp_path}/results", f"cache_dir={tmp_path}/cache", *more),
    ]


def records(tmp_path: Path) -> dict[str, Record]:
    return {r.row: r for r in load_folder(tmp_path / "results" / "smoke" / "records")}


def ledgers(tmp_path: Path) -> dict[str, tuple[bytes, int]]:
    files = (tmp_path / "results" / "smoke" / "ledgers").iterdir()
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one row of each kind, scored with one metric."""
    folder = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).resolve().parents[2])
        assert run.main(command(folder)) == 0
    return folder


@pytest.fixture
def place(drawn: Path, tmp_path: Path, in_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that run in which no cell can be run again."""
    shutil.copytree(drawn, tmp_path / "copy")
    monkeypatch.setattr(run, "run_cell", lambda *_: pytest.fail("a cell was run again"))
    return tmp_path / "copy"


def test_the_samples_of_every_cell_are_kept_under_its_name(drawn: Path) -> None:
    for row, item in records(drawn).items():
        images = np.load(drawn / "cache" / "samples" / f"{item.cell}.npy", mmap_mode="r")
        assert images.shape == (24, 3, 32, 32)
        assert images.dtype == np.uint8
        assert item.rescored == []
        assert images[:].std() > 5, row


def test_a_metric_asked_for_later_is_scored_from_the_kept_samples(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, spent = records(place), ledgers(place)
    assert run.main(command(place, metrics="fd_toy,clip_toy,prdc_toy")) == 0
    after = records(place)
    assert ledgers(place) == spent
    for row, new in after.items():
        old = before[row]
        assert {"clip_toy", "prdc_toy_recall"} <= new.metrics.keys() - old.metrics.keys()
        note = new.rescored[0]
        assert set(note.metrics) == new.metrics.keys() - old.metrics.keys()
        assert (note.device, len(new.rescored)) == ("cpu", 1)
        assert note.code_revision
        assert note.created >= old.provenance.created
        rest = {"metrics", "rescored"}
        assert new.model_dump(exclude=rest) == old.model_dump(exclude=rest)
        assert new.metrics["fd_toy"] == old.metrics["fd_toy"]
        assert new.metrics["clip_toy"].n_samples == 24
    shown = " ".join(capsys.readouterr().err.split())
    assert "4 of 4 cells are already recorded" in shown
    assert shown.count("rescored, clip_toy") == 4
    # Nothing is left to do, and nothing is done.
    assert run.main(command(place, metrics="fd_toy,clip_toy,prdc_toy")) == 0
    assert records(place) == after


def test_scores_from_kept_samples_are_those_of_the_run(place: Path) -> None:
    """What a record forgets is computed again, to the last digit, for private rows too."""
    before = records(place)
    for file in (place / "results" / "smoke" / "records").iterdir():
        content = json.loads(file.read_text())
        content["metrics"] = {}
        file.write_text(json.dumps(content))
    assert run.main(command(place)) == 0
    after = records(place)
    assert {row: r.metrics for row, r in after.items()} == {r: x.metrics for r, x in before.items()}
    assert all(item.rescored[0].metrics == ["fd_toy"] for item in after.values())


def test_a_rescored_number_is_the_number_of_a_fresh_run(
    drawn: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rows without noise: drawn again from the same seed."""
    monkeypatch.undo()
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    run.main(command(place, metrics="fd_toy,spectral,prdc_toy"))
    rows = "suite.grid.row=[pretrained,oracle]"
    assert run.main(command(tmp_path / "fresh", rows, metrics="prdc_toy,spectral,fd_toy")) == 0
    for row, fresh in records(tmp_path / "fresh").items():
        later = records(place)[row]
        assert later.metrics == fresh.metrics
        assert later.metrics["fd_toy"] == records(drawn)[row].metrics["fd_toy"]


def test_weights_that_come_later_are_used_then(
    place: Path, random_weights_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("WAVEDP_WEIGHTS", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "nothing"))
    assert run.main(command(place, metrics="fd_toy,lpips")) == 0
    for item in records(place).values():
        assert "alexnet-owt missing" in item.not_computed["lpips"].reason
        assert item.rescored == []
    fake_weights.use(random_weights_folder, monkeypatch)
    assert run.main(command(place, metrics="fd_toy,lpips")) == 0
    for item in records(place).values():
        assert item.not_computed == {}
        assert item.metrics["lpips"].value > 0
        assert item.rescored[0].metrics == ["lpips"]


def test_samples_that_are_gone_are_one_sentence(
    drawn: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spent, lost = ledgers(place), records(place)["private"].cell
    (place / "cache" / "samples" / f"{lost}.npy").unlink()
    assert run.main(command(place, metrics="fd_toy,clip_toy")) == 0
    after = records(place)
    assert after["private"].not_computed["clip_toy"].reason == GONE
    assert "clip_toy" not in after["private"].metrics
    assert "clip_toy" in after["pretrained"].metrics
    assert ledgers(place) == spent
    shown = " ".join(capsys.readouterr().err.split())
    assert "1 cell not rescored, the first is toyfaces / dp_wavelet / epsilon 10" in shown
    assert "force=true draws them anew" in shown
    assert "composes" in shown
    table = (place / "results" / "smoke" / "table.md").read_text()
    assert "the samples of this cell are not kept on this machine" in table
    shutil.copy(drawn / "cache" / "samples" / f"{lost}.npy", place / "cache" / "samples")
    assert run.main(command(place, metrics="fd_toy,spectral")) == 0
    assert records(place)["private"].not_computed == {}
    assert "not rescored" not in capsys.readouterr().err


def test_nothing_is_prepared_where_no_samples_are_left(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reference statistics of photographs take long, and would serve no cell."""
    shutil.rmtree(place / "cache" / "samples")
    monkeypatch.setattr(Metric, "take", lambda _: pytest.fail("something was scored"))
    assert run.main(command(place, metrics="fd_toy,clip_toy")) == 0
    assert all(r.not_computed["clip_toy"].reason == GONE for r in records(place).values())


def test_samples_of_another_suite_are_not_taken_for_those_of_a_cell(place: Path) -> None:
    """Cells of both have one identity and their own noise."""
    cache, cell = place / "cache" / "samples", records(place)["private"].cell
    other = np.load(cache / f"{cell}.npy")
    np.save(cache / f"{cell}.npy", 255 - other)
    assert run.main(command(place, metrics="fd_toy,clip_toy")) == 0
    assert records(place)["private"].not_computed["clip_toy"].reason == GONE


def test_a_metric_that_fails_leaves_the_record_as_it_was(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a private\nvalue")

    before = records(place)
    monkeypatch.setattr(ClipToy, "standard_error", fails)
    assert run.main(command(place, metrics="fd_toy,clip_toy")) == 1
    assert records(place) == before
    shown = " ".join(capsys.readouterr().err.split())
    assert shown.count("not rescored: RuntimeError in test_rescoring.py") == 4
    assert "private value" not in shown


def test_a_caption_metric_says_nothing_of_a_method_without_captions(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = records(place)
    monkeypatch.setattr(DPWavelet, "conditioning", "none")
    assert run.main(command(place, metrics="fd_toy,clip_toy")) == 0
    assert records(place) == before


def changed(tmp_path: Path, **changes: Any) -> None:
    """The records of a run, as if their ``fd_toy`` had been taken by another ruler."""
    for file in (tmp_path / "results" / "smoke" / "records").iterdir():
        content = json.loads(file.read_text())
        content["metrics"]["fd_toy"] |= {"value": 1e6, **changes}
        file.write_text(json.dumps(content))


RULERS: list[dict[str, Any]] = [
    {"protocol": "as it was"},
    {"weights": {"yardstick": "0" * 64}},
    {"n_reference": 7},
]


@pytest.mark.parametrize("ruler", RULERS, ids=["protocol", "weights", "reference"])
def test_a_score_by_another_ruler_is_taken_anew(
    ruler: dict[str, Any], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the kept samples: no ledger is touched, and one column has one ruler."""
    before, spent = records(place), ledgers(place)
    changed(place)
    assert run.main(command(place)) == 0  # another value by the same ruler is none of our business
    assert all(r.metrics["fd_toy"].value == 1e6 for r in records(place).values())
    changed(place, **ruler)
    capsys.readouterr()
    assert run.main(command(place)) == 0
    after = records(place)
    assert {row: r.metrics for row, r in after.items()} == {r: x.metrics for r, x in before.items()}
    assert all(item.rescored[0].metrics == ["fd_toy"] for item in after.values())
    assert ledgers(place) == spent
    assert " ".join(capsys.readouterr().err.split()).count("rescored, fd_toy") == 4


def test_a_score_by_another_ruler_stays_and_is_named_where_samples_are_gone(
    drawn: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(place, protocol="as it was")
    shutil.rmtree(place / "cache" / "samples")
    assert run.main(command(place)) == 0
    for item in records(place).values():
        assert item.metrics["fd_toy"].protocol == "as it was"  # not to be had again
        assert item.not_computed["fd_toy"].reason == OTHER_RULER
    assert "4 cells not rescored" in " ".join(capsys.readouterr().err.split())
    table = " ".join((place / "results" / "smoke" / "table.md").read_text().split())
    assert "the number shown was taken by another ruler" in table
    shutil.copytree(drawn / "cache" / "samples", place / "cache" / "samples")
    assert run.main(command(place)) == 0
    for item in records(place).values():
        assert item.metrics["fd_toy"].protocol != "as it was"
        assert item.not_computed == {}


def test_a_score_stays_where_nothing_could_take_it_anew(
    place: Path,
    random_weights_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A machine without the weights says nothing of the ruler of a recorded score."""
    with monkeypatch.context() as patch:
        fake_weights.use(random_weights_folder, patch)
        assert run.main(command(place, metrics="fd_toy,lpips")) == 0
    before = records(place)
    for variable in ("WAVEDP_WEIGHTS", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "nothing"))
    assert run.main(command(place, metrics="fd_toy,lpips")) == 0
    assert records(place) == before


def test_metrics_that_say_nothing_of_a_method_are_not_missing(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """To fetch CLIP for a method without captions would be in vain; FID it lacks."""
    for variable in ("WAVEDP_WEIGHTS", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "nothing"))
    monkeypatch.setattr("benchmarks.features._opened", {})
    monkeypatch.setattr(DPWavelet, "conditioning", "none")
    assert run.main(command(place, metrics="fd_toy,clip_score,lpips,fid")) == 0
    assert all(set(item.not_computed) == {"fid"} for item in records(place).values())
    monkeypatch.undo()
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    for variable in ("WAVEDP_WEIGHTS", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "nothing"))
    monkeypatch.setattr(DPWavelet, "conditioning", "none")
    fresh = command(tmp_path / "fresh", "suite.grid.row=[oracle]", metrics="fd_toy,clip_score,fid")
    assert run.main(fresh) == 0
    assert set(records(tmp_path / "fresh")["oracle"].not_computed) == {"fid"}


def test_every_metric_is_composed_once_for_all_cells(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra takes longer than a look at all records."""
    names = ["fd_toy", "clip_toy", "prdc_toy", "spectral"]
    assert run.main(command(place, metrics=",".join(names))) == 0
    configuration.load_choice.cache_clear()
    real, composed = configuration.compose, []

    def counting(overrides: Sequence[str]) -> Any:
        composed.append(list(overrides))
        return real(overrides)

    monkeypatch.setattr(configuration, "compose", counting)
    assert run.main(command(place, metrics=",".join(names))) == 0
    asked = [one[0] for one in composed if one[0].startswith("+metric=")]
    assert sorted(asked) == sorted(f"+metric={name}" for name in names)


# One table, one set of prompts --------------------------------------------------------------


@pytest.mark.parametrize("samples", [12, 48])
def test_another_number_of_samples_is_refused_before_work(samples: int, place: Path) -> None:
    before = records(place)
    with pytest.raises(UserError) as caught:
        run.main(command(place, samples=samples))
    message = str(caught.value)
    assert "\n" not in message
    assert f"scored on 24 prompts, and this run asks for {samples}" in message
    assert "set suite.samples=24, or draw all rows anew" in message
    assert "force=true" in message
    assert "composes" in message
    assert records(place) == before


def test_rows_of_another_method_or_seed_may_not_mix_either(place: Path) -> None:
    """Cells that are not in the folder yet would stand in the same table."""
    with pytest.raises(UserError, match="scored on 24 prompts, and this run asks for 30"):
        run.main(command(place, "method=dp_full_finetune", "seed=5", samples=30))


def test_another_protocol_in_the_same_table_is_refused(place: Path) -> None:
    with pytest.raises(UserError, match="under protocol quick, and this run is under mmceleba"):
        run.main(command(place, "suite.protocol=mmceleba"))


def test_other_prompts_of_the_same_number_are_refused(place: Path) -> None:
    for file in (place / "results" / "smoke" / "records").iterdir():
        content = json.loads(file.read_text())
        content["evaluated"]["prompts_sha256"] = "0" * 64
        file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="scored on other prompts, as captions or protocol"):
        run.main(command(place))


def test_older_records_tell_the_number_of_samples(place: Path) -> None:
    for file in (place / "results" / "smoke" / "records").iterdir():
        content = json.loads(file.read_text())
        del content["evaluated"], content["rescored"]
        file.write_text(json.dumps(content))
    assert run.main(command(place)) == 0
    with pytest.raises(UserError, match="scored on 24 prompts"):
        run.main(command(place, samples=12))


def test_force_draws_other_samples_and_keeps_what_was_spent(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    before = ledgers(place)
    assert run.main(command(place, "force=true", samples=12)) == 0
    assert {r.evaluated.prompts for r in records(place).values() if r.evaluated} == {12}
    assert len(ledgers(place)) == 2 * len(before)
    assert len(list((place / "cache" / "samples").iterdir())) == 4


def test_a_cache_that_moves_makes_no_new_cell(tmp_path: Path) -> None:
    """A new identity would be a second private training."""
    one, other = (
        identity_of(cells(["suite=quick", f"cache_dir={tmp_path}/{name}"])[1]) for name in "ab"
    )
    assert one == other
    root = identity_of(cells(["suite=quick", "+dataset.root=elsewhere"])[1])
    assert root != one


def test_a_table_of_different_sample_counts_says_which_rows_have_which() -> None:
    """As where the oracle has fewer held-out images than there are prompts."""

    def of(count: int, **changes: Any) -> Record:
        made = record(**changes)
        scores = {k: v.model_copy(update={"n_samples": count}) for k, v in made.metrics.items()}
        return made.model_copy(update={"metrics": scores})

    mixed = [of(1200), of(11, row="oracle", epsilon=None), of(1200, epsilon=10.0)]
    sentence = next(text for text in footer(mixed) if "number of samples" in text)
    assert "fd_toy" in sentence
    assert (
        "on 11 samples: DP-Wavelet (oracle†); on 1,200 samples: DP-Wavelet (ε = 1) and" in sentence
    )
    assert not [text for text in footer([of(11), of(11)]) if "number of samples" in text]
    other = of(11, dataset="toy_faces")
    assert not [text for text in footer([of(12), other]) if "number of samples" in text]
