"""The scorer: a data set's evaluation side with its metrics, prepared once for all cells."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.config import load_choice, make
from benchmarks.console import console, track
from benchmarks.evaluation import QUICK, Evaluation, make_evaluation
from benchmarks.metrics import Metric, directions, named
from benchmarks.protocol import Protocol
from benchmarks.record import MetricValue, NotComputed
from benchmarks.registry import Unavailable, digest_of, find
from wavedp.data.schema import Dataset
from wavedp.dp.errors import UserError

CPU = torch.device("cpu")


def check_metrics(names: Sequence[str]) -> None:
    """Look at everything of some metrics that can be wrong, before any work starts.

    Weights that are missing or not pinned are not wrong: their metric is reported as not computed.

    Raises:
        UserError: an unknown metric or argument, or a file of weights is not the registered one.
    """
    for name in names:
        for weights in make(load_choice("metric", name)).weights:
            with contextlib.suppress(Unavailable):
                find(weights)


@dataclass
class Scorer:
    """Evaluation and metrics of one data set."""

    evaluation: Evaluation
    metrics: dict[str, Metric]
    real: dict[str, float] = field(default_factory=dict)
    """What real held-out images score: the floor of a distance, the ceiling of an agreement.
    Without an entry where that would compare images with themselves."""
    unopened: dict[str, tuple[Metric, str]] = field(default_factory=dict)
    """Metrics that cannot be computed on this machine or of such data, and why."""
    private_records: int = 0

    @classmethod
    def make(
        cls,
        dataset: Dataset,
        names: Sequence[str],
        samples: int,
        protocol: Protocol = QUICK,
        device: torch.device = CPU,
    ) -> Scorer:
        """Take reference statistics and score the held-out real images.

        A metric whose weights are not here, or not pinned, or that says nothing of such data, is
        left out: see :meth:`missing`.

        Raises:
            UserError: too few samples or reference images for a metric, or damaged weights.
        """
        evaluation = make_evaluation(dataset, samples, protocol)
        scorer = cls(evaluation, {}, private_records=dataset.private_records)
        for name in names:
            scorer._open(name, make(load_choice("metric", name)), device)
        for name in track(list(scorer.metrics), f"{dataset.name}: reference statistics"):
            metric = scorer.metrics[name]
            metric.prepare(evaluation.reference)
            if metric.reads == "private":
                metric.prepare_private(dataset.private())
        scorer._score_real()
        return scorer

    def missing(self, conditioning: str) -> dict[str, NotComputed]:
        """Scores that cannot be computed on this machine or of such data, and why.

        Args:
            conditioning: of the method; what says nothing of it is not missing.
        """
        return {
            part: NotComputed(reason=reason, direction=direction)
            for name, (metric, reason) in self.unopened.items()
            if metric.applies_to(conditioning)
            for part, direction in directions(name, metric).items()
        }

    def score(self, batches: Iterable[Tensor], captions: tuple[str, ...]) -> dict[str, float]:
        """Every metric on batches of images drawn for ``captions``, in order."""
        return {name: value for name, (value, _) in self._scores(batches, captions)[0].items()}

    def values(
        self,
        batches: Iterable[Tensor],
        captions: tuple[str, ...],
        conditioning: str,
        names: Iterable[str] | None = None,
    ) -> dict[str, MetricValue]:
        """Scores as records keep them; caption agreement only for text-conditional methods.

        Args:
            batches: sized; gone through once, so they may be read from disk as they come.
            names: metrics, of those that are open; None is all.
        """
        chosen = [
            name
            for name in (self.metrics if names is None else names)
            if self.metrics[name].applies_to(conditioning)
        ]
        scores, count = self._scores(batches, captions, chosen, errors=True)
        values = {}
        for name in chosen:
            metric = self.metrics[name]
            ruler = ruler_of(metric, self.evaluation, self.private_records)
            for part, direction in directions(name, metric).items():
                value, error = scores[part]
                values[part] = MetricValue(
                    value=value,
                    direction=direction,
                    n_samples=count,
                    n_reference=ruler.n_reference,
                    floor=self.real.get(part),
                    protocol=ruler.protocol,
                    reads=metric.reads,
                    reads_private=metric.reads == "private",
                    unlike=metric.unlike,
                    standard_error=error,
                    weights=ruler.weights,
                )
        return values

    def _open(self, name: str, metric: Metric, device: torch.device) -> None:
        samples, reference = len(self.evaluation.prompts), len(self.evaluation.reference)
        if min(samples, reference) < metric.least:
            raise UserError(
                f"Metric {name} needs at least {metric.least} samples and reference images, and "
                f"there are {samples} and {reference}; raise suite.samples or leave it out."
            )
        reason = metric.lacks(self.evaluation)
        if not reason:
            try:
                metric.open(device)
            except Unavailable as error:
                reason = str(error)
        if reason:
            console.print(f"{name} not computed: {reason}", soft_wrap=True)
            self.unopened[name] = metric, reason
            return
        self.metrics[name] = metric

    def _score_real(self) -> None:
        chosen = [
            name
            for name, metric in self.metrics.items()
            if not metric.paired
            and not (self.evaluation.overlapping and metric.reads == "evaluation")
        ]
        captions = self.evaluation.prompts[: len(self.evaluation.held)]
        scores, _ = self._scores(self.evaluation.held_images, captions, chosen)
        self.real = {name: value for name, (value, _) in scores.items()}

    def _scores(
        self,
        batches: Iterable[Tensor],
        captions: tuple[str, ...],
        names: Sequence[str] | None = None,
        errors: bool = False,
    ) -> tuple[dict[str, tuple[float, float | None]], int]:
        """Value and, if asked for, standard error of every number; and how many images."""
        chosen = {name: self.metrics[name] for name in (self.metrics if names is None else names)}
        for metric in chosen.values():
            metric.forget()
        count = 0
        # Batches outside: metrics that share a network find the features of the batch there.
        for images in track(batches, "scoring") if chosen else ():
            part = slice(count, count + len(images))
            for metric in chosen.values():
                real = self.evaluation.real(part) if metric.paired else None
                metric.update(images, captions[part], real)
            count = part.stop
        found: dict[str, tuple[float, float | None]] = {}
        for name, metric in chosen.items():
            rows = metric.take()
            spread = named(name, metric.standard_error(rows)) if errors else {}
            for key, value in named(name, metric.score(rows)).items():
                error = spread.get(key, math.nan)
                found[key] = (value, error if math.isfinite(error) else None)
        return found, count


@dataclass(frozen=True)
class Ruler:
    """What two scores of one name must have in common to stand in one column.

    Attributes:
        protocol: the metric's sentence.
        n_reference: how many real images it compares with; None if it reads none.
        weights: of its networks, by name in the registry, as SHA-256.
    """

    protocol: str
    n_reference: int | None
    weights: dict[str, str]

    def took(self, score: MetricValue) -> bool:
        """Whether a recorded score was taken by it."""
        return self == Ruler(score.protocol, score.n_reference, score.weights)


def ruler_of(metric: Metric, evaluation: Evaluation, private_records: int) -> Ruler:
    """How a metric measures now, on this machine; nothing of it needs to be open.

    Raises:
        Unavailable: its weights are not here, or not pinned.
    """
    counts = {"evaluation": len(evaluation.reference), "private": private_records}
    weights = {name: digest_of(find(name)) for name in metric.weights}
    return Ruler(metric.protocol, counts.get(metric.reads), weights)
