"""Hand-built records, for the tests of the report."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.record import (
    Cost,
    Hardware,
    MetricValue,
    Privacy,
    Provenance,
    Query,
    Record,
)

INF = math.inf
EVIL = '<script>alert("x")</script> | a\x1b[31m`b`'
ROWS: list[tuple[str, float | None, float]] = [
    ("pretrained", 0.0, 60.0),
    ("private", 1.0, 25.0),
    ("private", 10.0, 12.0),
    ("non_private", INF, 9.0),
    ("oracle", None, 6.0),
]


def scores(fd: float) -> dict[str, MetricValue]:
    """Both embedded metrics, the second a falling function of the first."""
    return {
        "fd_toy": MetricValue(
            value=fd,
            direction="lower",
            n_samples=500,
            n_reference=400,
            floor=1.0,
            protocol="p",
            reads="evaluation",
            unlike="FID",
        ),
        "clip_toy": MetricValue(
            value=0.3 - 0.002 * fd,
            direction="higher",
            n_samples=200,
            floor=0.31,
            protocol="p",
            reads="nothing",
            unlike="CLIP score",
        ),
    }


def privacy(row: str, epsilon: float | None, **changes: Any) -> Privacy:
    """The privacy part of a row; a private one has a plan, a query and a spent epsilon."""
    if row != "private" or epsilon is None:
        fields: dict[str, Any] = {"epsilon_spent": epsilon, "delta": None, "relation": None}
        fields["accountant"] = None
    else:
        fields = {
            "epsilon_spent": epsilon * 0.999,
            "delta": 1e-5,
            "relation": "add_or_remove_one",
            "accountant": "pld",
            "sampling": "poisson",
            "sampling_probability": 0.064,
            "noise_multiplier": 1.2345678,
            "clip": 1.0,
            "expected_batch": 256,
            "steps": 200,
            "queries": [Query(sampling_probability=0.064, noise_multiplier=1.2345678, count=200)],
        }
    return Privacy(**({"epsilon_target": epsilon, "records": 4000} | fields | changes))


def record(
    method: str = "dp_wavelet",
    row: str = "private",
    epsilon: float | None = 1.0,
    fd: float = 25.0,
    seed: int = 0,
    dataset: str = "toy_shapes",
    reason: str | None = None,
    spent: dict[str, Any] | None = None,
) -> Record:
    """One cell; it failed if a reason is given."""
    cell = f"{dataset}-{method}-{row}-{epsilon}-{seed}"
    return Record(
        cell=cell,
        suite="embedded",
        dataset=dataset,
        dataset_version="1",
        resolution=8,
        method=method,
        row=row,  # type: ignore[arg-type]
        seed=seed,
        status="failed" if reason else "ok",
        reason=reason,
        privacy=privacy(row, epsilon, **(spent or {})),
        metrics={} if reason else scores(fd),
        cost=Cost()
        if reason
        else Cost(
            train_seconds=40.0,
            train_examples_per_s=1280.0,
            sample_images_per_s=220.0,
            peak_memory_mb=900.0,
        ),
        provenance=Provenance(
            code_revision="0123abc",
            wavedp_version="0.1.0",
            torch_version="2.9.0",
            python_version="3.11.9",
            weights={"tokenizer": "ab" * 32},
            created="2026-01-01T00:00:00Z",
        ),
        hardware=Hardware(device="cpu", processor="a processor", threads=2, memory_gb=7.8),
        config={},
        samples=None if reason else f"samples/{cell}.png",
    )


def grid_of_records() -> list[Record]:
    """Two datasets, two methods, five rows (the oracle for one method), two seeds, a failure."""
    found = []
    for dataset in ("toy_shapes", "toy_faces"):
        for place, method in enumerate(("dp_wavelet", "dp_full_finetune")):
            for row, epsilon, fd in ROWS[: 5 - place]:
                for seed in (1, 0):
                    fails = dataset == "toy_faces" and place == 1 and epsilon == 10.0
                    score = fd + 2 * place + seed
                    reason = EVIL if fails else None
                    found.append(record(method, row, epsilon, score, seed, dataset, reason))
    return found
