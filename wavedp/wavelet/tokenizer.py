"""The spectral image tokenizer, SIT: an image as the same number of tokens per wavelet scale.

Esteves et al., arXiv 2412.09607. Every scale of the Haar pyramid is cut into the same grid of
patches, so patches grow with frequency and high frequencies are compressed most. An
ADTransformer encodes the patches of all scales as one sequence, two codebooks (approximation,
details) quantise it, and a second ADTransformer decodes it. With scale-causal attention the
tokens of the first scales depend on nothing finer, and decode on their own to a smaller image.
It is trained on public images and frozen before it touches a private one.

Shapes: n images, S scales of N tokens, C codes per token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.dp.errors import UserError
from wavedp.nn.fingerprint import fingerprint
from wavedp.nn.quantizer import Quantized, Quantizer
from wavedp.nn.tokenizer import LARGEST_CODEBOOK, Tokenizer, check_codes
from wavedp.wavelet.adtransformer import ADTransformer, Parted
from wavedp.wavelet.transform import check_divisible, decompose, reconstruct


class SpectralTokenizer(Tokenizer):
    """Images in [-1, 1] to tokens and back, for any number of leading scales.

    SIT has one code per token; with small codebooks, several (residual quantisation) keep more.

    Args:
        resolution: image height and width in pixels.
        levels: L; there are S = L + 1 scales.
        grid: patches per side, so each scale has N = ``grid**2`` tokens.
        codes: C.
        codebook_size: K entries of each codebook.
        code_width: size of a codebook entry.
        width, heads: of both transformers.
        encoder_depth, decoder_depth: their blocks; SIT has 8 and 32 at width 1280.
        causal_encoder, causal_decoder: scale-causal attention, without which only whole images
            can be encoded or decoded.
    """

    def __init__(
        self,
        resolution: int = 32,
        levels: int = 2,
        grid: int = 4,
        codes: int = 4,
        codebook_size: int = 512,
        code_width: int = 32,
        width: int = 128,
        heads: int = 4,
        encoder_depth: int = 1,
        decoder_depth: int = 3,
        causal_encoder: bool = True,
        causal_decoder: bool = True,
    ) -> None:
        super().__init__()
        check_divisible(resolution, resolution, levels)
        if (resolution >> levels) % grid:
            raise UserError(
                f"A {grid}x{grid} token grid does not divide the {resolution >> levels} pixels of "
                f"the LL band; change resolution, levels or grid."
            )
        if not 0 < codebook_size <= LARGEST_CODEBOOK:
            raise UserError(
                f"codebook_size={codebook_size} must lie in 1..{LARGEST_CODEBOOK}: codes are kept "
                "as 16-bit numbers."
            )
        self.resolution, self.levels, self.grid = resolution, levels, grid
        self.codes, self.codebook_size = codes, codebook_size
        self.causal = causal_encoder and causal_decoder
        self._settings = (resolution, levels, grid, heads, causal_encoder, causal_decoder)
        sizes = [self._patch_width(scale) for scale in range(self.scales)]
        self.enter = nn.ModuleList(nn.Linear(size, width) for size in sizes)
        shape = (heads, self.scales, self.tokens_per_scale)
        self.encoder = ADTransformer(width, encoder_depth, *shape, causal_encoder)
        self.to_code = Parted(self.tokens_per_scale, lambda: nn.Linear(width, code_width))
        self.codebooks = nn.ModuleList(
            Quantizer(code_width, codebook_size, codes) for _ in ("approximation", "detail")
        )
        self.from_code = Parted(self.tokens_per_scale, lambda: nn.Linear(code_width, width))
        self.decoder = ADTransformer(width, decoder_depth, *shape, causal_decoder)
        self.leave = nn.ModuleList(nn.Linear(width, size) for size in sizes)

    @property
    def key(self) -> str:
        """Names its codes: the digest of its weights and of all that is in no weight."""
        return fingerprint(self, *self._settings)

    @property
    def scales(self) -> int:
        """S, the number of scales."""
        return self.levels + 1

    @property
    def tokens_per_scale(self) -> int:
        """N."""
        return self.grid**2

    def side(self, scales: int) -> int:
        """Pixels per side of an image that has the first ``scales`` scales."""
        return self.resolution >> (self.scales - scales)

    def _patch_width(self, scale: int) -> int:
        channels = 3 if scale == 0 else 9
        return channels * (self.side(max(scale, 1)) // self.grid) ** 2

    def _gain(self, scale: int) -> float:
        """What brings orthonormal coefficients of a scale near the range of pixels."""
        return 2.0 ** (self.scales - max(scale, 1))

    def encode(self, images: Tensor, scales: int | None = None) -> Tensor:
        """Images in [-1, 1] to codes ``[n, s N, C]`` in 0..K-1.

        Args:
            images: ``[n, 3, r, r]``, of the full resolution or halved up to L times: smaller
                images have fewer scales.
            scales: s, encode the first scales only; the others are not looked at.

        Raises:
            UserError: another image size or number of scales, or fewer than all scales with an
                encoder that is not scale-causal.
        """
        if scales is not None and not 1 <= scales <= self.scales:
            raise UserError(f"scales={scales} must lie in 1..{self.scales}.")
        parts = self.patches(images)[:scales]
        if len(parts) < self.scales and not self.encoder.causal:
            raise UserError(
                "Only whole images can be encoded with an encoder that is not scale-causal; set "
                "causal_encoder=true and pretrain the tokenizer again."
            )
        # Not through forward: no image that is only looked at may move a codebook.
        rows = self._by_codebook(self._encode(parts))
        return torch.cat([book.encode(part) for book, part in rows], dim=1)

    def check_causal(self) -> None:
        """Refuse a tokenizer that knows whole images only.

        Raises:
            UserError: its encoder or its decoder is not scale-causal.
        """
        for name, part in (("encoder", self.encoder), ("decoder", self.decoder)):
            if not part.causal:
                raise UserError(
                    f"The tokenizer's {name} is not scale-causal, so there is no low band on its "
                    f"own; set causal_{name}=true and pretrain the tokenizer again."
                )

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens of the first s scales to the LL band there, as an image about in [-1, 1].

        Args:
            tokens: int64 ``[n, s N, C]`` with 1 <= s <= S.

        Returns:
            ``[n, 3, r, r]`` with ``r`` the resolution for all scales, halved for every
            level that is missing.

        Raises:
            UserError: the tokens do not fill whole scales, a code is not below K, or scales are
                missing and the decoder is not scale-causal.
        """
        self._check_tokens(tokens)
        rows = [book.lookup(part) for book, part in self._by_codebook(tokens)]
        return self._images(self._decode(torch.cat(rows, dim=1)))[-1]

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Through the bottleneck and back, with gradients straight through the quantiser.

        Returns:
            The image decoded from the first scale, the first two, ... ``[n, 3, r, r]``; and the
            commitment ``[n]``.
        """
        quantized = self._quantize(self._encode(self.patches(images)))
        return self._images(self._decode(quantized.rows)), quantized.commitment.mean(1)

    def patches(self, images: Tensor) -> list[Tensor]:
        """Images to per-scale patches ``[n, N, patch width]``, row by row over the grid.

        Raises:
            UserError: the images have another size.
        """
        height, width = images.shape[-2:]
        sizes = [self.side(scales) for scales in range(1, self.scales + 1)]
        if height != width or height not in sizes:
            raise UserError(
                f"The tokenizer takes square images of {', '.join(map(str, sizes))} px, got "
                f"{height}x{width}; prepare them at dataset.resolution={self.resolution}."
            )
        # A smaller image is the LL band of a larger one, whose mean an orthonormal transform
        # doubles with every level.
        missing = self.scales - 1 - sizes.index(height)
        scales = decompose(images * 2.0**missing, self.levels - missing)
        return [
            F.pixel_unshuffle(band / self._gain(s), band.shape[-1] // self.grid).flatten(2).mT
            for s, band in enumerate(scales)
        ]

    @torch.no_grad()
    def fit_codebooks(self, images: Tensor) -> None:
        """Start the codebooks from k-means of what the encoder makes of public images."""
        encoded = [self._encode(self.patches(part)) for part in images.split(250)]
        for book, rows in self._by_codebook(torch.cat(encoded)):
            book.fit(rows.flatten(0, 1))

    def _encode(self, patches: Sequence[Tensor]) -> Tensor:
        """Patches of the first scales to ``[n, s N, code width]``."""
        entered = [layer(part) for layer, part in zip(self.enter, patches, strict=False)]
        return torch.as_tensor(self.to_code(self.encoder(torch.cat(entered, dim=1))))

    def _quantize(self, rows: Tensor) -> Quantized:
        parts: list[Quantized] = [book(part) for book, part in self._by_codebook(rows)]
        return Quantized(
            torch.cat([part.rows for part in parts], dim=1),
            torch.cat([part.codes for part in parts], dim=1),
            torch.cat([part.commitment for part in parts], dim=1),
        )

    def _by_codebook(self, sequence: Tensor) -> list[tuple[Quantizer, Tensor]]:
        """Each codebook with its stretch of a sequence ``[n, s N, ...]``, if that is not empty."""
        count = self.tokens_per_scale
        parts = (sequence[:, :count], sequence[:, count:])
        books = [book for book in self.codebooks if isinstance(book, Quantizer)]
        return [(book, part) for book, part in zip(books, parts, strict=True) if part.shape[1]]

    def _decode(self, rows: Tensor) -> list[Tensor]:
        """Quantised rows of the first scales to their bands, in orthonormal coefficients."""
        hidden = self.decoder(self.from_code(rows))
        bands = []
        for scale, part in enumerate(hidden.split(self.tokens_per_scale, dim=1)):
            patches = self.leave[scale](part).mT.unflatten(2, (self.grid, self.grid))
            shuffled = F.pixel_shuffle(patches, self.side(max(scale, 1)) // self.grid)
            bands.append(shuffled * self._gain(scale))
        return bands

    def _images(self, bands: Sequence[Tensor]) -> list[Tensor]:
        """The image that each number of leading bands makes."""
        made = [bands[0]]
        for band in bands[1:]:
            made.append(reconstruct([made[-1], band]))
        return [image / 2.0 ** (self.levels - scale) for scale, image in enumerate(made)]

    def _check_tokens(self, tokens: Tensor) -> None:
        scales, rest = divmod(tokens.shape[1], self.tokens_per_scale)
        if rest or not 0 < scales <= self.scales or tokens.shape[2] != self.codes:
            raise UserError(
                f"Got tokens of shape {list(tokens.shape[1:])}; whole scales have "
                f"{self.tokens_per_scale} tokens of {self.codes} codes each, "
                f"and there are {self.scales} scales."
            )
        check_codes(tokens, self.codebook_size)
        if scales < self.scales and not self.decoder.causal:
            raise UserError(
                "Only whole images can be decoded with a decoder that is not scale-causal; set "
                "causal_decoder=true and pretrain the tokenizer again."
            )
