"""The harness: grids, checks before work starts, records, failures that do not spread."""

import json
import math
import stat

import pandas as pd
import pytest
import torch

from benchmarks import run
from benchmarks.cell import checkpoints_of, failed_record, identity_of, make_generator
from benchmarks.config import cells
from benchmarks.hardware import PeakMemory, check_room
from benchmarks.record import Record, load, load_folder
from benchmarks.scorer import Scorer
from wavedp.data.toyfaces import ToyFaces
from wavedp.dp import UserError
from wavedp.dp.noise import GaussianNoise
from wavedp.wavelet.generator import DPWavelet

TINY = [
    "suite=smoke",
    "suite.samples=24",
    "dataset.private_records=64",
    "dataset.evaluation_records=300",
    "method.finetuning.expected_batch=16",
    "method.finetuning.steps=2",
]


def overrides(tmp_path, cache, *more):
    return [*TINY, f"results_dir={tmp_path}/results", f"cache_dir={cache}", *more]


# Grids --------------------------------------------------------------------------------------


# Bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("method=dp_wavelt", "dp_wavelet"),
        ("dataset=toyface", "toyfaces"),
        ("suite=quik", "quick"),
        ("suite.metrics=[fid_toy]", "fd_toy"),
        ("method.finetuning.stepz=3", "stepz"),
        ("privacy.epsilon=-1", "epsilon"),
        ("privacy.epsilon=0", "epsilon"),
        ("privacy.delta=0.1", "1/N"),
        ("method.finetuning.expected_batch=1000000", "expected batch"),
        ("dataset=coco_mini", "dataset.root"),
        ("dataset.resolution=64", "dataset.resolution=32"),
        ("dataset.resolution=48", "32 or 64"),
        ("method.weights.prior=nowhere", "benchmarks.pretrain"),
        ("method.generator.tokenizer.grid=3", "divide"),
        ("method.generator.prior.width=32", "does not fit"),
        ("method.finetuning.engine=ghost", "ghost"),
        ("hardware.device=cuda", "GPU"),
    ],
)
def test_bad_input_is_one_sentence_before_any_cell_runs(
    wrong, named, tmp_path, cache, in_root, monkeypatch
):
    if wrong == "hardware.device=cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(run, "run_cell", lambda *_: pytest.fail("a cell was started"))
    with pytest.raises(UserError) as caught:
        run.main(overrides(tmp_path, cache, wrong))
    message = str(caught.value)
    assert named in message
    assert "\n" not in message
    assert not (tmp_path / "results").exists()


def test_a_command_ends_with_code_2_and_no_traceback(in_root, capfd, monkeypatch):
    from benchmarks.console import run_command

    monkeypatch.setattr("sys.argv", ["run", "method=nothing"])
    with pytest.raises(SystemExit) as ended:
        run_command(run.main)
    assert ended.value.code == 2
    assert "Traceback" not in capfd.readouterr().err


def test_too_little_room_is_refused(tmp_path):
    with pytest.raises(UserError, match="MB free"):
        check_room(tmp_path / "not" / "yet", 1e12, 1)
    with pytest.raises(UserError, match="memory"):
        check_room(tmp_path, 1, 1e12)


# Cells --------------------------------------------------------------------------------------


def test_a_small_grid_runs_records_and_is_not_run_twice(tmp_path, cache, in_root, monkeypatch):
    assert run.main(overrides(tmp_path, cache)) == 0
    folder = tmp_path / "results" / "smoke"
    records = load_folder(folder / "records")
    assert len(records) == 8
    for record in records:
        assert record.status == "ok"
        assert (folder / record.samples).exists()
        assert record.metrics["fd_toy"].n_samples == 24
        assert record.metrics["fd_toy"].floor > 0
        assert record.cost.peak_memory_mb is None  # measured on a GPU only
        if record.row == "private":
            assert 0 < record.privacy.epsilon_spent <= record.privacy.epsilon_target
            assert record.privacy.queries[0].count == record.privacy.steps == 2
            assert record.privacy.noise_multiplier > 0.2
        if record.row == "pretrained":
            assert record.privacy.epsilon_spent == 0
            assert record.privacy.queries == []
    summary = pd.read_csv(folder / "summary.csv")
    assert len(summary) == 8
    assert (folder / "report.html").exists()
    monkeypatch.setattr(run, "run_cell", lambda *_: pytest.fail("a cell ran again"))
    assert run.main(overrides(tmp_path, cache)) == 0


def test_a_failed_cell_is_recorded_and_the_others_go_on(tmp_path, cache, in_root, monkeypatch):
    real = run.run_cell

    def sometimes(cell, *rest):
        if cell.row == "private" and cell.epsilon == 1:
            raise RuntimeError("the disk\nis full")
        return real(cell, *rest)

    monkeypatch.setattr(run, "run_cell", sometimes)
    assert run.main(overrides(tmp_path, cache, "method=dp_wavelet")) == 1
    records = load_folder(tmp_path / "results" / "smoke" / "records")
    assert sorted(r.status for r in records) == ["failed", "ok", "ok", "ok"]
    failed = next(r for r in records if r.status == "failed")
    # The text may quote a private value; where it was raised does not.
    assert failed.reason.startswith("RuntimeError in test_harness.py:")
    assert "disk" not in failed.reason
    monkeypatch.setattr(run, "run_cell", real)
    assert run.main(overrides(tmp_path, cache, "method=dp_wavelet")) == 0  # retried, and alone


def test_a_damaged_ledger_fails_its_cell_alone(tmp_path, cache, in_root):
    args = overrides(tmp_path, cache, "method=dp_vae", "suite.grid.row=[private]")
    damaged = next(cell for cell in cells(args) if cell.epsilon == 1)
    ledger = tmp_path / "results" / "smoke" / "ledgers" / f"{identity_of(damaged)}.jsonl"
    ledger.parent.mkdir(parents=True)
    ledger.write_text("a query\n")
    checkpoints_of(damaged, ledger).save("finetuning 1", {})  # or the ledger is set aside
    assert run.main(args) == 1
    found = {r.privacy.epsilon_target: r for r in load_folder(ledger.parent.parent / "records")}
    assert found[10].status == "ok"
    assert "has a line that is not a query" in found[1].reason
    assert found[1].privacy.epsilon_spent is None
    assert ledger.read_text() == "a query\n"


def test_seeds_with_given_noise_share_none_of_it(tmp_path, cache, in_root):
    """Or an interval over seeds would be one over the same draws."""
    given = ("privacy.noise_seed=1", "privacy.sampling_seed=2", "suite.grid.seed=[0,1]")
    chosen = ("method=dp_vae", "suite.grid.row=[private]")

    def drawn(place):
        assert run.main(overrides(tmp_path / place, cache, *given, *chosen)) == 0
        ledgers = sorted((tmp_path / place / "results" / "smoke" / "ledgers").iterdir())
        lines = [json.loads(x) for path in ledgers for x in path.read_text().splitlines()[1:]]
        return [line["noise"] for line in lines]

    noises = drawn("one")
    assert len(set(noises)) == len(noises) == 2 * 2 * 2  # budgets, seeds, steps
    assert drawn("again") == noises


def test_tracebacks_are_for_the_owner_and_no_part_of_the_results(
    tmp_path, in_root, monkeypatch, capsys
):
    def fails(*_):
        raise RuntimeError("a private value")

    monkeypatch.setattr(run, "run_cell", fails)
    cache = tmp_path / "cache"
    args = overrides(tmp_path, cache, "method=dp_wavelet", "suite.grid.row=[pretrained]")
    assert run.main(args) == 1
    record = load_folder(tmp_path / "results" / "smoke" / "records")[0]
    path = cache / "failures" / f"{record.cell}.txt"
    assert "RuntimeError: a private value" in path.read_text()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    results = [p for p in (tmp_path / "results").rglob("*") if p.suffix in (".txt", ".json")]
    assert not [p for p in results if "a private value" in p.read_text()]
    said = " ".join(capsys.readouterr().err.split())
    assert f"traceback: {path}" in said
    assert "a private value" not in said


def test_a_forced_cell_that_fails_leaves_the_good_run_as_it_was(
    tmp_path, in_root, monkeypatch, capsys
):
    """Its samples cannot be had again without another release."""
    cache, folder = tmp_path / "cache", tmp_path / "results" / "smoke"
    axes = ("method=dp_wavelet", "suite.grid.row=[private]", "privacy.epsilon=[10]")
    args = overrides(tmp_path, cache, *axes, "hardware.checkpoint_every=1")
    assert run.main(args) == 0
    good = load_folder(folder / "records")[0]
    places = [
        folder / "records" / f"{good.cell}.json",
        folder / good.samples,
        cache / "samples" / f"{good.cell}.npy",
    ]
    before = [place.read_bytes() for place in places]
    spent = (folder / "ledgers" / f"{good.cell}.jsonl").read_bytes()
    capsys.readouterr()
    real = run.run_cell

    def fails(*given):
        real(*given)
        raise RuntimeError("at the very end")

    monkeypatch.setattr(run, "run_cell", fails)
    assert run.main([*args, "force=true"]) == 1
    assert [place.read_bytes() for place in places] == before
    assert [p.name for p in (cache / "samples").iterdir()] == [f"{good.cell}.npy"]
    assert (folder / "ledgers" / f"{good.cell}.1.jsonl").read_bytes() == spent
    attempt = load(cache / "failures" / f"{good.cell}.json")
    assert attempt.status == "failed"
    assert 0 < attempt.privacy.epsilon_spent < 10
    assert not list(cache.rglob("*.key"))  # nothing would go on from there
    said = " ".join(capsys.readouterr().err.split())
    assert "the record, samples and picture of the run before stay" in said
    assert f"this attempt spent epsilon {attempt.privacy.epsilon_spent:.4g}" in said
    assert f"composes with what the runs before it spent ({good.cell}.1.jsonl" in said
    # The good record is found, and its samples are its own.
    monkeypatch.setattr(run, "run_cell", lambda *_: pytest.fail("a cell ran again"))
    assert run.main([*args, "suite.metrics=[fd_toy,spectral]"]) == 0
    assert "spectral_energy_ll" in load(places[0]).metrics


def test_a_forced_cell_that_fails_before_it_asks_anything_has_spent_nothing(
    tmp_path, cache, in_root, monkeypatch, capsys
):
    axes = ("method=dp_wavelet", "suite.grid.row=[private]", "privacy.epsilon=[10]")
    args = overrides(tmp_path, cache, *axes)
    assert run.main(args) == 0
    monkeypatch.setattr(run, "run_cell", lambda *_: 1 / 0)
    capsys.readouterr()
    assert run.main([*args, "force=true"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "ZeroDivisionError" in said
    assert "spent" not in said  # the ledger of the good run is not this attempt's


def test_a_picture_that_cannot_be_written_is_a_failed_cell(tmp_path, cache, in_root, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("benchmarks.samples.save_strip", fails)
    args = overrides(tmp_path, cache, "method=dp_wavelet", "suite.grid.row=[pretrained,oracle]")
    assert run.main(args) == 1
    records = load_folder(tmp_path / "results" / "smoke" / "records")
    assert [record.status for record in records] == ["failed", "failed"]


def test_a_record_does_not_name_the_file_of_a_private_record(tmp_path, in_root, monkeypatch):
    def private(self):
        raise UserError("/data/ward 3/Jane Doe.jpg cannot be decoded: copy this file again.")

    monkeypatch.setattr(ToyFaces, "private", private)
    cache = tmp_path / "cache"
    axes = ("method=dp_wavelet", "suite.grid.row=[private]", "privacy.epsilon=[10]")
    assert run.main(overrides(tmp_path, cache, *axes)) == 1
    record = load_folder(tmp_path / "results" / "smoke" / "records")[0]
    assert record.reason.startswith("The private records of toyfaces cannot be read")
    assert "benchmarks.doctor" in record.reason
    results = [p for p in (tmp_path / "results").rglob("*") if p.is_file()]
    assert not [p for p in results if b"Jane" in p.read_bytes()]
    assert "Jane Doe" in (cache / "failures" / f"{record.cell}.txt").read_text()


def test_a_failed_record_tells_the_device_it_failed_on(tmp_path, cache, monkeypatch):
    cell = cells(["suite=quick", "hardware.device=cuda"])[0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    dataset = ToyFaces(private_records=8, evaluation_records=8, cache_dir=cache)
    record = failed_record(cell, dataset, RuntimeError(), tmp_path)
    assert record.hardware.device == "a GPU"


def test_a_generator_is_made_in_evaluation_mode():
    """Nothing of a row without training may learn from what it is shown."""
    generator = make_generator(cells(["suite=quick"])[0])
    assert not [name for name, module in generator.named_modules() if module.training]


def test_an_interrupted_cell_goes_on_from_its_checkpoint(tmp_path, in_root, monkeypatch):
    """Killed in the last of its steps: the next run pays for nothing twice, and cleans up."""
    axes = ("method=dp_wavelet", "suite.grid.row=[private]", "privacy.epsilon=[10]")
    cache = tmp_path / "cache"
    args = overrides(tmp_path, cache, *axes, "hardware.checkpoint_every=1")
    real, steps = GaussianNoise.add_to, []

    def dies(self, sums, step):
        if len(steps) == 1:
            raise KeyboardInterrupt
        steps.append(step)
        real(self, sums, step)

    monkeypatch.setattr(GaussianNoise, "add_to", dies)
    with pytest.raises(KeyboardInterrupt):
        run.main(args)
    monkeypatch.setattr(GaussianNoise, "add_to", real)
    assert list(cache.rglob("*.key"))
    rates, finetune = [], DPWavelet.finetune

    def timed(self, private, trainer):
        finetune(self, private, trainer)
        rates.append(16 / trainer.train_seconds)

    monkeypatch.setattr(DPWavelet, "finetune", timed)
    assert run.main(args) == 0
    record = load_folder(tmp_path / "results" / "smoke" / "records")[0]
    assert record.cost.train_seconds is None  # of one step of two
    assert record.cost.train_examples_per_s == pytest.approx(rates[-1])  # of that step alone
    ledgers = list((tmp_path / "results" / "smoke" / "ledgers").iterdir())
    assert len(ledgers) == 1
    assert len(ledgers[0].read_text().splitlines()) == 1 + record.privacy.steps
    rounding = 1e-5 + 16 * 2**-23
    assert record.privacy.sensitivity == pytest.approx(record.privacy.clip * (1 + rounding))
    assert not list(cache.rglob("*.key"))
    assert not list(cache.rglob("training*.pt"))


@pytest.mark.parametrize("released", [0, 1])
def test_a_cell_that_fails_shows_what_its_queries_cost(released, tmp_path, in_root, monkeypatch):
    """And no more: a sum that was not released before the failure costs nothing."""
    axes = ("method=dp_wavelet", "suite.grid.row=[private]", "privacy.epsilon=[10]")
    real = GaussianNoise.add_to

    def fails(self, sums, step):
        if step == released:
            raise RuntimeError
        real(self, sums, step)

    monkeypatch.setattr(GaussianNoise, "add_to", fails)
    assert run.main(overrides(tmp_path, tmp_path / "cache", *axes)) == 1
    record = load_folder(tmp_path / "results" / "smoke" / "records")[0]
    assert record.status == "failed"
    assert (record.privacy.epsilon_spent > 0) == (released > 0)
    assert record.privacy.epsilon_spent < 10


def test_records_round_trip(tmp_path, cache, in_root):
    run.main(overrides(tmp_path, cache, "method=dp_wavelet", "suite.grid.row=[non_private]"))
    path = next((tmp_path / "results" / "smoke" / "records").glob("*.json"))
    record = load(path)
    assert record.privacy.epsilon_spent == math.inf
    assert Record.model_validate_json(record.model_dump_json()) == record


def test_running_a_cell_again_keeps_what_the_earlier_run_spent(tmp_path, cache, in_root):
    once = overrides(tmp_path, cache, "method=dp_wavelet", "privacy.epsilon=1")
    once += ["suite.grid.row=[private]", "force=true"]
    for _ in range(3):
        assert run.main(once) == 0
    ledgers = list((tmp_path / "results" / "smoke" / "ledgers").iterdir())
    assert len(ledgers) == 3
    # A header and two steps each.
    assert [len(ledger.read_text().splitlines()) for ledger in ledgers] == [3, 3, 3]


def test_the_peak_of_a_cell_is_of_the_method_and_not_of_its_scoring(
    tmp_path, cache, in_root, monkeypatch
):
    metered = []

    class Meter(PeakMemory):
        def __enter__(self):
            metered.append("begins")
            return self

        def __exit__(self, *_):
            metered.append("ends")
            self.megabytes = 12.5

    real = {"draw": DPWavelet.generate, "score": Scorer.values}

    def noting(name):
        return lambda self, *rest: metered.append(name) or real[name](self, *rest)

    monkeypatch.setattr("benchmarks.hardware.PeakMemory", Meter)
    monkeypatch.setattr(DPWavelet, "generate", noting("draw"))
    monkeypatch.setattr(Scorer, "values", noting("score"))
    args = overrides(tmp_path, cache, "method=dp_wavelet", "suite.grid.row=[pretrained]")
    assert run.main(args) == 0
    assert metered == ["begins", "draw", "ends", "score"]
    record = load_folder(tmp_path / "results" / "smoke" / "records")[0]
    assert record.cost.peak_memory_mb == 12.5
