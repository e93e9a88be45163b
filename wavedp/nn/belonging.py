"""Networks that know which encoders they were trained with, and are used with no others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wavedp.dp.errors import UserError


class Belonging(nn.Module):
    """A network over what public encoders make of images and captions.

    Attributes:
        encoders: a digest of their keys, uint8 ``[32]``; zeros until it is known. It is part of the
            weights, published ones excepted.
    """

    encoders: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("encoders", torch.zeros(32, dtype=torch.uint8))

    def belong_to(self, *encoders: str) -> None:
        """Note the keys of the image's and the text's encoder that it is trained with."""
        self.encoders.copy_(_digest(encoders))

    def check_encoders(self, *encoders: str) -> None:
        """Refuse codes, latents or texts that it was not trained on.

        Raises:
            UserError: it was trained with others.
        """
        known = self.encoders.cpu()
        if known.any() and not torch.equal(known, _digest(encoders)):
            raise UserError(
                f"The {type(self).__name__} was trained with another tokenizer, autoencoder or "
                "text encoder; use the checkpoints that were made together, or pretrain it again."
            )


def _digest(keys: Sequence[str]) -> Tensor:
    digest = hashlib.sha256("\n".join(keys).encode()).digest()
    return torch.frombuffer(bytearray(digest), dtype=torch.uint8)
