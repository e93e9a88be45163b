"""Random weights go the whole way, and are never a result."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from published_sets import faces, photographs
from pydantic import ValidationError
from report_records import record

from benchmarks import run, untrained
from benchmarks.cell import files_of, identity_of, make_generator, make_plan
from benchmarks.compare.source import records_of
from benchmarks.config import Cell, cells
from benchmarks.record import Record, load, load_folder, save
from benchmarks.report import make_report
from wavedp.dp import UserError
from wavedp.nn.llama import published_llama
from wavedp.nn.text.t5 import T5Text
from wavedp.nn.untrained import drawn
from wavedp.nn.untrained import untrained as random_weights

SMOKE = [
    *("suite=smoke", "suite.grid.method=[dp_llamagen,dp_vae]"),
    *("suite.grid.row=[pretrained,private,non_private]", "privacy.epsilon=[10]", "untrained=true"),
    *("dataset.private_records=8", "dataset.evaluation_records=4"),
]


def ran(overrides: list[str], tmp_path: Path) -> dict[str, Record]:
    """The records of a run with random weights, by cell."""
    places = [f"results_dir={tmp_path}/results", f"cache_dir={tmp_path}/cache"]
    code = run.main([*overrides, *places])
    assert not (tmp_path / "results").exists()
    grid = cells([*overrides, *places])
    found = {identity_of(cell) for cell in grid}
    folder = untrained.folder_of(grid[0]) / "records"
    records = {path.stem: load(path) for path in folder.glob("*.json")}
    assert records.keys() == found
    for item in records.values():
        assert item.status == "untrained", item.reason
        assert not item.metrics
        assert item.provenance.weights == {}
        steps = sum(query.count for query in item.privacy.queries)
        assert steps == (0 if item.row == "pretrained" else 2)
    assert code == 0
    return records


def test_every_row_goes_the_whole_way_and_leaves_no_result(tmp_path, in_root, capsys):
    records = ran(SMOKE, tmp_path)
    assert len(records) == 6
    assert not list(tmp_path.rglob("*.png"))
    assert not (tmp_path / "cache" / "samples").exists()
    assert not (tmp_path / "cache" / "finetuned").exists()
    assert "no table takes these records" in " ".join(capsys.readouterr().err.split())


def test_several_ranks_are_refused_before_anything_is_written(tmp_path, in_root, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="without torchrun"):
        run.main([*SMOKE, f"results_dir={tmp_path}/results", f"cache_dir={tmp_path}/cache"])
    assert not list(tmp_path.iterdir())


def test_weights_are_random_and_not_those_that_are_there(in_root):
    cell = next(c for c in cells([*SMOKE, "method=dp_llamagen"]) if c.row == "pretrained")
    trained = cells([*SMOKE[:-3], "method=dp_llamagen", "untrained=false"])[0]
    assert files_of(cell) == {}
    assert files_of(trained) != {}
    assert identity_of(cell) != identity_of(trained)
    ours, theirs = (make_generator(c).state_dict() for c in (cell, trained))
    same = [n for n in ours if ours[n].is_floating_point() and torch.equal(ours[n], theirs[n])]
    assert ours.keys() == theirs.keys()
    assert not [name for name in same if ours[name].std() > 0]  # norms begin with ones
    plan = make_plan(Cell(cell.config, "private", 10.0, 0))
    assert plan is not None
    assert (plan.steps, plan.expected_batch) == (2, 2)


def test_no_table_and_no_comparison_takes_such_a_record(tmp_path):
    save(record("dp_wavelet", "private", 1.0, 0).model_copy(update=NO_RESULT), tmp_path / "records")
    for refused in (
        lambda: load_folder(tmp_path / "records"),
        lambda: make_report(tmp_path),
        lambda: records_of(str(tmp_path)),
    ):
        with pytest.raises(UserError, match=r"random weights made .* it is no result"):
            refused()


NO_RESULT = {"status": "untrained", "metrics": {}, "samples": None, "finetuned": None}


@pytest.mark.parametrize("field", ["metrics", "samples", "finetuned"])
def test_a_record_of_random_weights_has_no_scores(field):
    whole = record("dp_wavelet", "private", 1.0, 0).model_copy(update={"finetuned": "0" * 64})
    fields = whole.model_dump() | NO_RESULT
    assert Record.model_validate(fields).status == "untrained"
    with pytest.raises(ValidationError, match="no scores"):
        Record.model_validate(fields | {field: whole.model_dump()[field] or "a.png"})


def test_sizes_that_are_none_are_one_sentence(in_root):
    for value in ("2", "{t5: 2}", "[t5]"):
        cell = cells([*SMOKE[:2], f"untrained={value}"])[0]
        with pytest.raises(UserError, match="must be true, false, or sizes"):
            make_generator(cell)


def test_a_dry_run_runs_nothing_and_lacks_no_weights(tmp_path, in_root, capsys):
    places = [f"results_dir={tmp_path}/results", f"cache_dir={tmp_path}/cache"]
    asked = ["suite=paper_mmcelebahq", "method=paper/dp_lora", "untrained=true", "dry_run=true"]
    assert run.main([*asked, *places]) == 0
    out = capsys.readouterr().out
    assert "mmcelebahq: 24,000 private" in out
    assert "hf download" not in out
    assert not list(tmp_path.rglob("records"))


def test_random_weights_are_never_scored(tmp_path, in_root):
    cell = cells(SMOKE)[0]
    with pytest.raises(AssertionError, match="never scored"):
        run.run_cell(cell, None, None, tmp_path)  # type: ignore[arg-type]


def test_published_parts_are_drawn_within_and_read_without():
    assert drawn("a", {"x": 1}) is None
    with random_weights({"a": {"x": 2}}):
        assert drawn("a", {"x": 1, "y": 1}) == {"x": 2, "y": 1}
        assert drawn("b", {"x": 1}) == {"x": 1}
        with random_weights():
            assert drawn("a", {"x": 1}) == {"x": 1}
    for read in (lambda: published_llama("nowhere.pt"), lambda: T5Text("/nowhere/t5")):
        with pytest.raises(UserError, match=r"no weights at|not on this machine"):
            read()


# The paper's sizes ------------------------------------------------------------------------------

SIT_QUARTER = [
    "method.generator.tokenizer.encoder_depth=2",
    "method.generator.tokenizer.decoder_depth=4",
]
SIZES = {
    "paper/dp_wavelet": [
        "untrained={t5: {num_layers: 2}}",
        *SIT_QUARTER,
        "method.finetuning.ema_decay=0",
        "+method.generator.upsampler.steps=2",
    ],
    "paper/dp_wavelet_ll32": [
        "untrained={t5: {num_layers: 2}}",
        *SIT_QUARTER,
        "method.finetuning.ema_decay=0",
    ],
    "paper/dp_ldm": [
        "untrained={ldm_bert: {encoder_layers: 12}}",
        "method.generator.training.steps=2",
    ],
    "paper/dp_lora": ["untrained=true", "method.generator.training.steps=2"],
    "paper/dp_llamagen": [
        "untrained={t5: {num_layers: 2}}",
        "method.finetuning.ema_decay=0",
    ],
}
"""What 24 GiB force, where weights, clipped sum, released gradient and AdamW's two states are
float32. Of Flan-T5-XL there are 2 of 24 blocks; of SIT's tokenizer, 1.6 billion parameters, 2 of 8
and 4 of 32. Where DP-LDM trains attention and BERT, there are 12 of 32 blocks of BERT. All else is
as published: AR-SIT and the prior of LL at 32 px, LlamaGen-XL, the U-Nets, the upscaler, widths,
codebooks and tokens.

No average of weights is kept, and solvers take two steps: that changes no network."""

SETS = {"paper_coco": "coco2014", "paper_mmcelebahq": "mmcelebahq"}

SIT = [
    *("encoder_depth=1", "decoder_depth=1", "width=32", "heads=2", "codebook_size=16"),
    *("code_width=4",),
]
TINY_SIT = [
    "untrained={t5: {num_layers: 1, d_model: 16, d_ff: 16, d_kv: 8, num_heads: 2},"
    " upscaler_unet: {block_out_channels: [8, 8, 8, 8], cross_attention_dim: 16,"
    " norm_num_groups: 4, attention_head_dim: 2},"
    " upscaler_text: {hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1,"
    " num_attention_heads: 2},"
    " upscaler_autoencoder: {block_out_channels: [8, 8, 8], norm_num_groups: 4}}",
    *(f"method.generator.tokenizer.{size}" for size in SIT),
    *("method.generator.prior.width=32", "method.generator.prior.depth=1"),
    *("method.generator.prior.heads=2", "method.generator.prior.text_width=16"),
    "method.generator.training.text.slots=16",
]
TINY_LDM = [
    "untrained={ldm_unet: {block_out_channels: [8, 8, 8, 8], cross_attention_dim: 16,"
    " norm_num_groups: 4, attention_head_dim: 2},"
    " ldm_autoencoder: {block_out_channels: [8, 8, 8, 8], norm_num_groups: 4},"
    " ldm_bert: {encoder_layers: 1, d_model: 16, head_dim: 8, encoder_attention_heads: 2,"
    " encoder_ffn_dim: 16}}",
    "method.generator.training.steps=2",
]
TINY = {
    "paper/dp_wavelet": [*TINY_SIT, "+method.generator.upsampler.steps=2"],
    "paper/dp_wavelet_ll32": TINY_SIT,
    "paper/dp_ldm": TINY_LDM,
    "paper/dp_lora": TINY_LDM,
    "paper/dp_llamagen": [
        "untrained={t5: {num_layers: 1, d_model: 16, d_ff: 16, d_kv: 8, num_heads: 2},"
        " vqgan: {width: 8, rows: 8, codebook_size: 16, groups: 4},"
        " llamagen: {width: 32, depth: 1, heads: 2, codebook_size: 16, text_slots: 16,"
        " text_width: 16}}",
        "method.generator.training.text.slots=16",
    ],
}


def paper(suite: str, method: str, root: Path, sizes: list[str]) -> list[str]:
    """Overrides for a method of a suite on eight records in the published layout."""
    coco = suite == "paper_coco"
    place = photographs(root, 2014) if coco else faces(root)
    listed = ["dataset.private.listed=8", "dataset.evaluation.listed=4"]
    return [
        *(f"suite={suite}", f"method={method}", f"dataset.root={place}", "hardware.threads=1"),
        *("dataset.private_records=8", "dataset.evaluation_records=4"),
        *(listed if coco else []),
        *sizes,
    ]


@pytest.mark.parametrize("method", TINY)
def test_the_way_of_the_paper_in_small(method, tmp_path, in_root):
    """The same parts and the same code at 256 px, in networks of a few channels."""
    suite = "paper_coco" if method == "paper/dp_ldm" else "paper_mmcelebahq"
    rows = ["suite.grid.row=[private]", "privacy.epsilon=[10]"]
    records = ran([*paper(suite, method, tmp_path / "set", TINY[method]), *rows], tmp_path)
    assert [(r.dataset, r.resolution) for r in records.values()] == [(SETS[suite], 256)]


@pytest.mark.slow
@pytest.mark.parametrize("method", SIZES)
@pytest.mark.parametrize("suite", SETS)
def test_every_cell_of_the_paper_makes_its_networks_trains_and_draws(
    suite, method, tmp_path, in_root
):
    """All rows of a method: real networks, two steps of DP-SGD, one image of 256 px."""
    records = ran(paper(suite, method, tmp_path / "set", SIZES[method]), tmp_path)
    rows = sorted(record.row for record in records.values())
    assert rows == ["non_private", "pretrained", "private", "private"]
    assert {(r.dataset, r.resolution) for r in records.values()} == {(SETS[suite], 256)}
    gc.collect()
