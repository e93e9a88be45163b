"""Protocols: prompts, reference and what they ask of a data set."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from benchmarks.config import cells, choices, compose, load_choice
from benchmarks.evaluation import make_evaluation
from benchmarks.protocol import Protocol, load_protocol, metrics_of, protocol_of
from wavedp.data.schema import Records
from wavedp.data.toyfaces import ToyFaces
from wavedp.dp.errors import UserError

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
    assert protocol.requires == {"evaluation_records": 40_504, "resolution": 256}
    assert load_choice("metric", "fid").mode == "clean"
    assert load_choice("metric", "clip_score").template == "A photo depicts {}"
    protocol.check({"name": "c", "evaluation_records": 40_504, "resolution": 256})
    with pytest.raises(UserError, match=r"needs dataset\.resolution=256, and c has 64"):
        protocol.check({"name": "c", "evaluation_records": 40_504, "resolution": 64})


def test_prompts_from_private_captions_are_refused() -> None:
    with pytest.raises(UserError, match="captions of private records are private"):
        Protocol(name="p", prompts_from="private").check({})


def test_random_prompts_are_distinct_and_belong_to_their_images() -> None:
    found = make_evaluation(Captioned(), 7, ALL_AT_RANDOM)  # type: ignore[arg-type]
    assert len(found.prompts) == len(set(found.prompts)) == 30
    assert len(found.reference) == 10
    for prompt, row in zip(found.prompts, found.rows, strict=True):
        assert prompt in found.held_out.captions[row]
        assert found.held_out.images[row, 0, 0, 0] == int(prompt.split("-")[0])
    first = len(found.held_out)
    assert found.rows[:first] == tuple(range(first))
    again = make_evaluation(Captioned(), 7, ALL_AT_RANDOM)  # type: ignore[arg-type]
    assert again.prompts == found.prompts
    other = ALL_AT_RANDOM.model_copy(update={"seed": 1})
    assert make_evaluation(Captioned(), 7, other).prompts != found.prompts  # type: ignore[arg-type]


def test_more_prompts_than_captions_are_refused() -> None:
    greedy = ALL_AT_RANDOM.model_copy(update={"prompts": 41})
    with pytest.raises(UserError, match="has 40 captions and the protocol draws 41"):
        make_evaluation(Captioned(), 7, greedy)  # type: ignore[arg-type]


def test_one_prompt_per_test_image() -> None:
    found = make_evaluation(Captioned(), 7, load_protocol("mmceleba"))  # type: ignore[arg-type]
    assert found.prompts == tuple(f"{i}-0" for i in range(10))
    assert len(found.reference) == len(found.held_out) == 10
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
    assert (len(found.held_out), len(found.reference)) == (15, 15)


def test_suites_name_their_protocol_and_metrics() -> None:
    for suite in choices("suite"):
        config = compose([f"suite={suite}"]).suite
        protocol = protocol_of(config)
        assert metrics_of(config, protocol)
    with pytest.raises(UserError, match=r"Unknown protocol 'coco3k'.*coco30k"):
        protocol_of(compose(["suite.protocol=coco3k"]).suite)
    bare = compose(["suite.metrics=[]"]).suite
    with pytest.raises(UserError, match=r"suite\.metrics"):
        metrics_of(bare, protocol_of(bare))
    assert "fid" in metrics_of(bare, load_protocol("coco30k"))


def test_another_protocol_is_another_cell_and_the_usual_one_is_not() -> None:
    def identity(*overrides: str) -> str:
        return cells(["suite=quick", *overrides])[0].identity({"prior": "ab"})

    assert identity("suite.protocol=mmceleba") != identity()
    assert identity("~suite.protocol") == identity()
