"""The registry of weights: where files are found, how they are fetched, what is said of them."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import urllib.request
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ValidationError

from benchmarks import registry, weights
from benchmarks.config import choices, compose
from benchmarks.digest import sha256
from benchmarks.features.inception import Inception
from benchmarks.fetch import fetch, fetch_all
from benchmarks.pin import pin
from benchmarks.registry import (
    MissingWeights,
    Unpinned,
    Weights,
    entries,
    entry,
    find,
    locate,
    overlap,
)
from wavedp.dp.errors import UserError

CONTENT = b"some weights " * 1000


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache of this machine is looked into."""
    monkeypatch.setenv("WAVEDP_WEIGHTS", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def some(tmp_path: Path, **changes: Any) -> Weights:
    fields: dict[str, Any] = {
        "name": "some",
        "file": "some.bin",
        "source": "a test",
        "licence": "none",
        "megabytes": 0.013,
        "trained_on": "nothing",
    }
    return Weights(**(fields | changes))


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_every_entry_is_complete_and_every_own_checkpoint_is_an_entry() -> None:
    for name, item in entries().items():
        assert item.name == name
        assert item.licence
        assert item.trained_on
        assert item.address or item.made_here or "WAVEDP_WEIGHTS" in item.remedy
    own = {path.stem for path in registry.OWN.glob("*.safetensors")}
    assert own <= {name for name, item in entries().items() if item.made_here}
    # What the embedded methods load is here; what needs photographs is made from the user's own.
    for method in choices("method"):
        assert set(compose([f"method={method}"]).method.weights.values()) <= own


def test_digests_of_own_checkpoints_come_from_the_record_of_their_making() -> None:
    made = json.loads((registry.OWN / "toy32-prior.json").read_text())
    assert entry("toy32-prior").digest == made["sha256"] == sha256(find("toy32-prior"))


def test_files_are_found_in_the_documented_order(tmp_path: Path) -> None:
    item = some(tmp_path, hub="a/b", hub_file="weights.bin")
    assert locate(item) is None
    torch_hub = put(tmp_path / "torch" / "hub" / "checkpoints" / "some.bin")
    assert locate(item) == torch_hub
    hub = put(tmp_path / "hub" / "models--a--b" / "snapshots" / "0123" / "weights.bin")
    assert locate(item) == hub
    own = put(tmp_path / "own" / "some.bin")
    assert locate(item) == own


def test_several_folders_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "second" / "some.bin")
    monkeypatch.setenv("WAVEDP_WEIGHTS", f"{tmp_path / 'first'}:{tmp_path / 'second'}")
    assert locate(some(tmp_path)) == path


def test_missing_weights_are_named_with_the_remedy() -> None:
    with pytest.raises(MissingWeights) as caught:
        find("inception-2015-12-05")
    assert str(caught.value) == (
        "weights inception-2015-12-05 missing, get them by "
        "`python -m benchmarks.weights inception-2015-12-05` where there is a network"
    )
    with pytest.raises(MissingWeights, match="folder that WAVEDP_WEIGHTS names"):
        find("inception-fid-768")
    with pytest.raises(UserError, match="choose one of alexnet-owt"):
        find("inception")


def test_another_file_of_the_same_name_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "own" / entry("alexnet-owt").file)
    with pytest.raises(UserError, match="is not the file that the registry calls alexnet-owt"):
        find("alexnet-owt")


def test_a_damaged_entry_is_refused(tmp_path: Path) -> None:
    for text in ("file: x\n", "- a\n", "file: [\n", "colour: red\n"):
        path = put(tmp_path / "bad.yaml", text.encode())
        with pytest.raises(UserError, match="not an entry of the weights registry"):
            registry._read(path)


def test_fetching_from_an_address_puts_the_whole_file_in_place(tmp_path: Path) -> None:
    source = put(tmp_path / "server" / "some.bin")
    item = some(tmp_path, url=source.as_uri(), sha256=sha256(source))
    path = fetch(item, urllib.request.urlopen)
    assert path == tmp_path / "own" / "some.bin"
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["some.bin"]


def test_the_hub_gives_an_address() -> None:
    assert entry("clip-vit-b-32-openai").address == (
        "https://huggingface.co/timm/vit_base_patch32_clip_224.openai/resolve/main/"
        "open_clip_model.safetensors"
    )


def test_a_wrong_file_is_discarded(tmp_path: Path) -> None:
    item = some(tmp_path, url="https://example.org/some.bin", sha256="0" * 16)
    with pytest.raises(UserError, match="was discarded"):
        fetch(item, lambda _: io.BytesIO(CONTENT))
    assert list((tmp_path / "own").iterdir()) == []


def test_no_network_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    def dead(_: str) -> Any:
        raise urllib.error.URLError("no route")

    item = some(tmp_path, url="https://example.org/some.bin")
    with pytest.raises(UserError, match=r"cannot be reached .* put it into") as caught:
        fetch(item, dead)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "own").iterdir()) == []
    with pytest.raises(UserError, match="cannot be fetched"):
        fetch(some(tmp_path))


def test_a_silent_server_is_one_sentence_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts the connection and never answers."""
    monkeypatch.setattr("benchmarks.fetch.TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        item = some(tmp_path, url=f"http://127.0.0.1:{server.getsockname()[1]}/some.bin")
        with pytest.raises(UserError, match=r"cannot be reached \(.*timed out.*put it into"):
            fetch(item)
    assert list((tmp_path / "own").iterdir()) == []


def test_a_connection_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    """Python takes its end for that of the file; the server said how long the file is."""

    class Broken(io.BytesIO):
        headers: ClassVar[dict[str, str]] = {"Content-Length": str(len(CONTENT) + 1)}

    item = some(tmp_path, url="https://example.org/some.bin")
    with pytest.raises(UserError, match=r"13000 of 13001 bytes came"):
        fetch(item, lambda _: Broken(CONTENT))
    assert list((tmp_path / "own").iterdir()) == []


def register(monkeypatch: pytest.MonkeyPatch, *items: Weights) -> None:
    found = {item.name: item for item in items}
    monkeypatch.setattr(registry, "entries", lambda: found)
    monkeypatch.setattr("benchmarks.fetch.entries", lambda: found)


def test_a_file_without_a_published_digest_is_pinned_when_it_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = some(tmp_path, url="https://example.org/some.bin")
    register(monkeypatch, item)
    path = fetch(item, lambda _: io.BytesIO(CONTENT))
    line = (tmp_path / "own" / "some.bin.sha256").read_text()
    assert line == f"{sha256(path)}  some.bin\n"
    assert find("some") == path
    subprocess.run(["sha256sum", "--check", "some.bin.sha256"], cwd=path.parent, check=True)
    path.write_bytes(CONTENT + b"!")
    with pytest.raises(UserError, match=r"is not the file .* remove it and some.bin.sha256"):
        find("some")


def test_a_file_that_no_digest_knows_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = some(tmp_path, url="https://example.org/some.bin")
    register(monkeypatch, item)
    path = put(tmp_path / "own" / "some.bin")
    with pytest.raises(Unpinned, match=r"pin it by `python -m benchmarks.weights some`") as caught:
        find("some")
    assert str(tmp_path) not in str(caught.value)  # it becomes a reason in records
    put(path.with_name("some.bin.sha256"), b"torn")
    with pytest.raises(Unpinned):
        find("some")
    assert fetch_all() == 0  # nobody has said that it is the right one
    with pytest.raises(Unpinned):
        find("some")
    assert fetch_all(["some"], lambda _: pytest.fail("it is here")) == 0
    assert find("some") == path


def test_a_pin_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    put(tmp_path / "some.bin.sha256" / "a folder in its place")
    file = put(tmp_path / "some.bin")
    with pytest.raises(UserError, match="that you can write to"):
        pin(file)


def test_a_program_needs_its_whole_digest(tmp_path: Path) -> None:
    for digest in (None, "f58cb9b6"):
        with pytest.raises(ValidationError, match="a program needs its whole SHA-256"):
            some(tmp_path, program=True, sha256=digest)
    assert some(tmp_path, program=True, sha256="0" * 64).digest == "0" * 64


def test_the_inception_of_fid_is_the_published_program() -> None:
    """The digest that k-diffusion and others pin for NVIDIA's address."""
    item = entry("inception-2015-12-05")
    assert item.program
    assert item.digest == "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
    assert item.file == "inception-2015-12-05.pt"
    assert all(e.program for e in entries().values() if e.file.endswith(".pt"))


def test_a_program_with_another_digest_is_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    path = put(tmp_path / "own" / "inception-2015-12-05.pt")
    torch.jit.script(Other()).save(path)
    put(path.with_name(f"{path.name}.sha256"), f"{sha256(path)}  {path.name}\n".encode())
    monkeypatch.setattr(torch.jit, "load", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(UserError, match=r"is not the file .* begin with f58cb9b6ec323ed6"):
        Inception().load(torch.device("cpu"))


def test_one_that_cannot_be_fetched_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = some(tmp_path, name="dead", file="dead.bin", url=(tmp_path / "no").as_uri())
    source = put(tmp_path / "server" / "some.bin")
    good = some(tmp_path, url=source.as_uri())
    monkeypatch.setattr("benchmarks.fetch.entries", lambda: {"dead": dead, "some": good})
    assert fetch_all() == 1
    assert locate(good) is not None
    assert locate(dead) is None


def test_the_command_lists_and_refuses_unknown_names(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert weights.main(["list"]) == 0
    text = capfd.readouterr().err
    for words in ("inception-2015-12-05: missing, 95.6 MB", "toy32-prior: here", "MIT", "unknown"):
        assert words in text
    with pytest.raises(UserError, match="Unknown weights 'inceptoin'"):
        weights.main(["inceptoin"])


def test_overlap_is_the_least_sure_of_all_parts() -> None:
    toys = {"tokenizer": "toy32-tokenizer", "prior": "toy32-prior"}
    assert overlap(toys, "toyfaces") == "none"
    assert overlap(toys, "coco") == "none"  # drawn pictures and photographs share no image
    assert overlap({**toys, "own": "mine.safetensors"}, "toyfaces") == "unknown"
    assert overlap({"x": "inception-2015-12-05"}, "coco") == "unknown"
    assert overlap({"x": "inception-2015-12-05"}, "toyfaces") == "none"
    assert overlap({}, "coco") == "none"


def test_checked_weights_are_between_the_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = some(tmp_path, overlap={"coco": "checked", "default": "none"})
    monkeypatch.setattr(registry, "entries", lambda: {"some": item})
    assert overlap({"a": "some"}, "coco") == "checked"
    assert overlap({"a": "some"}, "faces") == "none"
