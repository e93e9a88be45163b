"""Public checkpoints: one safetensors file per pretrained part, beside the record of its making.

``python -m benchmarks.weights`` lists every entry of :mod:`benchmarks.registry`, these and the
published ones, and fetches what is missing; ``list`` only lists, names fetch those alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from benchmarks.digest import sha256
from benchmarks.registry import OWN as FOLDER
from benchmarks.registry import digest_of
from benchmarks.written import write
from wavedp.dp.errors import UserError, one_line


def path_of(name: str) -> Path:
    """Where the checkpoint called ``name`` lies; a name with a suffix is a path of its own."""
    path = Path(name).expanduser()
    return path if path.suffix else FOLDER / f"{name}.safetensors"


def digests(weights: Mapping[str, str | None]) -> dict[str, str]:
    """SHA-256 of each part's checkpoint.

    Raises:
        UserError: a checkpoint is missing; says how to make it.
    """
    result = {}
    for part, name in weights.items():
        if name is None:
            raise UserError(
                f"method.published.{part} is not set: give a file of published weights for the "
                f"part {part!r}."
            )
        path = path_of(name)
        if not path.exists():
            raise UserError(
                f"The public checkpoint {path.name} of the part {part!r} is missing; make it with "
                "`python -m benchmarks.pretrain` and the same method."
            )
        result[part] = digest_of(path)
    return result


def load_parts(module: nn.Module, weights: Mapping[str, str]) -> None:
    """Load the checkpoints of the named submodules.

    Raises:
        UserError: a checkpoint does not fit its part; lists what is missing or unexpected.
    """
    for part, name in weights.items():
        try:
            state = load_file(path_of(name))
            module.get_submodule(part).load_state_dict(state)
        except (RuntimeError, SafetensorError, AttributeError, OSError) as error:
            raise UserError(
                f"The public checkpoint {name} does not fit the part {part!r}: {one_line(error)}"
            ) from error


def state_of(weights: Mapping[str, str]) -> dict[str, Tensor]:
    """The checkpoints' tensors as parts hold them, by their names in the generator's state."""
    return {
        f"{part}.{key}": tensor.float() if tensor.is_floating_point() else tensor
        for part, name in weights.items()
        for key, tensor in load_file(path_of(name)).items()
    }


def round_to_half(part: nn.Module) -> None:
    """Round a part's weights, in place, to what :func:`save_part` can keep in half precision."""
    for tensor in part.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())


def save_part(part: nn.Module, name: str, made: Mapping[str, Any], *, half: bool = False) -> Path:
    """Write a part's weights and, beside them, the record of how they were made.

    Args:
        half: in float16, half the bytes; what is read again is float32.
    """
    path = path_of(name)
    state: dict[str, Tensor] = {k: v.contiguous().cpu() for k, v in part.state_dict().items()}
    count = sum(v.numel() for v in state.values())
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    write(path, save(state))
    record = {**made, "parameters": count, "sha256": sha256(path)}
    write(path.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    return path


def main(arguments: list[str]) -> int:
    """List the registry and fetch what is missing; returns 1 if something could not be had."""
    from benchmarks.fetch import fetch_all, show

    only_list = arguments == ["list"]
    names = [] if only_list else arguments
    show(names)
    return 0 if only_list else fetch_all(names)


if __name__ == "__main__":
    from benchmarks.console import run_command

    run_command(main)
