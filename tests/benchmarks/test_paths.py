"""Paths of the user's machine: in no configuration and no sentence of a record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.cell import public_config
from benchmarks.config import cells, compose, plain
from benchmarks.paths import shortened, without_paths

SECRET = "/home/maria/secret"


def test_no_path_of_a_corpus_inside_a_method_is_kept() -> None:
    """Two levels below the data set: what the record used to keep."""
    cell = cells(
        [
            *("suite=quick", f"results_dir={SECRET}/r", f"cache_dir={SECRET}/c"),
            *("dataset=coco2014", f"dataset.root={SECRET}/coco"),
            *("+dataset@method.public=parquet", f"method.public.root={SECRET}/corpus"),
            *(f"method.weights.prior={SECRET}/prior.safetensors",),
        ]
    )[0]
    assert SECRET in json.dumps(plain(cell.config))
    kept = public_config(cell)
    assert "maria" not in json.dumps(kept)
    assert "cache" not in json.dumps(kept["method"]["public"])
    assert "root" not in kept["dataset"]
    assert kept["method"]["public"]["files"] == "*.parquet"
    assert kept["dataset"]["evaluation"] == {
        "images": "val2014",
        "annotations": "annotations/captions_val2014.json",
        "listed": 40504,
    }


def test_nothing_else_is_lost() -> None:
    config = plain(compose(["suite=quick"]))
    kept = without_paths(config)
    assert config.keys() - kept.keys() == {"results_dir", "cache_dir"}
    assert kept["privacy"] == config["privacy"]
    assert kept["method"]["finetuning"] == config["method"]["finetuning"]


@pytest.mark.parametrize(
    "value", ["/a", "~/a", "../a", "..", r"C:\a", "c:/a", r"\\server\a", "file:///a"]
)
def test_values_that_lead_elsewhere_go_whatever_their_key(value: str) -> None:
    given: dict[str, Any] = {"x": value, "y": [value, "b"], "z": {"deep": [{"w": value, "v": 1}]}}
    assert without_paths(given) == {"y": ["b"], "z": {"deep": [{"v": 1}]}}


@pytest.mark.parametrize("key", ["root", "cache_dir", "public_root", "path", "paths", "log_dir"])
def test_keys_that_name_a_place_go_whatever_their_value(key: str) -> None:
    assert without_paths({key: "data", "rooted": 1, "dirty": 2}) == {"rooted": 1, "dirty": 2}


@pytest.mark.parametrize(
    "value", ["a photo of a {label}", "train*.parquet", "1/2", "a..b", "", "."]
)
def test_other_values_stay(value: str) -> None:
    assert without_paths({"x": value, "y": [value, None, 3]}) == {"x": value, "y": [value, None, 3]}


def test_sentences_tell_the_file_and_not_its_folders() -> None:
    text = "dataset.root=/home/maria/coco is not a folder, '~/x/y.png' neither, nor /home/maria/z:"
    assert shortened(text) == "dataset.root=coco is not a folder, 'y.png' neither, nor z:"
    assert shortened("see https://a.org/b/c and delta < 1/N") == (
        "see https://a.org/b/c and delta < 1/N"
    )
