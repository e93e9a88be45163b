"""What turns images into codes and back: the face that priors, training and reports see.

Shapes: n images, S scales of N tokens, C codes per token, K codebook entries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from wavedp.dp.errors import UserError

LARGEST_CODEBOOK = 2**15
"""Codes are kept as 16-bit numbers."""


class Tokenizer(nn.Module, ABC):
    """Images in [-1, 1] to tokens and back, public and frozen before it sees a private image.

    A pyramid has several scales, each of which makes the image larger; a raster has one.

    Attributes:
        resolution: image height and width in pixels.
        codes, codebook_size: C and K.
        causal: the first scales decode on their own.
    """

    resolution: int
    codes: int
    codebook_size: int
    causal: bool = True

    @property
    @abstractmethod
    def key(self) -> str:
        """Names its codes: the digest of its weights and of all that is in no weight."""

    @property
    @abstractmethod
    def scales(self) -> int:
        """S, the number of scales."""

    @property
    @abstractmethod
    def tokens_per_scale(self) -> int:
        """N."""

    @abstractmethod
    def side(self, scales: int) -> int:
        """Pixels per side of an image that has the first ``scales`` scales."""

    @abstractmethod
    def encode(self, images: Tensor, scales: int | None = None) -> Tensor:
        """``[n, 3, R, R]`` to codes ``[n, s N, C]`` of the first s scales; nothing learns."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> Tensor:
        """Codes ``[n, s N, C]`` of the first s scales to images ``[n, 3, r, r]``."""

    @abstractmethod
    def fit_codebooks(self, images: Tensor) -> None:
        """Start the codebooks from what the encoder makes of public images."""

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Through the bottleneck and back: an image per number of scales, and the commitment."""


def check_codes(codes: Tensor, codebook_size: int) -> None:
    """Refuse what is no index of a codebook.

    Raises:
        UserError: a code is negative or not below ``codebook_size``.
    """
    if codes.is_meta:
        return  # where operations are counted, there are no numbers
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < codebook_size:
        raise UserError(f"Codes must lie in 0..{codebook_size - 1}.")
