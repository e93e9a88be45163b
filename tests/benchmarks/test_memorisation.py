"""Memorisation: copies of private records are found."""

from __future__ import annotations

import numpy as np
import torch
from metric_tools import captions_of, prepared, tensor
from scipy.spatial import cKDTree

from benchmarks.features.pixels import Pixels
from benchmarks.metrics.memorisation import Memorisation, nearest
from wavedp.data.schema import Records


def test_nearest_distances_agree_with_a_tree_and_are_zero_for_copies() -> None:
    draws = np.random.default_rng(0)
    rows, others = draws.standard_normal((30, 5)) + 100, draws.standard_normal((50, 5)) + 100
    rows[3] = others[7]
    found = nearest(*(torch.from_numpy(x).float() for x in (rows, others)))
    np.testing.assert_allclose(found, cKDTree(others).query(rows)[0], atol=1e-4)
    assert found[3] == 0


def test_copies_of_private_records_are_found_and_strangers_are_not(faces: Records) -> None:
    private, unseen, fresh = faces.slice(0, 80), faces.slice(80, 140), faces.slice(140, 200)
    metric = prepared(Memorisation(Pixels()), unseen, private)
    assert isinstance(metric, Memorisation)
    scores = {}
    for what, records in (("fresh", fresh), ("copies", private)):
        metric.update(tensor(records), captions_of(records))
        scores[what] = metric.compute()
    assert scores["copies"] == {"distance": 0.0, "closer": 1.0}
    assert isinstance(scores["fresh"], dict)
    assert scores["fresh"]["distance"] > 0.05
    assert scores["fresh"]["closer"] < 0.2
