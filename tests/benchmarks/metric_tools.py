"""Metrics as their configs make them, with their sides, for the tests of single metrics."""

from __future__ import annotations

import fake_weights
import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from benchmarks.config import load_choice, make
from benchmarks.metrics import Metric
from wavedp.data.schema import Records
from wavedp.dp.private import PrivateRecords

CPU = torch.device("cpu")


def metric_of(name: str) -> Metric:
    """A metric as its config makes it, with the small CLIP in the place of the large one."""
    config = load_choice("metric", name)
    if "model" in config:
        config = OmegaConf.merge(config, {"model": fake_weights.CLIP})
    metric: Metric = make(config)
    metric.open(CPU)
    return metric


def prepared(metric: Metric, reference: Records, private: Records) -> Metric:
    """With statistics of the reference and, if it reads them, of the private records."""
    metric.prepare(reference)
    if metric.reads == "private":
        columns = {"images": private.images, "captions": list(private.captions)}
        metric.prepare_private(PrivateRecords(columns, name="p", records=len(private)))
    return metric


def tensor(records: Records) -> Tensor:
    """The images, uint8 ``[n, 3, H, W]``."""
    return torch.from_numpy(np.array(records.images))


def captions_of(records: Records) -> list[str]:
    """The first caption of each record."""
    return [own[0] for own in records.captions]
