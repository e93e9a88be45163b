"""A digest of a public network's weights, to name what was computed with them."""

from __future__ import annotations

import hashlib

from torch import nn


def fingerprint(module: nn.Module, *settings: object) -> str:
    """SHA-256 over names, types, shapes and values of all parameters and buffers.

    Args:
        settings: what else decides what the network computes and is in no weight, such as the
            number of heads.
    """
    digest = hashlib.sha256("".join(f"{setting!r}\n" for setting in settings).encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
