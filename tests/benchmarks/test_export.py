"""From a run to a folder that anyone can load: the same samples, the record's numbers, no paths."""

from __future__ import annotations

import hashlib
import json
import math
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file
from torch import nn

from benchmarks import run
from benchmarks.card import card
from benchmarks.console import run_command
from benchmarks.evaluation import make_evaluation
from benchmarks.export import main, public_record
from benchmarks.finetuned import Finetuned
from benchmarks.record import Record, load, load_folder, save
from wavedp.data.toyfaces import ToyFaces
from wavedp.dp import UserError
from wavedp.dp.noise import GaussianNoise
from wavedp.published import WEIGHTS

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    *("suite=smoke", "suite.samples=24", "method=dp_wavelet", "privacy.epsilon=[10]"),
    *("dataset.private_records=64", "dataset.evaluation_records=300"),
    *("method.finetuning.expected_batch=16", "method.finetuning.steps=2"),
]


class Run:
    """A finished run in a place that no published file may name."""

    def __init__(self, place: Path, *more: str) -> None:
        self.cache, self.folder = place / "cache", place / "results" / "smoke"
        self.command = [*TINY, *more, f"results_dir={place}/results", f"cache_dir={self.cache}"]
        assert run.main(self.command) == 0

    def path(self, row: str) -> Path:
        """The record's file."""
        records = load_folder(self.folder / "records")
        (cell,) = [record.cell for record in records if record.row == row]
        return self.folder / "records" / f"{cell}.json"

    def record(self, row: str) -> Record:
        return load(self.path(row))

    def exported(self, row: str, folder: Path, *more: str) -> Path:
        assert main([str(self.path(row)), str(folder), "--cache", str(self.cache), *more]) == 0
        return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    rows = "suite.grid.row=[pretrained,private,non_private]"
    return Run(tmp_path_factory.mktemp("of Jane Doe"), rows)


@pytest.fixture(scope="module")
def folder(made: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The private row, exported."""
    return made.exported("private", tmp_path_factory.mktemp("exported") / "model")


# Kept by the run ----------------------------------------------------------------------------


def test_a_cell_keeps_what_finetuning_changed_for_its_owner(made: Run) -> None:
    record = made.record("private")
    file = made.cache / "finetuned" / f"{record.cell}.safetensors"
    assert record.finetuned == hashlib.sha256(file.read_bytes()).hexdigest()
    names = set(load_file(file))
    assert names
    assert all(name.startswith("prior.") for name in names)
    public = load_file(ROOT / "wavedp" / "weights" / "toy32-prior.safetensors")
    assert names < {f"prior.{name}" for name in public}  # the tables of codes are frozen
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    kept = {path.name for path in file.parent.iterdir()}
    cells = {made.record(row).cell for row in ("private", "non_private")}
    assert kept == {f"{cell}.safetensors" for cell in cells}
    assert made.record("pretrained").finetuned is None


def test_weights_are_kept_whole_and_by_their_digest_or_not_at_all(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    kept = Finetuned(tmp_path, "cell")
    digest = kept.write(network, {})
    assert kept.open(digest) is None  # the record is not saved yet
    kept.keep()
    content = kept.open(digest)
    assert content is not None
    assert load_tensors(content).keys() == network.state_dict().keys()
    nn.init.ones_(network[0].weight)
    other = kept.write(network, {})
    kept.discard()
    kept.discard()  # also where there is nothing
    assert kept.open(digest) == content
    assert kept.open(other) is None
    assert [path.name for path in kept.file.parent.iterdir()] == ["cell.safetensors"]


def test_tied_weights_are_kept_under_each_of_their_names(tmp_path: Path) -> None:
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    kept = Finetuned(tmp_path, "cell")
    digest = kept.write(tied, {})
    kept.keep()
    assert load_tensors(kept.open(digest) or b"").keys() == tied.state_dict().keys()


def test_a_cell_that_fails_keeps_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("benchmarks.samples.save_strip", fails)
    rows = ["suite.grid.row=[private]", f"results_dir={tmp_path}/r", f"cache_dir={tmp_path}/c"]
    assert run.main([*TINY, *rows]) == 1
    assert not list((tmp_path / "c" / "finetuned").iterdir())


def test_nothing_is_kept_where_it_is_not_wanted(tmp_path: Path, made: Run) -> None:
    without = Run(tmp_path, "suite.grid.row=[private]", "keep_weights=false")
    assert not (without.cache / "finetuned").exists()
    record = without.record("private")
    assert record.finetuned is None
    assert record.cell == made.record("private").cell  # it is no part of what a cell is
    with pytest.raises(UserError, match=r"run the cell again \(force=true keep_weights=true\)"):
        without.exported("private", tmp_path / "model")


def test_nothing_un_noised_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where noise is all that a step releases, other records give the very same weights."""
    real = GaussianNoise.add_to

    def noise_alone(self: GaussianNoise, sums: Any, step: int) -> None:
        for total in sums.values():
            total.zero_()
        real(self, sums, step)

    monkeypatch.setattr(GaussianNoise, "add_to", noise_alone)
    seeds = ("privacy.noise_seed=1", "privacy.sampling_seed=2", "suite.grid.row=[private]")
    runs = [
        Run(tmp_path / str(seed), *seeds, f"+dataset.seed={seed}").record("private").finetuned
        for seed in (7, 8)
    ]
    assert runs[0] is not None
    assert runs[0] == runs[1]


# The folder ---------------------------------------------------------------------------------

DRAW = """
import json, sys
import numpy as np, torch
torch.set_num_threads(1)
from wavedp.published import load
generator = load(sys.argv[1])
prompts, seed = json.loads(sys.argv[2])
np.save(sys.argv[3], torch.cat(list(generator.generate(prompts, seed))).numpy())
harness = {"benchmarks", "hydra", "omegaconf", "pydantic", "rich", "pandas"}
print(harness & {name.split(".")[0] for name in sys.modules})
"""


@pytest.mark.parametrize("row", ["private", "non_private"])
def test_a_fresh_process_draws_the_samples_of_the_cell(row: str, made: Run, tmp_path: Path) -> None:
    folder, record = made.exported(row, tmp_path / "model", "--not-a-release"), made.record(row)
    toys = ToyFaces(private_records=64, evaluation_records=300, cache_dir=str(made.cache))
    prompts = make_evaluation(toys, 24).prompts
    asked = json.dumps([prompts, record.seed])
    done = subprocess.run(
        [sys.executable, "-c", DRAW, str(folder), asked, str(tmp_path / "drawn.npy")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip(), done.returncode) == ("set()", 0), done.stderr
    drawn = np.load(tmp_path / "drawn.npy")
    assert np.array_equal(drawn, np.load(made.cache / "samples" / f"{record.cell}.npy"))
    others = np.load(made.cache / "samples" / f"{made.record('pretrained').cell}.npy")
    assert not np.array_equal(drawn, others)


def test_the_folder_holds_what_it_says(folder: Path, made: Run) -> None:
    names = {"README.md", "config.json", "record.json", *WEIGHTS}
    assert {path.name for path in folder.iterdir()} == names
    config = json.loads((folder / "config.json").read_text())
    record = made.record("private")
    for name in WEIGHTS:
        assert config["files"][name] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert config["files"]["finetuned.safetensors"] == record.finetuned
    assert config["public"] == record.provenance.weights
    parts = [set(load_file(folder / name)) for name in WEIGHTS]
    assert not parts[0] & parts[1]
    assert load(folder / "record.json").privacy == record.privacy
    assert [path.name for path in folder.parent.iterdir()] == ["model"]  # nothing half-written


def test_no_file_names_a_place_of_the_user(folder: Path, made: Run) -> None:
    places = ("Jane Doe", str(ROOT), str(Path.home()), str(folder.parent), "cache_dir")
    for path in folder.iterdir():
        content = path.read_bytes()
        assert not [place for place in places if place.encode() in content], path.name


def test_the_numbers_of_the_card_are_those_of_the_record(folder: Path, made: Run) -> None:
    text, record = (folder / "README.md").read_text(), made.record("private")
    facts = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE))
    privacy = record.privacy
    for name, value in {
        "ε, spent": privacy.epsilon_spent,
        "ε, target": privacy.epsilon_target,
        "δ": privacy.delta,
        "records, as declared": privacy.records,
        "sampling probability": privacy.sampling_probability,
        "expected batch": privacy.expected_batch,
        "steps": privacy.steps,
        "clip": privacy.clip,
        "sensitivity, rounding included": privacy.sensitivity,
        "noise multiplier": privacy.noise_multiplier,
    }.items():
        assert float(facts[name]) == value, name
    assert facts["neighbouring relation"] == privacy.relation
    assert facts["privacy unit"] == privacy.unit
    assert facts["accountant"] == privacy.accountant
    assert facts["sampling"] == privacy.sampling
    (query,) = privacy.queries
    counted = f"| {query.sampling_probability} | {query.noise_multiplier} | {query.count} |"
    assert counted in text
    assert f"with ε = {privacy.epsilon_spent} and δ = {privacy.delta} under" in text
    for part, digest in record.provenance.weights.items():
        assert f"| {part} | toy32-{part} | {digest} | Apache-2.0 | toyworld" in text
    for name, score in record.metrics.items():
        assert re.search(rf"\| {name}†? [↓↑] \| {score.value} \| {score.standard_error} \|", text)


def test_the_card_says_what_is_not_covered(folder: Path) -> None:
    text = " ".join((folder / "README.md").read_text().split())
    assert text.startswith("# DP-Wavelet, finetuned on toyfaces, ε = ")
    for words in (
        "Hyper-parameters",
        "Other releases from the same records: their ε compose",
        "read real images of the evaluation split, which no ε covers",
        "Time: how long",
        "a run whose noise comes from given seeds is not a release",
        "Public weights: ε does not cover",
        "from wavedp.published import load",
        "evaluation, not private: covered by no ε",
    ):
        assert words in text
    assert "Not a release" not in text


def test_what_no_epsilon_covers_stays_at_home(folder: Path, made: Run) -> None:
    record = made.record("private")
    assert record.cost.train_seconds is not None
    told = load(folder / "record.json")
    assert told.cost.train_seconds is None
    assert told.cost.train_examples_per_s is None
    assert told.cost.peak_memory_mb is None
    assert "noise_seed" not in told.config["privacy"]
    score = record.metrics["fd_toy"].model_copy(update={"reads_private": True, "reads": "private"})
    seen = record.model_copy(update={"metrics": record.metrics | {"memorisation": score}})
    assert "memorisation" not in public_record(seen).metrics
    assert "memorisation" not in card(public_record(seen), [], {})


# What is no release, and what is refused ----------------------------------------------------


def test_a_non_private_row_takes_a_flag_and_says_so_first(made: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a release: .*--not-a-release"):
        made.exported("non_private", tmp_path / "model")
    assert not (tmp_path / "model").exists()
    made.exported("non_private", tmp_path / "model", "--not-a-release")
    text = (tmp_path / "model" / "README.md").read_text()
    assert text.splitlines()[0].startswith("**Not a release: these weights were finetuned without")
    assert "differentially private with" not in text
    assert "| ε, spent | ∞ |" in text


def test_so_does_reproducible_noise(tmp_path: Path) -> None:
    seeded = Run(tmp_path, "privacy.noise_seed=12345", "suite.grid.row=[private]")
    with pytest.raises(UserError, match="noise of these weights is reproducible"):
        seeded.exported("private", tmp_path / "model")
    folder = seeded.exported("private", tmp_path / "model", "--not-a-release")
    text = (folder / "README.md").read_text()
    assert text.splitlines()[0].startswith("**Not a release: the noise of these weights is repro")
    assert "differentially private with" not in text
    assert not [path for path in folder.iterdir() if b"12345," in path.read_bytes()]


def refusal(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What the command says as it ends with code 2, in one sentence."""
    sys.argv[1:] = map(str, arguments)
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    return " ".join(said.split())


def test_bad_input_is_one_sentence(
    made: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["export"])
    path, target, cache = made.path("private"), tmp_path / "model", ("--cache", made.cache)
    assert "There is no record" in refusal(capfd, tmp_path / "no.json", target)
    assert "public weights alone" in refusal(capfd, made.path("pretrained"), target, *cache)
    assert "name the cache_dir" in refusal(capfd, path, target, "--cache", tmp_path / "none")
    said = refusal(capfd, path, target, *cache, "--weights", "nothing=a.safetensors")
    assert "for no part of this generator: choose one of tokenizer, prior, upsampler" in said
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    assert "is not empty" in refusal(capfd, path, tmp_path / "full", *cache)
    failed = made.record("private").model_copy(update={"status": "failed"})
    assert "failed, so" in refusal(capfd, save(failed, tmp_path / "r"), target, *cache)
    assert not target.exists()


def test_weights_of_another_run_or_other_public_weights_are_refused(
    made: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["export"])
    record, target, cache = made.record("private"), tmp_path / "model", ("--cache", made.cache)
    other = record.model_copy(update={"finetuned": "0" * 64})
    assert "another release" in refusal(capfd, save(other, tmp_path / "r"), target, *cache)
    there = save(record, tmp_path / "r")
    wrong = ROOT / "wavedp" / "weights" / "toy32-raster.safetensors"
    said = refusal(capfd, there, target, *cache, "--weights", f"prior={wrong}")
    assert "are not those of the run" in said
    method = record.config["method"]
    untold = {k: v for k, v in method["weights"].items() if k != "prior"}
    config = record.config | {"method": method | {"weights": untold}}
    there = save(record.model_copy(update={"config": config}), tmp_path / "r")
    assert "give --weights prior=FILE" in refusal(capfd, there, target, *cache)
    right = ROOT / "wavedp" / "weights" / "toy32-prior.safetensors"
    assert (
        main([str(there), str(target), "--cache", str(made.cache), "--weights", f"prior={right}"])
        == 0
    )


def test_an_epsilon_that_does_not_follow_from_the_queries_is_refused(
    made: Run, tmp_path: Path
) -> None:
    record = made.record("private")
    less = record.privacy.model_copy(update={"epsilon_spent": 1.0})
    path = save(record.model_copy(update={"privacy": less}), tmp_path / "r")
    with pytest.raises(UserError, match="it was changed"):
        main([str(path), str(tmp_path / "model"), "--cache", str(made.cache)])


def test_a_folder_that_cannot_be_written_leaves_nothing(
    made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wavedp.published.write", full)
    with pytest.raises(UserError, match="No space left"):
        made.exported("private", tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_epsilon_infinite_is_written_for_people(made: Run) -> None:
    record = made.record("non_private")
    assert record.privacy.epsilon_spent == math.inf
    assert "inf" not in card(record, [], {}).replace("infinit", "")
