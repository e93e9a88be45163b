"""``caption_agreement``: whether samples show the attributes that their captions state.

One logistic regression per attribute, on features of a public network, is fitted to the reference
images and their captions. The samples are scored by the prompts alone, and those come from other
records: the fit has seen neither the prompts nor their images. It reads the evaluation split, so it
is evaluation and not private.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.digest import sha256_of_lines
from benchmarks.evaluation import Evaluation
from benchmarks.features import FeatureSpace
from benchmarks.metrics import Direction, Scores
from benchmarks.metrics.featured import FeatureMetric
from wavedp.data.schema import Records
from wavedp.dp.errors import UserError

ITERATIONS = 200
"""Of L-BFGS at most; the loss is convex, and a few dozen do."""


class Attributes:
    """What captions say of some attributes: 1 stated, 0 not so, NaN nothing.

    Args:
        phrases: by attribute, phrases that state it (``stated``) and phrases that deny it
            (``denied``, optional). Phrases are found as whole words, in any case.

    Raises:
        UserError: an attribute without a phrase that states it, or with an unknown key.
    """

    def __init__(self, phrases: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        for name, lists in phrases.items():
            if not lists.get("stated") or set(lists) - {"stated", "denied"}:
                raise UserError(
                    f"Attribute {name} of caption_agreement needs a list `stated` of phrases and "
                    f"may have a list `denied`; it has {', '.join(map(str, lists)) or 'nothing'}."
                )
        self.names = tuple(phrases)
        self._stated = [_finder(lists["stated"]) for lists in phrases.values()]
        self._denied = [
            _finder(lists["denied"]) if lists.get("denied") else None for lists in phrases.values()
        ]
        plain = {name: {k: list(v) for k, v in lists.items()} for name, lists in phrases.items()}
        self.digest = sha256_of_lines([json.dumps(plain, sort_keys=True)])[:8]

    def __call__(self, captions: Iterable[Sequence[str]]) -> np.ndarray:
        """``[n, attributes]`` of n records, each with all the captions that are given for it."""
        return np.array([self._of(own) for own in captions], dtype=np.float32).reshape(
            -1, len(self.names)
        )

    def _of(self, captions: Sequence[str]) -> list[float]:
        text = "\n".join(captions)
        return [
            1.0 if stated.search(text) else 0.0 if denied is None or denied.search(text) else np.nan
            for stated, denied in zip(self._stated, self._denied, strict=True)
        ]


def _finder(phrases: Sequence[str]) -> re.Pattern[str]:
    words = [r"\s+".join(re.escape(word) for word in phrase.split()) for phrase in phrases]
    return re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE)


class Classifiers:
    """Penalised logistic regressions that share their features; both classes weigh the same.

    Args:
        features: ``[n, d]``.
        labels: ``[n, a]``, 1, 0 or NaN for records that an attribute leaves out. Every attribute
            has both classes.
        penalty: of squared weights, beside the mean loss.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, penalty: float) -> None:
        rows = torch.from_numpy(features).double()
        self._mean, self._scale = rows.mean(0), rows.std(0).clamp(min=1e-6)
        x, y = (rows - self._mean) / self._scale, torch.from_numpy(labels).double()
        known = ~y.isnan()
        positive, negative = known & (y == 1), known & (y == 0)
        share = 0.5 * (positive / positive.sum(0) + negative / negative.sum(0))
        y = y.nan_to_num()
        self._weights = torch.zeros(x.shape[1], y.shape[1], dtype=x.dtype, requires_grad=True)
        self._bias = torch.zeros(y.shape[1], dtype=x.dtype, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [self._weights, self._bias],
            max_iter=ITERATIONS,
            tolerance_grad=1e-9,  # to the optimum, so that nothing depends on the way there
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            logits = x @ self._weights + self._bias
            errors = F.binary_cross_entropy_with_logits(logits, y, share, reduction="sum")
            total = errors + penalty / 2 * self._weights.square().sum()
            total.backward()
            return total

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        self._weights.requires_grad_(False)
        self._bias.requires_grad_(False)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Whether each attribute is seen, ``[n, a]``, 1 or 0."""
        x = (torch.from_numpy(features).double() - self._mean) / self._scale
        seen: np.ndarray = (x @ self._weights + self._bias > 0).float().numpy()
        return seen


class CaptionAgreement(FeatureMetric):
    """Balanced accuracy, averaged over attributes. Higher is better.

    Of an attribute it is the mean of two shares: of samples that show it, among those whose prompts
    state it, and of samples that do not show it, among the others. So 0.5 is what a generator gets
    that does not look at its prompts, whatever it draws. Real images do not reach 1: a prompt does
    not state all that is there, and the classifiers err; what they get stands beside.

    Args:
        space: where images become features.
        attributes: see :class:`Attributes`.
        penalty: of the classifiers' weights.
        records: an attribute is left out unless so many reference images have it by their captions,
            and as many have it not.
    """

    direction: ClassVar[Direction | Mapping[str, Direction]] = "higher"
    needs_text: ClassVar[bool] = True

    def __init__(
        self,
        space: FeatureSpace,
        attributes: Mapping[str, Mapping[str, Sequence[str]]],
        penalty: float = 1.0,
        records: int = 10,
    ) -> None:
        super().__init__(space)
        self._attributes = Attributes(attributes)
        self._penalty, self._records = penalty, records
        self.protocol = (
            "balanced accuracy of attributes that prompts state, mean over those of "
            f"{', '.join(self._attributes.names)} (phrases {self._attributes.digest}) with "
            f"{records} reference images each way; seen by logistic regression (penalty "
            f"{penalty:g}) that is fitted to the reference images and all their captions, which "
            f"are of other records than the prompts, on {space.label}; 0.5 where prompts are "
            "ignored"
        )

    def lacks(self, evaluation: Evaluation) -> str:
        """See :class:`benchmarks.metrics.Metric`."""
        if evaluation.overlapping:
            return (
                f"protocol {evaluation.protocol.name} takes all evaluation records for the "
                "reference, so the classifiers would be fitted to what samples are scored by; "
                "choose a protocol that keeps them apart, such as suite.protocol=quick"
            )
        known = self._known(evaluation.reference)
        # Also for real images, which are scored on the first prompts.
        prompts = evaluation.prompts[: len(evaluation.held)]
        stated = self._attributes((prompt,) for prompt in prompts)
        if not (known & (stated == 1).any(0) & (stated == 0).any(0)).any():
            return (
                f"of no attribute do captions tell {self._records} reference images that have it "
                "and as many that have it not, and prompts both; give lists for these captions in "
                "the metric's config, or take more evaluation records"
            )
        return ""

    def prepare(self, reference: Records) -> None:
        """See :class:`Metric`."""
        self._chosen = self._known(reference)
        labels = self._attributes(reference.captions)[:, self._chosen]
        self._see = Classifiers(self.reference_features(reference), labels, self._penalty)

    def describe(
        self, images: Tensor, captions: Sequence[str], real: Tensor | None = None
    ) -> np.ndarray:
        """See :class:`Metric`: what the prompt states and what is seen, ``[b, 2 a]``."""
        del real
        stated = self._attributes((caption,) for caption in captions)[:, self._chosen]
        return np.concatenate([stated, self._see(self.space(images))], 1)

    def score(self, rows: np.ndarray) -> Scores:
        """See :class:`Metric`; of attributes that some prompts state and others do not."""
        stated, seen = np.split(rows.astype(np.float64), 2, axis=1)
        # Means over nothing are NaN, which is meant and left out.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            hits = np.nanmean(np.where(stated == 1, seen, np.nan), 0)
            spared = np.nanmean(np.where(stated == 0, 1 - seen, np.nan), 0)
            return float(np.nanmean((hits + spared) / 2))

    def _known(self, reference: Records) -> np.ndarray:
        """The attributes that the reference tells enough of, ``[a]``."""
        labels = self._attributes(reference.captions)
        counts = np.minimum((labels == 1).sum(0), (labels == 0).sum(0))
        known: np.ndarray = counts >= self._records
        return known
