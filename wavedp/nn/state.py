"""Published weights as they lie on disk: tensors only, no code."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from wavedp.dp.errors import UserError

WRAPPERS = ("params_ema", "params", "state_dict", "model", "module")
"""Names under which training scripts keep the weights, beside other things."""


def read_state(path: str | Path, setting: str) -> Mapping[str, Tensor]:
    """The state dict in a ``.safetensors``, ``.pth`` or ``.pt`` file.

    Args:
        setting: where the user said which file, for the error.

    Raises:
        UserError: the file is missing, cannot be read, or holds no state dict.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"There are no weights at {path}; set {setting}.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        # Training scripts leave their arguments beside the weights; a Namespace holds values alone.
        with torch.serialization.safe_globals([argparse.Namespace]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path.name} cannot be read as weights (tensors only, no code): it is damaged or of "
            "another kind."
        ) from error
    for key in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path.name} holds no state dict.")
    return state
