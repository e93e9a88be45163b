"""A finetuned generator as a folder that can be given away, and loaded without the harness.

    from wavedp.published import load
    generator = load("a folder")
    images = next(generator.generate(["a smiling person"], seed=0))

``config.json`` says which class makes the generator, with which settings, and the SHA-256 of the
weights: ``finetuned.safetensors`` is what finetuning made, ``public.safetensors`` the rest. Whoever
loads a folder need not trust it: weights are tensors without code, and its config can call nothing
but methods and networks, and name no file.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from wavedp.dp.errors import UserError, one_line
from wavedp.protocol import ImageGenerator

FORMAT = 1
CONFIG = "config.json"
WEIGHTS = ("public.safetensors", "finetuned.safetensors")
PACKAGES = ("wavedp.nn", "wavedp.wavelet", "wavedp.diffusion", "baselines")
"""Whose classes and functions a config may name. They compute, or read weights; none writes."""


def write(
    folder: Path,
    method: str,
    generator: Mapping[str, Any],
    digests: Mapping[str, str],
    **weights: bytes,
) -> None:
    """Write config and weights into a folder that is there.

    Args:
        generator: its class as ``_target_`` and its settings, at any depth, without paths.
        digests: SHA-256 of the public weights by part; files that the user of the folder gives
            have to be among them.
        weights: the content of ``public`` and ``finetuned``, both safetensors.
    """
    files = {name: weights[Path(name).stem] for name in WEIGHTS}
    config = {
        "format": FORMAT,
        "method": method,
        "generator": generator,
        "public": dict(digests),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def load(
    folder: str | Path, files: Mapping[str, str | Path] | None = None, packages: Sequence[str] = ()
) -> ImageGenerator:
    """The generator of a folder, on the CPU and in evaluation mode.

    Args:
        folder: as :func:`write` made it.
        files: published weights that the folder does not hold and a part reads itself, by the
            place in the generator's settings: ``{"upsampler.path": "/data/x4.safetensors"}``.
        packages: others than WaveDP's that the folder may call, such as the one of its method.

    Raises:
        UserError: a file is missing, damaged or another one than the config says, or the config
            names what it may not.
    """
    folder = Path(folder)
    config = _config(folder)
    state: dict[str, Tensor] = {}
    for name in WEIGHTS:
        state |= _tensors(folder / name, config["files"][name])
    _check_no_files(config["generator"])
    settings = _with_files(config["generator"], files or {}, set(config["public"].values()))
    generator = _made(settings, "generator", (*PACKAGES, *packages))
    if not (isinstance(generator, nn.Module) and isinstance(generator, ImageGenerator)):
        raise UserError(f"{folder / CONFIG} does not describe an image generator; get it again.")
    try:
        generator.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"The weights in {folder} do not fit the generator, as of another version of WaveDP "
            f"(record.json says which): {one_line(error)}"
        ) from error
    return generator.eval()


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        whole = (
            config["format"] == FORMAT
            and all(isinstance(config[part], dict) for part in ("generator", "public", "files"))
            and all(isinstance(config["files"][name], str) for name in WEIGHTS)
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} holds no published generator: its {CONFIG} is missing or damaged."
        ) from error
    if not whole:
        raise UserError(f"{folder / CONFIG} is of another format; use a newer WaveDP to load it.")
    return dict(config)


def _tensors(path: Path, digest: str) -> dict[str, Tensor]:
    """What a file of weights holds, if it is the one that the config names."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); get the folder again."
        ) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise UserError(
            f"{path} is not the file that {CONFIG} names (its SHA-256 differs): it is damaged or "
            "was changed; get the folder again."
        )
    try:
        return load_tensors(content)
    except SafetensorError as error:
        raise UserError(f"{path} holds no weights; get the folder again.") from error


def _check_no_files(settings: Any) -> None:
    """What somebody else wrote must not point to anything on this machine."""
    for text in _texts(settings):
        try:
            there = Path(text).expanduser().exists()
        except (OSError, RuntimeError, ValueError):
            continue  # no name of a file at all
        if there:
            raise UserError(
                f"The {CONFIG} names {text!r}, which is a file or folder here: leave that out of "
                "it, and give load(folder, files=...) what a part is to read."
            )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _with_files(
    settings: Mapping[str, Any], files: Mapping[str, str | Path], known: set[str]
) -> dict[str, Any]:
    """The settings with the files that the caller gives, each of them one of the known."""
    whole: dict[str, Any] = json.loads(json.dumps(settings))
    for place, path in files.items():
        *parents, name = place.split(".")
        part = whole
        for parent in parents:
            part = part.get(parent) if isinstance(part, dict) else None  # type: ignore[assignment]
        if not isinstance(part, dict):
            raise UserError(f"The generator has no part {'.'.join(parents)!r} to give a file to.")
        if not Path(path).is_file():
            raise UserError(f"There is no file {path} for generator.{place}.")
        with Path(path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest not in known:
            raise UserError(
                f"{path} is none of the weights that the generator was made with (the SHA-256 of "
                f"each is in {CONFIG})."
            )
        part[name] = str(path)
    return whole


def _made(settings: Any, place: str, packages: Sequence[str]) -> Any:
    """What settings stand for: each dictionary with a ``_target_`` is a call of it."""
    if isinstance(settings, list):
        return [_made(item, place, packages) for item in settings]
    if not isinstance(settings, dict):
        return settings
    made = {key: _made(value, f"{place}.{key}", packages) for key, value in settings.items()}
    if "_target_" not in made:
        return made
    name = str(made.pop("_target_"))
    call = _called(name, packages)
    try:
        return call(**made)
    except UserError:
        raise
    except Exception as error:  # whatever settings that do not fit may raise
        setting = f"{place}.SETTING".partition(".")[2]
        raise UserError(
            f"{place} ({name}) cannot be made: {one_line(error)}; if it reads a file of published "
            f"weights, give load(folder, files={{{setting!r}: ...}})."
        ) from error


def _called(name: str, packages: Sequence[str]) -> Any:
    """The class or function of a name, if one of the packages has it as its own."""
    module, _, attribute = name.rpartition(".")
    if not _within(module, packages):
        raise UserError(
            f"The {CONFIG} names {name}, which is none of {', '.join(packages)}: if you trust the "
            "package, give load(folder, packages=[...])."
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{name} is not installed here ({one_line(error)}): install the version of WaveDP, or "
            "of the package of the method, that record.json names."
        ) from error
    # What a module has imported is not its own.
    if not (callable(found) and _within(str(getattr(found, "__module__", "")), packages)):
        raise UserError(f"The {CONFIG} names {name}, which is no class or function of its package.")
    return found


def _within(module: str, packages: Sequence[str]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)
