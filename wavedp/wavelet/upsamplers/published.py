"""Published super-resolution weights: whatever spandrel reads, and IMDN.

spandrel (the library of chaiNNer) recognises some forty architectures by their state dicts and
loads them without running code of theirs: ESRGAN, SwinIR, HAT, DAT, RealCUGAN and others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.dp.errors import UserError
from wavedp.nn.imdn import is_imdn, load_imdn
from wavedp.nn.state import read_state


class PublishedUpsampler(nn.Module):
    """Super-resolution by published weights.

    Args:
        path: a file of weights, ``.safetensors``, ``.pth`` or ``.pt``.
        factor: how many times larger the images are to be; a model that enlarges more is
            followed by averaging, which keeps its detail.
        batch: images at once.

    Raises:
        UserError: the file is missing or damaged, is of an unknown architecture, does not take
            and give colour images, or enlarges less than ``factor``.
    """

    takes = None

    def __init__(self, path: str, factor: int, batch: int = 64) -> None:
        super().__init__()
        self.factor, self._batch = factor, batch
        network, made, self._call = read_network(Path(path).expanduser())
        # In a list, so that it is no part of the method's state: it has a file of its own.
        self._networks = [network.eval().requires_grad_(False)]
        if made < factor or made % factor:
            raise UserError(
                f"{path} enlarges {made} times and {factor} times are asked for; choose other "
                "weights or another private_scales."
            )

    @torch.no_grad()
    def upsample(self, low: Tensor, captions: Sequence[str], seed: int) -> Tensor:
        """See :class:`~wavedp.wavelet.upsamplers.Upsampler`; the prompt plays no part."""
        del captions, seed
        network = self._networks[0].to(low.device)
        made = [self._call(network, (part + 1) / 2).clamp(0, 1) for part in low.split(self._batch)]
        size = low.shape[-1] * self.factor
        # "area" averages whole blocks, the factor being whole.
        return F.interpolate(torch.cat(made), (size, size), mode="area") * 2 - 1

    def check(self, prompts: Sequence[str]) -> None:
        """See :class:`~wavedp.wavelet.upsamplers.Upsampler`: nothing can be wrong."""


def read_network(path: Path) -> tuple[nn.Module, int, Callable[[Any, Tensor], Tensor]]:
    """The network of a file of weights, how much it enlarges, and how it is called.

    Raises:
        UserError: see :class:`PublishedUpsampler`.
    """
    state = read_state(path, "upsampler.path")
    if is_imdn(state):
        network, factor = load_imdn(state)
        return network, factor, _plain_call
    try:
        from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError
    except ModuleNotFoundError as error:
        raise UserError(
            'Published upsamplers need spandrel; install it with `pip install "wavedp[paper]"`.'
        ) from error
    try:
        found = ModelLoader().load_from_state_dict(dict(state))
    except (UnsupportedModelError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{path.name} is of no architecture that spandrel knows; see the list on its page."
        ) from error
    if not isinstance(found, ImageModelDescriptor) or found.input_channels != 3:
        raise UserError(f"{path.name} does not turn one colour image into another.")
    module: nn.Module = found.model
    # The descriptor pads to the sizes that the architecture takes.
    return module, found.scale, lambda _, images: torch.as_tensor(found(images))


def _plain_call(network: nn.Module, images: Tensor) -> Tensor:
    return torch.as_tensor(network(images))
