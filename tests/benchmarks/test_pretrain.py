"""Public checkpoints: made stage by stage, with a report, and resumed where they were stopped."""

import json

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.pretrain import main
from benchmarks.weights import state_of
from wavedp.dp import UserError
from wavedp.nn.prior import CodePrior
from wavedp.nn.reconstruction import Reconstruction
from wavedp.wavelet.generator import DPWavelet

STAGES = ("tokenizer", "prior", "upsampler")
SMALL = {
    "tokenizer.codes": 2,
    "tokenizer.codebook_size": 16,
    "tokenizer.width": 16,
    "prior.codes": 2,
    "prior.codebook_size": 16,
    "prior.width": 16,
    "prior.depth": 1,
    "upsampler.width": 8,
    "upsampler.depth": 1,
}


@pytest.fixture
def overrides(tmp_path, cache):
    return [
        *("method=dp_wavelet", f"cache_dir={cache}", "hardware.checkpoint_every=2"),
        "+method.generator.tokenizer_training.first_images=20",
        *(f"method.generator.{name}={value}" for name, value in SMALL.items()),
        *(f"method.weights.{stage}={tmp_path}/{stage}.safetensors" for stage in STAGES),
        *(
            f"method.pretraining.{stage}={{records:40,held_out:12,batch:8,steps:4,ema_decay:0.5}}"
            for stage in STAGES
        ),
    ]


def test_every_stage_is_made_with_a_report_and_kept(overrides, tmp_path, capsys):
    assert main(overrides) == 0
    reports = {s: json.loads((tmp_path / f"{s}.json").read_text())["report"] for s in STAGES}
    assert {"psnr_8px", "psnr_16px", "psnr_32px", "used_detail"} <= reports["tokenizer"].keys()
    assert 0 < reports["tokenizer"]["used_detail"] <= 1
    assert 0 < reports["prior"]["bits_per_code"] < 8
    assert reports["upsampler"]["psnr"] > 10
    before = {s: (tmp_path / f"{s}.safetensors").read_bytes() for s in STAGES}
    capsys.readouterr()
    assert main(overrides) == 0
    assert capsys.readouterr().err.count("exists") == 3
    assert before == {s: (tmp_path / f"{s}.safetensors").read_bytes() for s in STAGES}


def test_a_raster_tokenizer_and_its_prior_are_made_by_the_same_command(tmp_path, cache):
    sizes = ["codes=2", "codebook_size=16", "width=8"]
    assert not main(
        [
            *("method=dp_llamagen", f"cache_dir={cache}"),
            "+method.generator.tokenizer_training.first_images=20",
            *(f"method.generator.tokenizer.{size}" for size in sizes),
            *("method.generator.prior.width=16", "method.generator.prior.depth=1"),
            *(f"method.weights.{s}={tmp_path}/{s}.safetensors" for s in ("tokenizer", "prior")),
            *(
                f"method.pretraining.{stage}={{records:40,held_out:12,batch:8,steps:2,ema_decay:0}}"
                for stage in ("tokenizer", "prior")
            ),
        ]
    )
    reports = [json.loads((tmp_path / f"{s}.json").read_text())["report"] for s in STAGES[:2]]
    assert reports[0].keys() == {"psnr_32px", "used_codebook", "perplexity_codebook"}
    assert 0 < reports[1]["bits_per_code"] < 8


def test_a_stage_in_half_precision_is_half_the_file_and_read_as_float32(overrides, tmp_path):
    """The same training: only what the file keeps of it is rounded, and so is what is reported."""
    files = {half: tmp_path / f"half-{half}.safetensors" for half in (False, True)}
    spent = "{records:40,held_out:12,batch:8,steps:4,ema_decay:0.5,half:%s}"
    for half, file in files.items():
        own = [
            f"method.weights.tokenizer={file}",
            f"++method.pretraining.tokenizer={spent % str(half).lower()}",
        ]
        assert main([*overrides, *own, "stage=tokenizer"]) == 0
    whole, rounded = load_file(files[False]), load_file(files[True])
    assert {tensor.dtype for tensor in rounded.values()} == {torch.float16}
    assert files[True].stat().st_size < 0.6 * files[False].stat().st_size
    for name, tensor in whole.items():
        assert torch.equal(rounded[name], tensor.half()), name
    for name, tensor in state_of({"part": str(files[True])}).items():
        assert tensor.dtype == torch.float32, name
    reports = [json.loads(files[half].with_suffix(".json").read_text())["report"] for half in files]
    assert reports[0]["psnr_32px"] == pytest.approx(reports[1]["psnr_32px"], abs=0.1)


@pytest.mark.parametrize("stage", ["tokenizer", "prior", "upsampler"])
def test_a_stage_that_was_stopped_goes_on_to_the_same_weights(
    stage, overrides, tmp_path, monkeypatch
):
    if stage != "tokenizer":
        main([*overrides, "stage=tokenizer"])
    main([*overrides, f"stage={stage}"])
    path = tmp_path / f"{stage}.safetensors"
    expected = load_file(path)
    path.unlink()
    owner, name = (CodePrior, "forward") if stage == "prior" else (Reconstruction, "loss")
    real, steps = getattr(owner, name), []

    def stop(self, *given, **named):
        steps.append(given)
        if len(steps) == at:
            raise KeyboardInterrupt
        return real(self, *given, **named)

    at = 4
    monkeypatch.setattr(owner, name, stop)
    with pytest.raises(KeyboardInterrupt):
        main([*overrides, f"stage={stage}"])
    assert not path.exists()
    main([*overrides, f"stage={stage}"])
    if stage != "prior":  # whose report passes it, too
        assert len(steps) == 4 + 2  # of four steps, those after the checkpoint
    assert json.loads(path.with_suffix(".json").read_text())["seconds"] is None
    found = load_file(path)
    assert all((found[name] == expected[name]).all() for name in expected)


def test_what_a_stage_needs_is_looked_at_and_nothing_else(overrides, tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.safetensors.* is missing"):
        main([*overrides, "stage=prior"])
    (tmp_path / "prior.safetensors").write_bytes(b"of another layout")
    assert main([*overrides, "stage=tokenizer"]) == 0
    assert main([*overrides, "stage=upsampler"]) == 0


def test_other_codes_are_another_training(overrides, tmp_path, monkeypatch):
    """A prior that was stopped does not go on with the codes of a tokenizer made since."""
    main([*overrides, "stage=tokenizer"])
    monkeypatch.setattr(DPWavelet, "report", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        main([*overrides, "stage=prior"])
    monkeypatch.undo()
    main([*overrides, "stage=tokenizer", "force=true", "seed=1"])
    assert main([*overrides, "stage=prior"]) == 0
    made = json.loads((tmp_path / "prior.json").read_text())
    assert made["seconds"] is not None  # not resumed
    assert made["command"].endswith("stage=prior")


def _interrupt(*given):
    raise KeyboardInterrupt


def test_an_unknown_stage_is_refused(overrides):
    with pytest.raises(UserError, match=r"no stage 'decoder'.*tokenizer, prior, upsampler"):
        main([*overrides, "stage=decoder"])
