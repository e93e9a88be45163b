"""Published folders: what is loaded is what was written, and a folder can do nothing else."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from baselines.dp_vae import DPVae
from wavedp import published
from wavedp.dp import UserError
from wavedp.published import CONFIG, WEIGHTS, load

GENERATOR: dict[str, Any] = {
    "_target_": "baselines.dp_vae.DPVae",
    **{"resolution": 32, "side": 8, "latent": 8, "width": 16, "rate": 0.01},
}


class Elsewhere(DPVae):
    """A method of another package."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small generator, published."""
    torch.manual_seed(1)
    return write(tmp_path / "model", GENERATOR)


def write(folder: Path, settings: dict[str, Any], digests: dict[str, str] | None = None) -> Path:
    folder.mkdir()
    state = DPVae(32, 8, 8, 16, 0.01).state_dict()
    first = {k: v for k, v in state.items() if k.startswith("encoder")}
    rest = {k: v for k, v in state.items() if k not in first}
    published.write(
        folder, "dp_vae", settings, digests or {}, public=save(first), finetuned=save(rest)
    )
    return folder


def changed(folder: Path, **parts: Any) -> Path:
    """The folder with another config."""
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | parts))
    return folder


def draw(generator: Any) -> Tensor:
    return torch.cat(list(generator.generate(["a"] * 5, seed=3)))


def test_the_weights_are_those_that_were_written(folder: Path) -> None:
    torch.manual_seed(1)
    made, found = DPVae(32, 8, 8, 16, 0.01).eval(), load(folder)
    assert isinstance(found, DPVae)
    assert not found.training
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, found.state_dict()[name])
    assert torch.equal(draw(made), draw(found))


@pytest.mark.parametrize("name", WEIGHTS)
def test_tampered_weights_are_refused(name: str, folder: Path) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is not the file"):
        load(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} cannot be read"):
        load(folder)


def renamed(folder: Path, content: bytes) -> None:
    """Put other content in the place of the finetuned weights, under its own digest."""
    (folder / WEIGHTS[1]).write_bytes(content)
    files = json.loads((folder / CONFIG).read_text())["files"]
    changed(folder, files=files | {WEIGHTS[1]: hashlib.sha256(content).hexdigest()})


def test_weights_are_tensors_without_code(folder: Path, trap: Any) -> None:
    renamed(folder, pickle.dumps(trap))
    with pytest.raises(UserError, match="holds no weights"):
        load(folder)


def test_weights_that_do_not_fit_are_refused(folder: Path) -> None:
    renamed(folder, save({"decoder.0.weight": torch.zeros(1)}))
    with pytest.raises(UserError, match="do not fit"):
        load(folder)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "missing or damaged"),
        ("{", "missing or damaged"),
        ("[]", "missing or damaged"),
        ('{"format": 1}', "missing or damaged"),
        ('{"format": 2, "generator": {}, "public": {}, "files": {}}', "missing or damaged|format"),
        ('{"format": 1, "generator": [], "public": {}, "files": {}}', "damaged|format"),
    ],
)
def test_what_is_no_published_folder_is_refused(
    content: str | None, named: str, folder: Path
) -> None:
    (folder / CONFIG).unlink()
    if content is not None:
        (folder / CONFIG).write_text(content)
    with pytest.raises(UserError, match=named):
        load(folder)


@pytest.mark.parametrize(
    "target",
    [
        "os.mkdir",
        "os.system",
        "builtins.eval",
        "subprocess.run",
        "pickle.loads",
        "wavedp.dp.ledger.Ledger",  # would write a file
        "wavedp.published.load",
        "wavedp.nn.state.torch.load",
        "wavedp.nn.state.Path",  # imported there
        "wavedp.nnn.evil",
        "baselines.dp_vae.nothing",
        "baselines.dp_vae.ClassVar",
        "",
        "eval",
    ],
)
def test_a_config_can_call_nothing_but_methods_and_networks(
    target: str, folder: Path, tmp_path: Path
) -> None:
    """Also deep inside the settings."""
    trace = str(tmp_path / "trace")
    for settings in (
        {"_target_": target, "path": trace},
        {**GENERATOR, "side": {"_target_": target}},
    ):
        with pytest.raises(UserError, match=r"names|not installed"):
            load(changed(folder, generator=settings))
    assert not Path(trace).exists()


def test_other_packages_are_called_where_the_user_trusts_them(tmp_path: Path) -> None:
    torch.manual_seed(1)
    target = f"{__name__}.Elsewhere"
    folder = write(tmp_path / "model", GENERATOR | {"_target_": target})
    with pytest.raises(UserError, match=r"packages=\[\.\.\.\]"):
        load(folder)
    assert isinstance(load(folder, packages=[__name__]), Elsewhere)


def test_what_is_no_generator_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="does not describe"):
        load(changed(folder, generator={"_target_": "wavedp.nn.text.hashed.HashedText"}))
    with pytest.raises(UserError, match="does not describe"):
        load(changed(folder, generator={"a": 1}))


def test_settings_that_do_not_fit_are_one_sentence(folder: Path) -> None:
    lacking = {k: v for k, v in GENERATOR.items() if k != "latent"}
    with pytest.raises(UserError, match=r"generator .* cannot be made: .*latent.*files=") as caught:
        load(changed(folder, generator=lacking))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="positive"):
        load(changed(folder, generator=GENERATOR | {"latent": 0}))


class Reader(DPVae):
    """A method that reads published weights from a file itself."""

    def __init__(self, path: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.read = Path(path).read_bytes()

    def generate(self, captions: Sequence[str], seed: int) -> Iterator[Tensor]:
        return super().generate(captions, seed)


def test_files_come_from_the_user_and_are_known_by_their_digest(tmp_path: Path) -> None:
    given, other = tmp_path / "x4.pth", tmp_path / "other.pth"
    given.write_bytes(b"weights")
    other.write_bytes(b"others")
    digests = {"upsampler": hashlib.sha256(b"weights").hexdigest()}
    folder = write(tmp_path / "model", GENERATOR | {"_target_": f"{__name__}.Reader"}, digests)
    trusted = [__name__]
    with pytest.raises(UserError, match=r"path.*files={'SETTING'"):
        load(folder, packages=trusted)
    found = load(folder, files={"path": given}, packages=trusted)
    assert isinstance(found, Reader)
    assert found.read == b"weights"
    for files, named in (
        ({"path": other}, "none of the weights"),
        ({"path": tmp_path / "absent"}, "There is no file"),
        ({"upsampler.path": given}, "no part 'upsampler'"),
        ({"side.path": given}, "no part 'side'"),
    ):
        with pytest.raises(UserError, match=named):
            load(folder, files=files, packages=trusted)


def test_a_config_points_to_no_file_of_the_user(tmp_path: Path) -> None:
    """A file that it brings would be read by who knows what."""
    evil = tmp_path / "evil.pth"
    evil.write_bytes(b"evil")
    settings = GENERATOR | {"_target_": f"{__name__}.Reader", "path": str(evil)}
    folder = write(tmp_path / "model", settings)
    with pytest.raises(UserError, match="is a file or folder here"):
        load(folder, packages=[__name__])
    nested = changed(folder, generator=settings | {"path": {"deep": [str(evil)]}})
    with pytest.raises(UserError, match="is a file or folder here"):
        load(nested, packages=[__name__])
    harmless = changed(folder, generator=GENERATOR | {"rate": "x" * 5000})
    with pytest.raises(UserError, match="cannot be made"):
        load(harmless)
