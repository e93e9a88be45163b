"""``lpips``: perceptual distance of a sample and the real image of its caption.

Zhang et al. 2018, by their own package ``lpips`` (version 0.1, AlexNet).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import bootstrap
from benchmarks.metrics import Direction, Metric, Scores
from benchmarks.registry import Unavailable, find
from wavedp.dp.errors import UserError, one_line

WEIGHTS = "alexnet-owt"

_UNREADABLE = (
    KeyError,
    RuntimeError,
    TypeError,
    IndexError,
    AttributeError,
    EOFError,
    pickle.UnpicklingError,
)
"""What torch raises on a file that is damaged, of another kind, or would run code."""


class LPIPS(Metric):
    """Mean LPIPS over pairs of a sample and the evaluation image whose caption it was drawn for.

    Lower is better: 0 for identical images, below about 1 for images with nothing in common.
    Squared distances of AlexNet's channel-normalised features, weighted by the linear layers that
    Zhang et al. 2018 fitted to human judgement (version 0.1, which their package ships).

    A generator that is right but not the same picture scores far above 0: compare methods, not
    the number with that of a reconstruction.

    Args:
        size: pairs, two images of one size, are enlarged bilinearly to this many pixels if they
            are smaller, as AlexNet needs some room.
        batch: pairs per forward pass.
    """

    direction: ClassVar[Direction | Mapping[str, Direction]] = "lower"
    paired: ClassVar[bool] = True
    weights = (WEIGHTS,)

    def __init__(self, size: int = 64, batch: int = 50) -> None:
        super().__init__()
        self._size, self._batch = size, batch
        self._device = torch.device("cpu")
        self.protocol = (
            "mean LPIPS 0.1 (AlexNet) between a sample and the real image of its caption, "
            f"at least {size} px"
        )

    def open(self, device: torch.device) -> None:
        """See :class:`Metric`."""
        path = find(WEIGHTS)
        network = build()
        try:
            load_trunk(network, torch.load(path, map_location="cpu", weights_only=True))
        except _UNREADABLE as error:
            raise UserError(f"{path} is not torchvision's AlexNet: {one_line(error)}") from error
        self._network, self._device = network.to(device), device

    def describe(
        self, images: Tensor, captions: Sequence[str], real: Tensor | None = None
    ) -> np.ndarray:
        """See :class:`Metric`: one distance per pair, ``[b, 1]``."""
        del captions
        assert real is not None
        assert len(real) == len(images)
        pairs = zip(images.split(self._batch), real.split(self._batch), strict=True)
        with torch.inference_mode():
            parts = [self._network(self._scaled(a), self._scaled(b)).cpu() for a, b in pairs]
        return torch.cat(parts).view(-1, 1).numpy()

    def score(self, rows: np.ndarray) -> Scores:
        """See :class:`Metric`."""
        return float(rows.mean(dtype=np.float64))

    def standard_error(self, rows: np.ndarray) -> Scores:
        """See :class:`Metric`."""
        return bootstrap.standard_error_of_mean(rows)

    def _scaled(self, images: Tensor) -> Tensor:
        floats = images.to(self._device).float() / 127.5 - 1
        if floats.shape[-1] < self._size:
            floats = F.interpolate(floats, self._size, mode="bilinear", align_corners=False)
        return floats


def build() -> Any:
    """The network with the package's linear layers and a random trunk.

    Raises:
        Unavailable: the package is not installed.
    """
    try:
        import lpips
    except ImportError as error:
        raise Unavailable("package lpips missing, get it by `pip install wavedp[paper]`") from error
    return lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False).eval()


def load_trunk(network: Any, state: Mapping[str, Tensor]) -> None:
    """Put torchvision's AlexNet into the trunk.

    Raises:
        KeyError, RuntimeError: the state is of another network.
    """
    trunk: nn.Module = network.net
    names = {name: f"features.{name.split('.', 1)[1]}" for name in trunk.state_dict()}
    trunk.load_state_dict({name: state[source] for name, source in names.items()})
