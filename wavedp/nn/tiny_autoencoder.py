"""The tiny autoencoder for FLUX.2 latents (TAEF2 of madebyollin/taesd), from published weights.

A distilled stand-in for a large autoencoder: 1.3 million parameters each way, 32 channels at an
eighth of the side. Module names are those of the published state dicts, so that they load.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wavedp.dp.errors import UserError, one_line
from wavedp.nn.fingerprint import fingerprint
from wavedp.nn.state import read_state
from wavedp.nn.untrained import drawn

WIDTH, CHANNELS, STRIDE = 64, 32, 8


class TinyAutoencoder(nn.Module):
    """Images in [-1, 1] to latents of about unit variance and back.

    Args:
        encoder, decoder: files of published weights.
        resolution: R, a multiple of 8.

    Raises:
        UserError: a file is missing or holds other weights, or the resolution is no multiple of 8.
    """

    channels = CHANNELS
    parts: tuple[str, ...] = ()

    def __init__(self, encoder: str, decoder: str, resolution: int) -> None:
        super().__init__()
        if resolution % STRIDE:
            raise UserError(f"The tiny autoencoder takes multiples of 8 px, not {resolution} px.")
        self.resolution, self.side = resolution, resolution // STRIDE
        self.encoder, self.decoder = _encoder(), _decoder()
        files = {} if drawn("taef2", {}) is not None else {"encoder": encoder, "decoder": decoder}
        for part, path in files.items():
            state = read_state(path, f"autoencoder.{part}")
            try:
                self.get_submodule(part).load_state_dict(state)
            except RuntimeError as error:
                raise UserError(
                    f"These are not the weights of a TAEF2 {part}: {one_line(error)}"
                ) from error
        self.eval().requires_grad_(False)

    @property
    def key(self) -> str:
        """Names it and its weights, for caches of what it made."""
        return fingerprint(self, type(self).__name__, self.resolution)

    def encode(self, images: Tensor) -> Tensor:
        """``[n, 3, R, R]`` to ``[n, 32, R / 8, R / 8]``."""
        return torch.as_tensor(self.encoder((images + 1) / 2))

    def decode(self, latents: Tensor) -> Tensor:
        """The inverse of :meth:`encode`."""
        return torch.as_tensor(self.decoder(latents) * 2 - 1)


class Block(nn.Module):
    """Three convolutions around a skip, behind a normalised detour where ``pool`` is set."""

    def __init__(self, pool: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *(_convolution(), nn.ReLU(), _convolution(), nn.ReLU(), _convolution())
        )
        if pool:
            self.pool = nn.Sequential(
                nn.Conv2d(WIDTH, 4 * WIDTH, 1, bias=False),
                nn.GroupNorm(4, 4 * WIDTH),
                nn.ReLU(),
                nn.Conv2d(4 * WIDTH, WIDTH, 1, bias=False),
            )
        self._pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """``[n, 64, h, w]`` to the same."""
        x = x + self.pool(x) if self._pool else x
        return torch.relu(self.conv(x) + x)


class Bounded(nn.Module):
    """Latents brought into [-3, 3], smoothly."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return torch.tanh(x / 3) * 3


def _convolution(inputs: int = WIDTH, outputs: int = WIDTH, **settings: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **settings)  # type: ignore[arg-type]


def _encoder() -> nn.Sequential:
    layers: list[nn.Module] = [_convolution(3), Block()]
    for level in range(3):
        layers.append(_convolution(stride=2, bias=False))
        layers += [Block(pool=level == 2) for _ in range(3)]
    return nn.Sequential(*layers, _convolution(outputs=CHANNELS))


def _decoder() -> nn.Sequential:
    layers: list[nn.Module] = [Bounded(), _convolution(CHANNELS), nn.ReLU()]
    for level in range(3):
        layers += [Block(pool=level == 0) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), _convolution(bias=False)]
    return nn.Sequential(*layers, Block(), _convolution(outputs=3))
