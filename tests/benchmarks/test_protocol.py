"""Protocols: prompts, reference and what they ask of a data set."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import run
from benchmarks.config import cells, choices, compose, load_choice, make
from benchmarks.evaluation import make_evaluation
from benchmarks.protocol import Protocol, load_protocol, metrics_of, protocol_of
from benchmarks.record import load_folder
from wavedp.data.schema import Records
from wavedp.data.toyfaces import ToyFaces
from wavedp.dp.errors import UserError

KINDS, BANDS = ("energy", "fd"), ("ll", "d3", "d2", "d1")
ALL_AT_RANDOM = Protocol(name="a", prompts=30, draw="at_random", reference="all")


class Captioned:
    """A data set with ten evaluation records of four captions."""

    name, version, resolution, private_records = "captioned", "1", 4, 5

    def evaluation(self) -> Records:
        images = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones(
            (1, 3, 4, 4), np.uint8
        )
        return Records(
            images, [tuple(f"{i}-{c}" for c in range(4)) for i in range(10)], "captioned"
        )


def test_every_protocol_names_itself_and_known_metrics() -> None:
    assert set(choices("protocol")) == {"coco30k", "mmceleba", "quick"}
    for name in choices("protocol"):
        protocol = load_protocol(name)
        assert protocol.name == name
        assert protocol.prompts_from == "evaluation"
        for metric in protocol.metrics:
            load_choice("metric", metric)


def test_the_coco_protocol_is_the_published_one() -> None:
    """30,000 prompts of val2014, one image each, against all 40,504 at 256 px by clean-fid."""
    protocol = load_protocol("coco30k")
    assert (protocol.prompts, protocol.draw, protocol.reference) == (30_000, "at_random", "all")
    needs = {"name": "coco2014", "evaluation_records": 40_504, "resolution": 256}
    assert protocol.requires == needs
    assert load_choice("metric", "fid").mode == "clean"
    assert load_choice("metric", "clip_score").template == "A photo depicts {}"
    protocol.check(needs)
    with pytest.raises(UserError, match=r"needs dataset\.resolution=256, and coco2014 has 64"):
        protocol.check(needs | {"resolution": 64})
    with pytest.raises(UserError, match=r"needs dataset\.name=coco2014, and coco2017 has coco2017"):
        protocol.check(needs | {"name": "coco2017"})


def test_prompts_from_private_captions_are_refused() -> None:
    with pytest.raises(UserError, match="captions of private records are private"):
        Protocol(name="p", prompts_from="private").check({})


def test_random_prompts_are_distinct_and_belong_to_their_images() -> None:
    found = make_evaluation(Captioned(), 7, ALL_AT_RANDOM)  # type: ignore[arg-type]
    assert len(found.prompts) == len(set(found.prompts)) == 30
    assert len(found.reference) == 10
    for prompt, row in zip(found.prompts, found.rows, strict=True):
        assert prompt in found.records.captions[row]
        assert found.records.images[row, 0, 0, 0] == int(prompt.split("-")[0])
    assert found.rows[: len(found.held)] == tuple(found.held)
    real = found.real(slice(0, 30))
    assert real[:, 0, 0, 0].tolist() == list(found.rows)
    again = make_evaluation(Captioned(), 7, ALL_AT_RANDOM)  # type: ignore[arg-type]
    assert again.prompts == found.prompts
    other = ALL_AT_RANDOM.model_copy(update={"seed": 1})
    assert make_evaluation(Captioned(), 7, other).prompts != found.prompts  # type: ignore[arg-type]


@pytest.mark.parametrize("draw", ["in_order", "at_random"])
@pytest.mark.parametrize("prompts", [1, 3, 6])
@pytest.mark.parametrize("seed", range(5))
def test_no_held_out_image_is_in_the_rest(draw: str, prompts: int, seed: int) -> None:
    """Ten images of one grey each, told apart by it: those of the prompts and the others."""
    protocol = Protocol(name="r", prompts=prompts, draw=draw, seed=seed)  # type: ignore[arg-type]
    found = make_evaluation(Captioned(), 7, protocol)  # type: ignore[arg-type]
    reference = set(found.reference.images[:, 0, 0, 0].tolist())
    held = set(torch.cat(list(found.held_images))[:, 0, 0, 0].tolist())
    assert held == {int(prompt.split("-")[0]) for prompt in found.prompts}
    assert not held & reference
    assert reference >= set(range(5, 10))


def test_neither_side_is_copied() -> None:
    """Images may be larger than memory: both sides are views of what is mapped."""
    dataset = Captioned()
    records = dataset.evaluation()
    dataset.evaluation = lambda: records  # type: ignore[method-assign]
    for protocol in (ALL_AT_RANDOM, Protocol(name="r", prompts=4, draw="at_random")):
        found = make_evaluation(dataset, 7, protocol)  # type: ignore[arg-type]
        assert np.shares_memory(found.reference.images, records.images)
        assert np.shares_memory(found.records.images, records.images)


@pytest.mark.parametrize("samples", [0, -3, "many", 2.5])
def test_samples_that_are_no_number_are_one_sentence(samples: Any) -> None:
    with pytest.raises(UserError, match=r"suite\.samples=.* must be a whole number, at least 1"):
        make_evaluation(Captioned(), samples)  # type: ignore[arg-type]


def test_more_prompts_than_captions_are_refused() -> None:
    greedy = ALL_AT_RANDOM.model_copy(update={"prompts": 41})
    with pytest.raises(UserError, match="has 40 captions and the protocol draws 41"):
        make_evaluation(Captioned(), 7, greedy)  # type: ignore[arg-type]


def test_one_prompt_per_test_image() -> None:
    found = make_evaluation(Captioned(), 7, load_protocol("mmceleba"))  # type: ignore[arg-type]
    assert found.prompts == tuple(f"{i}-0" for i in range(10))
    assert len(found.reference) == len(found.held) == 10
    assert found.overlapping


def test_the_hash_of_prompts_worked_by_hand() -> None:
    protocol = Protocol(name="two", prompts=2, reference="rest")
    found = make_evaluation(Captioned(), 7, protocol)  # type: ignore[arg-type]
    assert found.prompts == ("0-0", "1-0")
    assert found.prompts_sha256 == hashlib.sha256(b"0-0\n1-0\n").hexdigest()
    assert not found.overlapping


def test_prompts_of_the_embedded_suites_are_those_of_the_committed_records(cache: str) -> None:
    """As many as asked for, from the first half; the reference is what gives no prompt."""
    dataset = ToyFaces(private_records=8, evaluation_records=30, cache_dir=cache)
    found = make_evaluation(dataset, 20)
    captions = dataset.evaluation().captions
    expected = tuple(captions[i % 15][(i // 15) % len(captions[i % 15])] for i in range(20))
    assert found.prompts == expected
    assert (len(found.held), len(found.reference)) == (15, 15)


def test_suites_name_their_protocol_and_metrics() -> None:
    usual = ("fd_toy", "clip_toy")
    others = {
        "paper_coco": ("fid", "kid"),
        "paper_mmcelebahq": ("fid", "kid"),
        "real64": ("fid_768", "kid_768"),
        "tuning64": ("fid_768",),
    }
    for suite in choices("suite"):
        config = compose([f"suite={suite}"]).suite
        names = metrics_of(config, protocol_of(config))
        assert tuple(names[:2]) == others.get(suite, usual), suite
    with pytest.raises(UserError, match=r"Unknown protocol 'coco3k'.*coco30k"):
        protocol_of(compose(["suite.protocol=coco3k"]).suite)
    bare = compose(["suite.metrics=[]"]).suite
    with pytest.raises(UserError, match=r"suite\.metrics"):
        metrics_of(bare, protocol_of(bare))


def test_metrics_are_those_of_the_protocol_unless_somebody_names_others() -> None:
    """A suite has none of its own that could hide those of a protocol on the command line.

    But that of real faces, which asks for a metric that reads private records: no protocol may;
    and the search for it, which is judged by one metric.
    """
    for suite in set(choices("suite")) - {"real64", "tuning64"}:
        coco = compose([f"suite={suite}", "suite.protocol=coco30k"]).suite
        assert metrics_of(coco, protocol_of(coco))[:2] == ["fid", "kid"]
        named = compose([f"suite={suite}", "suite.protocol=coco30k", "suite.metrics=[kid]"]).suite
        assert metrics_of(named, protocol_of(named)) == ["kid"]


def test_no_protocol_reads_private_records_unasked() -> None:
    for name in choices("protocol"):
        for metric in load_protocol(name).metrics:
            assert make(load_choice("metric", metric)).reads != "private"
    assert make(load_choice("metric", "memorisation")).reads == "private"


def test_another_protocol_is_another_cell_and_the_usual_one_is_not() -> None:
    def identity(*overrides: str) -> str:
        return cells(["suite=quick", *overrides])[0].identity({"prior": "ab"})

    assert identity("suite.protocol=mmceleba") != identity()
    assert identity("~suite.protocol") == identity()


def test_a_run_against_all_evaluation_records(
    tmp_path: Path, cache: str, in_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way under a published kind of protocol, on twelve images, without its weights."""
    for variable in ("WAVEDP_WEIGHTS", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "nothing"))
    monkeypatch.setattr("benchmarks.features._opened", {})
    command = [
        *("suite=smoke", "suite.protocol=mmceleba", "method=dp_wavelet"),
        *("dataset.private_records=64", "dataset.evaluation_records=12"),
        *("suite.grid.row=[pretrained,oracle]", f"results_dir={tmp_path}", f"cache_dir={cache}"),
    ]
    assert run.main(command) == 0
    for record in load_folder(tmp_path / "smoke" / "records"):
        assert record.evaluated is not None
        assert (record.evaluated.reference, record.evaluated.prompts) == ("all", 12)
        assert record.metrics.keys() == {f"spectral_{k}_{b}" for k in KINDS for b in BANDS}
        assert {"fid", "kid", "clip_score", "lpips", "fd_clip"} <= record.not_computed.keys()
        for score in record.metrics.values():
            assert (score.n_samples, score.n_reference) == (12, 12)
            assert score.floor is None  # real images would be compared with themselves
    assert run.main([*command, "suite.metrics=[clip_toy]"]) == 0
    for record in load_folder(tmp_path / "smoke" / "records"):
        assert record.metrics["clip_toy"].floor is not None  # it reads no reference
        assert record.rescored[0].metrics == ["clip_toy"]
