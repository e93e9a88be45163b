"""CLIP (Radford et al. 2021) through open-clip: images and captions to one space."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.features import FeatureSpace, per_image
from benchmarks.registry import Unavailable, find
from wavedp.dp.errors import UserError, one_line


class Clip(FeatureSpace):
    """The two towers of one CLIP model.

    Args:
        model: open-clip's name of the architecture. OpenAI's weights need ``-quickgelu``.
        weights: name in :mod:`benchmarks.registry`.
        workers: threads that resize.
        batch: images per forward pass.
    """

    def __init__(
        self,
        model: str = "ViT-B-32-quickgelu",
        weights: str = "clip-vit-b-32-openai",
        workers: int | None = None,
        batch: int = 64,
    ) -> None:
        super().__init__()
        self._model_name = model
        self.weights = (weights,)
        self._workers = workers or os.cpu_count() or 1
        self.batch = batch
        self.label = f"CLIP {model} ({weights}), open-clip's bicubic resizing"

    def load(self, device: torch.device) -> None:
        """See :class:`FeatureSpace`."""
        path = find(self.weights[0])
        with _without_false_alarm():
            network, self._preprocess, self._tokenize = build(self._model_name)
        try:
            network.load_state_dict(load_file(path), strict=True)
        except (RuntimeError, SafetensorError) as error:
            raise UserError(f"{path} does not fit: {one_line(error)}") from error
        self._network = network.to(device).eval()

    def extract(self, images: Tensor) -> Tensor:
        """See :class:`FeatureSpace`. Not normalised, as clean-fid's distance in CLIP space."""
        prepared = per_image(self._prepare, images, self._workers).contiguous()
        features: Tensor = self._network.encode_image(prepared.to(self.device))
        return features

    def embed_texts(self, captions: Sequence[str]) -> np.ndarray:
        """Captions to float32 unit vectors ``[n, d]``; long ones are cut at 77 tokens."""
        parts = []
        with torch.inference_mode():
            for tokens in self._tokenize(list(captions)).split(self.batch):
                text = self._network.encode_text(tokens.to(self.device), normalize=True)
                parts.append(text.float().cpu())
        return torch.cat(parts).numpy()

    def _prepare(self, image: np.ndarray) -> np.ndarray:
        prepared: Tensor = self._preprocess(Image.fromarray(image))
        return prepared.permute(1, 2, 0).numpy()


def build(model: str) -> tuple[Any, Any, Any]:
    """open-clip's network with random weights, its preprocessing and its tokenizer.

    Raises:
        Unavailable: open-clip is not installed.
        UserError: it knows no such model.
    """
    try:
        import open_clip
    except ImportError as error:
        raise Unavailable(
            "package open-clip missing, get it by `pip install wavedp[paper]`"
        ) from error
    try:
        network, _, preprocess = open_clip.create_model_and_transforms(model)
    except RuntimeError as error:
        raise UserError(
            f"open-clip has no model {model!r}; see open_clip.list_models()."
        ) from error
    return network, preprocess, open_clip.get_tokenizer(model)


@contextmanager
def _without_false_alarm() -> Iterator[None]:
    """Without open-clip's warning that a network has random weights, for one that is filled next.

    It goes to the root logger. Everything else that is logged still appears.
    """

    def keep(record: logging.LogRecord) -> bool:
        return "initialized randomly" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)
