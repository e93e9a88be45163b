"""Suites of the paper and of real photographs: what is missing is named on a bare machine."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf, open_dict

from benchmarks import gpu_hours, needs, run
from benchmarks.cell import make_plan
from benchmarks.config import CONFIGS, Cell, cells, compose
from benchmarks.gpu_hours import Assumed, Measured
from benchmarks.protocol import protocol_of
from benchmarks.throughput import counts
from benchmarks.throughput.counts import Work
from wavedp.dp import NonPrivatePlan, UserError

PAPER = ("paper_coco", "paper_mmcelebahq")


@pytest.fixture
def bare(tmp_path, monkeypatch, in_root):
    """A machine without published weights: no caches, and a folder of its own to run in."""
    for name in ("HF_HUB_CACHE", "HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.delenv("WAVEDP_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(capsys, tmp_path: Path, *overrides: str) -> str:
    places = [f"results_dir={tmp_path}/results", f"cache_dir={tmp_path}/cache"]
    assert run.main([*overrides, *places, "dry_run=true"]) == 0
    assert not (tmp_path / "results").exists()
    return capsys.readouterr().out


@pytest.mark.parametrize("suite", PAPER)
def test_a_dry_run_of_the_paper_needs_nothing_and_names_everything(
    suite, bare, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("benchmarks.dry_run.make_plan", lambda cell: make_plan(quickly(cell)))
    out = shown(capsys, bare, f"suite={suite}", "hardware=gpu")
    for name, size, licence, command in (
        ("CompVis/ldm-text2im-large-256", "5.7 GB", "Apache-2.0", "hf download CompVis/"),
        ("LlamaGen-XL", "3.1 GB", "MIT", "hf download peizesun/llamagen_t2i t2i_XL"),
        ("google/flan-t5-xl", "11.4 GB", "Apache-2.0", "hf download google/flan-t5-xl"),
        ("x4-upscaler", "3.5 GB", "RAIL++-M", "hf download stabilityai/"),
        ("sit256-prior", "1.4 GB", "made here", "benchmarks.pretrain method=paper/dp_wavelet"),
    ):
        entry = out[out.index(name) :]
        assert entry.index(command) < 200
        assert size in entry[:100]
        assert licence in entry[:100]
    dataset = cells([f"suite={suite}"])[0].config.dataset
    assert f"{dataset.private_records:,} private" in out
    assert "public corpus shards" in out
    assert "Computed, not measured" in out
    assert "inception-2015-12-05" in out
    wide = [line for line in out.splitlines() if len(line.rstrip()) > 80]
    assert all(line.startswith(("      ", "Results")) for line in wide)  # commands, to be copied


def quickly(cell: Cell) -> Cell:
    """The plan of fewer steps, which is calibrated sooner."""
    config = cell.config.copy()
    with open_dict(config):
        config.method.finetuning.steps = 2
    return Cell(config, cell.row, cell.epsilon, cell.seed, cell.choice)


def test_commands_that_are_named_compose(bare):
    """Every command that makes weights is of a method and a stage that it has."""
    for suite in (*PAPER, "real64"):
        for lack in needs.lacking(cells([f"suite={suite}"])):
            if "benchmarks.pretrain" in lack.remedy:
                *_, method, stage = shlex.split(lack.remedy)
                config = compose([method]).method
                assert config.pretraining[stage.removeprefix("stage=")]


def test_a_run_says_how_much_is_missing_before_it_begins(bare):
    with pytest.raises(UserError, match=r"things that this suite needs .*coco2014.*dry_run=true"):
        run.main(["suite=paper_coco", f"results_dir={bare}/results", f"cache_dir={bare}/cache"])
    assert not (bare / "results").exists()


def test_what_a_check_refuses_is_left_to_it(bare):
    places = [f"results_dir={bare}/results", f"cache_dir={bare}/cache"]
    many = ["dataset=mmcelebahq64", "dataset.private_records=many"]
    for wrong, named in (
        (["dataset=parquet"], "public corpus without a private side"),
        (many, r"private_records|dataset\.root"),
    ):
        with pytest.raises(UserError, match=named):
            run.main(["suite=smoke", *wrong, *places])


def test_what_is_there_is_not_missing(bare, monkeypatch):
    grid = cells(["suite=paper_mmcelebahq", f"dataset.root={bare}"])
    before = {lack.what for lack in needs.lacking(grid)}
    (bare / "ldm-text2im").mkdir()
    (bare / "vq_ds16_t2i.pt").touch()
    hub = bare / "none" / "models--google--flan-t5-xl" / "snapshots" / "0123"
    hub.mkdir(parents=True)
    after = {lack.what for lack in needs.lacking(grid)}
    gone = before - after
    assert not after - before
    assert {name.partition(" ")[0] for name in gone} >= {"VQ-16", "google/flan-t5-xl"}
    assert not any("mmcelebahq:" in name for name in before)  # its root is a folder


def test_how_to_get_files_is_no_part_of_a_cell():
    cell = cells(["method=px64/dp_ldm"])[0]
    config = OmegaConf.create(OmegaConf.to_container(cell.config))
    config.method.needs.encoder.licence = "another"
    other = Cell(config, cell.row, cell.epsilon, cell.seed)
    assert cell.identity({}) == other.identity({})
    config.method.finetuning.steps = 7
    assert cell.identity({}) != other.identity({})


def test_needs_that_say_too_little_are_one_sentence():
    cell = cells(["method=px64/dp_ldm"])[0]
    with open_dict(cell.config):
        del cell.config.method.needs.encoder.licence
    with pytest.raises(UserError, match=r"needs\.encoder of method px64/dp_ldm.*licence"):
        needs.lacking([cell])


@pytest.mark.parametrize("suite", [*PAPER, "real64"])
def test_suites_say_what_they_cost_and_have_their_rows(suite):
    text = (CONFIGS / "suite" / f"{suite}.yaml").read_text()
    assert "It costs about" in text.partition("\ngrid:")[0]
    grid = cells([f"suite={suite}"])
    assert all(protocol_of(cell.config.suite).check(cell.config.dataset) is None for cell in grid)
    rows = {(c.row, c.epsilon) for c in grid if c.row == "private"}
    assert rows == {("private", 1.0), ("private", 10.0)}
    side = 64 if suite == "real64" else 256
    assert {cell.config.dataset.resolution for cell in grid} == {side}
    assert {cell.config.privacy.delta for cell in grid} == {1e-5}
    if suite == "real64":
        assert {cell.seed for cell in grid} == {0, 1}
        assert {c.row for c in grid} == {"pretrained", "private", "non_private", "oracle"}


# Hours of a GPU ---------------------------------------------------------------------------------

WORKS = {"paper/dp_lora": Work(parameters=2**20, trained=2**10, record=2e12, image=3e12)}


def lora(*overrides: str) -> Cell:
    return cells(["suite=paper_mmcelebahq", "method=paper/dp_lora", *overrides])[1]


def test_hours_follow_from_counts_by_hand():
    """Two steps of 2048 records of 4 views, three passes each, and 6,000 images, at 30 %."""
    cell = lora("hardware=gpu")
    plan = make_plan(quickly(cell))
    assert plan is not None
    (share,) = gpu_hours.shares([(cell, plan, 6000, 2)], Assumed(WORKS), WORKS)
    records = plan.steps * 2048
    assert share.training == pytest.approx(2 * records * 4 * 3 * 2e12 / (0.3 * 989e12) / 3600)
    assert share.drawing == pytest.approx(2 * 6000 * 3e12 / (0.3 * 67e12) / 3600)
    assert share.memory == pytest.approx(4 * (2**20 + 4 * 2**10) / 2**30)
    assert Assumed(WORKS).record(lora()) == pytest.approx(
        989 / 67 * (Assumed(WORKS).record(cell) or 0)
    )


def test_a_measured_gpu_takes_the_place_of_the_assumption(tmp_path):
    """And a table without a measured row, or of a CPU, does not."""
    head = "work,case,samples_per_s,status\n"
    cpu, gpu = tmp_path / "methods-2-threads-cpu.csv", tmp_path / "methods-nvidia-h100.csv"
    cpu.write_text(head + 'finetune,"dp_lora, 256 px",1,measured\n')
    gpu.write_text(head + 'finetune,"dp_lora, 256 px",,missing\n')
    assert isinstance(gpu_hours.speed(WORKS, tmp_path), Assumed)
    rows = 'finetune,"dp_lora, 256 px",50,measured\nsample,"dp_lora, 256 px",4,measured\n'
    gpu.write_text(head + rows)
    known = gpu_hours.speed(WORKS, tmp_path)
    assert isinstance(known, Measured)
    assert "nvidia-h100" in known.told
    assert (known.record(lora()), known.image(lora())) == (1 / 50, 1 / 4)
    assert known.record(cells(["method=dp_vae"])[0]) is None


def test_networks_of_other_sizes_have_no_hours():
    for changed in ("method.generator.training.steps=100", "method.generator.training.guidance=1"):
        assert not gpu_hours.as_configured(lora(changed))
    for same in ("method.generator.training.batch=1", "method.model=/data/ldm", "seed=3"):
        assert gpu_hours.as_configured(lora(same))


def test_every_method_of_the_paper_is_counted():
    found = counts.read()
    assert found.keys() == {cell.choice for suite in PAPER for cell in cells([f"suite={suite}"])}


@pytest.mark.parametrize(("method", "least"), [("dp_llamagen", 775e6), ("dp_lora", 872.3e6)])
def test_counts_are_those_of_the_published_sizes(method, least):
    """Two operations per weight and token, at least; LlamaGen has 120 + 256 of these."""
    from benchmarks.throughput.work import work_of

    work, kept = work_of(f"paper/{method}"), counts.read()[f"paper/{method}"]
    assert work.record == pytest.approx(kept.record, rel=1e-3)
    assert work.image == pytest.approx(kept.image, rel=1e-3)
    assert work.trained == pytest.approx(kept.trained, rel=0.05)
    assert work.parameters > least
    if method == "dp_llamagen":
        blocks = 36 * (4 * 1280**2 + 3 * 1280 * 3584)
        assert work.record == pytest.approx(2 * blocks * 375, rel=0.1)
    assert torch.get_default_device() == torch.device("cpu")


# The page ---------------------------------------------------------------------------------------

PAGE = (CONFIGS.parent / "benchmarks" / "SCALING.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_page_compose(command):
    words = shlex.split(command)
    module = words[words.index("-m") + 1]
    given = [word for word in words[words.index("-m") + 2 :] if "=" in word]
    own = [w for w in given if not w.startswith(("hydra", "worker=", "stage="))]
    assert (CONFIGS.parent / module.replace(".", "/")).with_suffix(".py").is_file()
    if module in ("benchmarks.run", "benchmarks.sweep"):
        assert cells(own)
    else:
        assert compose(own)
    launchers = [w.partition("=")[2] for w in given if w.startswith("hydra/launcher=")]
    for launcher in launchers:
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
        searched = [w for w in given if w.startswith("hydra")]
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            found = hydra_compose("run", [*own, *searched], return_hydra_config=True)
        assert launcher.partition("_")[0] in found.hydra.launcher._target_


@pytest.mark.parametrize("suite", PAPER)
def test_the_page_has_the_hours_that_are_computed(suite):
    works = counts.read()
    lines = []
    for cell in cells([f"suite={suite}", "hardware=gpu"]):
        finetuning, config = cell.method.finetuning, cell.config
        plan = NonPrivatePlan(finetuning.expected_batch, finetuning.steps)
        protocol = protocol_of(config.suite)
        images = protocol.count(config.suite.samples, config.dataset.evaluation_records)
        lines.append((cell, None if cell.row == "pretrained" else plan, images, 1))
    shares = list(gpu_hours.shares(lines, Assumed(works), works))
    training, drawing = (sum(getattr(s, part) for s in shares) for part in ("training", "drawing"))
    row = f"| `{suite}` | {training:.0f} h | {drawing:.0f} h | {training + drawing:.0f} h |"
    assert row in PAGE
    memory = [share.memory or 0 for share in shares]
    assert f"{min(memory):.0f} to {max(memory):.0f} GiB" in " ".join(PAGE.split())
