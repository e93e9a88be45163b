"""Paths of the user's machine: in no configuration and no sentence of a record."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cell import public_config, reason_of
from benchmarks.config import cells, compose, plain
from benchmarks.paths import VARIABLE, shortened, told, without_paths
from wavedp.dp.errors import UserError

SECRET = "/home/maria/secret"


def test_no_path_of_a_corpus_inside_a_method_is_kept() -> None:
    """Two levels below the data set: what the record used to keep."""
    cell = cells(
        [
            *("suite=quick", f"results_dir={SECRET}/r", f"cache_dir={SECRET}/c"),
            *("method=dp_wavelet", "dataset=coco2014", f"dataset.root={SECRET}/coco"),
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
    assert shortened("/data/ward(3)/p.jpg and (in /a,b/'c'/d.json) and file:///e/f.txt.") == (
        "p.jpg and (in d.json) and f.txt."
    )


PLACES: dict[str, Any] = {
    "dataset": {"root": "/home/Jane Doe/hospital (3)"},
    "method": {
        "public": {"root": "/data/a corpus"},
        "weights": {"prior": "/w x/y z/prior.safetensors"},
    },
    "results_dir": "results",
    "cache_dir": "some cache/of it",
    "seed": 0,
}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/home/Jane Doe/hospital (3)/ward/x.jpg is cut", "x.jpg is cut"),
        ("dataset.root=/home/Jane Doe/hospital (3) is empty", "dataset.root=~ is empty"),
        ("no /data/a corpus/one/b.parquet", "no b.parquet"),
        ("/w x/y z/prior.safetensors does not fit", "prior.safetensors does not fit"),
        ("choose another results folder than results/a/b.json", None),
        ("some cache/of it/photos/x.npy cannot be written", "x.npy cannot be written"),
    ],
)
def test_places_of_the_configuration_go_whole_whatever_is_in_their_names(
    text: str, kept: str | None
) -> None:
    kept = kept or "choose another results folder than b.json"
    assert shortened(text, PLACES) == kept


def test_the_home_and_the_working_directory_go_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the way that a relative place of the configuration takes in a sentence."""
    home, here = tmp_path / "home" / "Jane Doe", tmp_path / "of Jane" / "project"
    here.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    text = f"{home} holds {home}/x y/z.npy, {here}/results/l.jsonl and {tmp_path}/of Janet/p/q.txt"
    found = shortened(text, PLACES)
    assert found.startswith("~ holds x y/z.npy, l.jsonl and ")
    assert "Doe" not in found


def test_a_reason_is_cut_after_its_places_are_gone() -> None:
    """A place that is cut in half would not be known any more."""
    cell = cells(["suite=quick", "cache_dir=/home/Jane Doe/cache"])[0]
    error = UserError("x" * 485 + " /home/Jane Doe/cache/a.npy\ncannot be written")
    assert reason_of(error, cell) == "x" * 485 + " a.npy cannot b"


def test_a_command_tells_no_place():
    """Neither by the name of a setting nor by where its value leads."""
    given = ["method=px64/dp_wavelet", "method.public.photos.root=photos", "seed=3", "force=true"]
    assert told([*given, "+x.weights=../w.pt", "stage"]) == [
        *("method=px64/dp_wavelet", "method.public.photos.root=...", "seed=3", "force=true"),
        *("+x.weights=...", "stage"),
    ]


def test_published_files_are_looked_for_in_the_users_folders_of_weights(tmp_path, monkeypatch):
    """In their order; one that is in none is looked for where the command runs."""
    monkeypatch.delenv(VARIABLE, raising=False)
    published = compose(["method=px64/dp_ldm"]).method.published
    assert set(published.values()) == {"taef2_encoder.safetensors", "taef2_decoder.safetensors"}
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a" / "taef2_decoder.safetensors").touch()
    for folder in ("a", "b"):
        (tmp_path / folder / "taef2_encoder.safetensors").touch()
    monkeypatch.setenv(VARIABLE, f"{tmp_path}/b{os.pathsep}{tmp_path}/a")
    method = compose(["method=px64/dp_ldm"]).method
    assert method.published.encoder == f"{tmp_path}/b/taef2_encoder.safetensors"
    assert method.published.decoder == f"{tmp_path}/a/taef2_decoder.safetensors"
    assert method.generator.autoencoder.encoder == method.published.encoder
