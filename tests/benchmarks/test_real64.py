"""``suite=real64`` on data that users bring, with no other setting than their own."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from cleanfid.resize import make_resizer
from published_sets import EVALUATION, PRIVATE, faces, picture, save

from benchmarks import doctor, run, untrained
from benchmarks.batches import Batches
from benchmarks.cell import make_plan
from benchmarks.config import cells, compose, make
from benchmarks.console import run_command
from benchmarks.features import inception_768
from benchmarks.protocol import metrics_of, protocol_of
from benchmarks.record import load
from benchmarks.scorer import Scorer
from wavedp.dp.errors import UserError

SPECTRAL = [
    *(f"method.generator.tokenizer.{size}" for size in ("width=32", "heads=2", "encoder_depth=1")),
    *(f"method.generator.tokenizer.{size}" for size in ("decoder_depth=1", "codebook_size=32")),
    *(f"method.generator.prior.{size}" for size in ("width=32", "depth=1", "heads=2")),
]
DIFFUSION = [
    *("method.generator.denoiser.widths=[16,16]", "method.generator.denoiser.heads=2"),
    *("method.generator.denoiser.cross_width=16", "method.generator.training.steps=2"),
]
TINY = {
    "px64/dp_wavelet_quarter": SPECTRAL,
    "px64/dp_wavelet": SPECTRAL,
    "px64/dp_full_finetune": SPECTRAL,
    "px64/dp_llamagen": ["method.generator.prior.width=32", "method.generator.prior.depth=1"],
    "px64/dp_ldm": DIFFUSION,
    "px64/dp_pixel_diffusion": DIFFUSION,
    "px64/private_evolution": [*SPECTRAL, "method.generator.members=16"],
}
"""Networks of a few channels: the same parts, the same code and the same images of 64 px."""


def coco_mini(root: Path) -> Path:
    """122 photographs with their captions in one folder and one file, as the config declares."""
    ids = range(1, 123)
    for number in ids:
        save(picture(number), root / f"val2017/{number:012d}.jpg", quality=95)
    content = {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg"} for i in ids],
        "annotations": [
            {"image_id": i, "caption": f"Photo {i}, take {k}."} for i in ids for k in range(5)
        ],
    }
    (root / "annotations").mkdir()
    (root / "annotations/captions_val2017.json").write_text(json.dumps(content))
    return root


def image_folder(root: Path) -> Path:
    """Images of one's own with a text file beside each."""
    for side, count in (("train", 40), ("test", 16)):
        for number in range(count):
            file = root / side / f"{number}.png"
            save(picture(number + 1000 * len(side)), file)
            file.with_suffix(".txt").write_text(f"Picture {number} of {side}.\n")
    return root


OWN = {
    "coco_mini": (coco_mini, []),
    "image_folder": (
        image_folder,
        ["dataset.private_records=40", "dataset.evaluation_records=16", "privacy.epsilon=[0.5,2]"],
    ),
}
"""N is the user's to declare; the published COCO-mini has its own."""


def command(name: str, tmp_path: Path) -> list[str]:
    make_files, settings = OWN[name]
    root = make_files(tmp_path / name)
    return ["suite=real64", f"dataset={name}", f"dataset.root={root}", *settings]


def test_every_method_of_the_suite_has_a_small_size(in_root):
    assert set(TINY) == set(cells(["suite=real64"])[0].config.suite.grid.method)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("method", TINY)
def test_two_steps_of_every_method_on_data_of_ones_own(method, name, tmp_path, in_root):
    """Under the suite's budgets and under others, with gradients and without."""
    asked = [
        *(*command(name, tmp_path), f"method={method}", *TINY[method], "untrained=true"),
        *("suite.grid.row=[private]", "suite.grid.seed=[0]", "hardware.threads=1"),
        *(f"results_dir={tmp_path}/results", f"cache_dir={tmp_path}/cache"),
    ]
    assert run.main(asked) == 0
    folder = untrained.folder_of(cells(asked)[0]) / "records"
    records = [load(path) for path in folder.glob("*.json")]
    wanted = {0.5, 2.0} if name == "image_folder" else {1.0, 10.0}
    assert {record.privacy.epsilon_target for record in records} == wanted
    for record in records:
        assert (record.status, record.dataset, record.resolution) == ("untrained", name, 64)
        assert sum(query.count for query in record.privacy.queries) == 2
        assert record.privacy.epsilon_spent <= record.privacy.epsilon_target


def test_a_set_smaller_than_the_usual_batch_is_one_batch(in_root):
    """With the plan of a run; 22,000 faces keep the batch that was chosen for the hardware."""
    usual = {
        hardware: compose(["method=px64/dp_wavelet", hardware, "dataset.private_records=22000"])
        for hardware in ("hardware=cpu", "hardware=gpu")
    }
    batches = [config.method.finetuning.expected_batch for config in usual.values()]
    assert 100 < batches[0] < batches[1]
    for name, hardware, batch in (
        ("coco_mini", "hardware=gpu", 100),
        ("mmcelebahq64", "hardware=cpu", batches[0]),
        ("mmcelebahq64", "hardware=auto", batches[0]),
        ("mmcelebahq64", "hardware=gpu", batches[1]),
    ):
        asked = ["suite=real64", f"dataset={name}", hardware, "method=px64/dp_wavelet"]
        cell = next(c for c in cells(asked) if c.row == "non_private")
        plan = make_plan(cell)
        assert plan is not None
        assert plan.expected_batch == batch
        assert cell.config.method.finetuning.expected_batch == batch
    many = ["suite=real64", "dataset.private_records=many", "method=px64/dp_wavelet"]
    assert cells(many)[0].config.method.finetuning.expected_batch == batches[0]


def test_every_method_has_the_same_time_on_a_cpu(in_root):
    """By the measured rates: none is given a faster machine than it had."""
    table = pd.read_csv("results/throughput/methods-1-thread-cpu.csv", index_col=["work", "case"])
    timed = [cell for cell in cells(["suite=real64"]) if "records_per_second" in cell.method]
    assert {cell.choice for cell in timed} == set(TINY) - {"px64/private_evolution"}
    for cell in timed:
        rate = table.loc[("finetune", f"{cell.method.name}, 64 px"), "samples_per_s"]
        finetuning = cell.method.finetuning
        assert finetuning.steps * finetuning.expected_batch / rate == pytest.approx(1500, rel=0.01)
    shorter = ["suite=real64", "suite.finetuning_seconds=15", "method=px64/dp_ldm"]
    assert cells(shorter)[0].method.finetuning.steps == 2  # 2.5 of 250 at 41.1 records per second


@pytest.mark.parametrize("seconds", ["ten", "0", "-5", "null", ".inf"])
def test_no_time_is_no_budget(seconds, in_root):
    with pytest.raises(UserError, match=r"finetuning_seconds=\S+ must be a positive number"):
        cells(["suite=real64", f"suite.finetuning_seconds={seconds}"])


@pytest.mark.parametrize("name", OWN)
def test_the_suites_metrics_fit_data_of_ones_own(
    name, tmp_path, in_root, random_weights, monkeypatch
):
    """All of them, or a reason; 107 px are enough for a random network."""
    small = make_resizer("PIL", False, "bicubic", (107, 107))
    monkeypatch.setattr(inception_768, "build_resizer", lambda mode: small)
    config = cells([*command(name, tmp_path), f"cache_dir={tmp_path}/cache"])[0].config
    dataset, protocol = make(config.dataset), protocol_of(config.suite)
    names = metrics_of(config.suite, protocol)
    scorer = Scorer.make(dataset, names, config.suite.samples, protocol)
    held = scorer.evaluation.held
    drawn = Batches(scorer.evaluation.records.images, held)
    values = scorer.values(drawn, scorer.evaluation.prompts, "text")
    told = {*values, *scorer.missing("text")}
    assert {metric for metric in names if not any(t.startswith(metric) for t in told)} == set()
    assert "fid_768" in values
    assert len(scorer.evaluation.prompts) == 1000


# A copy of the faces that is not whole ----------------------------------------------------------


def no_folder(root: Path) -> None:
    shutil.rmtree(root)


def no_images(root: Path) -> None:
    shutil.rmtree(root / "image")


def no_captions(root: Path) -> None:
    shutil.rmtree(root / "text")


def no_split(root: Path) -> None:
    (root / "test/filenames.pickle").unlink()


def fewer_images(root: Path) -> None:
    for number in (3, 7):
        (root / f"image/images/{number}.jpg").unlink()


def fewer_captions(root: Path) -> None:
    (root / f"text/celeba-caption/{EVALUATION[1]}.txt").unlink()


def shorter_split(root: Path) -> None:
    shutil.copy(root / "test/filenames.pickle", root / "train/filenames.pickle")


def swapped_splits(root: Path) -> None:
    train, test = (root / side / "filenames.pickle" for side in ("train", "test"))
    train.rename(root / "other")
    test.rename(train)
    (root / "other").rename(test)


DAMAGES: dict[Callable[[Path], None], tuple[str, str]] = {
    no_folder: ("is not a folder", "give the one that holds image/ and text/"),
    no_images: ("has neither image/images nor", "set dataset.root to the folder that holds"),
    no_captions: ("8 of 8 private images", "complete the captions"),
    no_split: ("test/filenames.pickle cannot be read", "complete the folder"),
    fewer_images: ("2 of 8 private images are missing", "copy it again"),
    fewer_captions: ("1 of 4 evaluation images", "complete the captions"),
    shorter_split: ("filenames.pickle lists 4 records", "complete the folder or correct"),
    swapped_splits: ("train/filenames.pickle lists 4 ids", "look swapped, as in some copies; exch"),
}
"""By damage: the thing that its sentence names, and the remedy."""


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_copy_that_is_not_whole_is_told_before_any_training(
    damage, tmp_path, in_root, monkeypatch, capfd
):
    """By a run in one sentence, and by the doctor, who looks for more, in the same words."""
    root = faces(tmp_path / "faces")
    damage(root)
    asked = [
        *("suite=real64", f"dataset.root={root}", "method=px64/dp_vae"),
        *(f"dataset.private_records={len(PRIVATE)}", f"cache_dir={tmp_path}/cache"),
        *(f"dataset.evaluation_records={len(EVALUATION)}", f"results_dir={tmp_path}/results"),
    ]
    told = []
    for main, code in ((run.main, 2), (doctor.main, 2 if damage is no_folder else 1)):
        monkeypatch.setattr("sys.argv", ["x", *asked])
        with pytest.raises(SystemExit) as ended:
            run_command(main)
        assert ended.value.code == code
        shown = capfd.readouterr()
        told.append(" ".join((shown.out + shown.err).split()))
    for said in told:
        for words in DAMAGES[damage]:
            assert words.replace(" ", "") in said.replace(" ", "")  # lines are broken anywhere
        assert "Traceback" not in said
    assert told[0].count("error:") == 1
    assert not list((tmp_path / "results").rglob("*.json*"))


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [("mmcelebahq64", 22000, 2000), ("mmcelebahq64", 24000, 6000), ("mmcelebahq", 24000, 6000)],
)
def test_swapped_split_files_of_the_published_sizes(name, train, test, tmp_path):
    """Under the numbers that the configs declare; the whole split is read at 64 px, too."""
    settings = [f"dataset={name}", f"dataset.root={tmp_path}", f"cache_dir={tmp_path}/cache"]
    dataset = make(compose(settings).dataset)
    for sizes, said in (((train, test), "has neither"), ((test, train), "look swapped")):
        for side, count in zip(("train", "test"), sizes, strict=True):
            (tmp_path / side).mkdir(exist_ok=True)
            ids = [str(number) for number in range(count)]
            (tmp_path / side / "filenames.pickle").write_bytes(pickle.dumps(ids))
        with pytest.raises(UserError, match=said):
            dataset.survey()
