"""Releases other than DP-SGD: noisy sums and noisy histograms over sealed records.

The Gaussian mechanism (Dwork and Roth 2014, appendix A) on a bounded sum, on all records or on a
Poisson sample of them. Each record's part is bounded here, not by the caller, and the ledger is
charged before the noisy result exists. The un-noised sum never leaves this file.

Shapes: b records of a chunk, k numbers per record.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavedp.dp.accounting import Event
from wavedp.dp.distributed import World
from wavedp.dp.errors import UserError
from wavedp.dp.ledger import Ledger
from wavedp.dp.noise import GaussianNoise
from wavedp.dp.private import Columns, PrivateRecords, open_columns
from wavedp.dp.randomness import Stream
from wavedp.dp.sampling import PoissonBatches

PerRecordTensor = Callable[[Columns], Tensor]
"""From columns of b records to a tensor with one row, or one number, per record.

It must treat every record on its own and must not learn. It runs without gradients.
"""


def noisy_sum(
    private: PrivateRecords,
    vectors: PerRecordTensor,
    *,
    size: int,
    clip: float,
    noise_multiplier: float,
    ledger: Ledger,
    what: str = "noisy sum",
    sampling_probability: float = 1.0,
    device: torch.device | str = "cpu",
    chunk: int = 512,
    noise_seed: int | None = None,
    sampling_seed: int | None = None,
) -> Tensor:
    """Release ``sum_i min(1, C / |v_i|) v_i + N(0, (sigma C)^2)``, norms in L2.

    Adding or removing one record moves the sum by at most C (up to rounding in float64), so the
    release is one Gaussian mechanism with noise multiplier sigma on a Poisson sample with
    probability q: the :class:`~wavedp.dp.accounting.Event` that is charged. The sum is over the
    sample; divide by ``q * private.records`` for an estimate of the mean.

    Args:
        private: the records.
        vectors: from columns of b records (tensors on ``device``, arrays and lists as they are)
            to ``[b, k]``. A row that is not finite counts as zero.
        size: k. Public, since an empty sample must be released like any other.
        clip: C, positive, in the units of the vectors.
        noise_multiplier: sigma; 0 adds no noise, which only an infinite budget allows.
        ledger: charged once. To know beforehand that many releases fit, ``reserve`` them there.
            A function that fails costs nothing.
        what: the query's name in the ledger.
        sampling_probability: q in (0, 1]; 1 means that every record takes part.
        device: where to compute.
        chunk: how many records at a time; memory, not the result, depends on it.
        noise_seed, sampling_seed: by default from the operating system. A given seed makes the
            release reproducible and its noise removable, and must not be given twice with the same
            ``what``, which would draw the same noise.

    Returns:
        float64 ``[k]`` on ``device``.

    Raises:
        UserError: an argument is out of range, the function does not return ``[b, k]``, or the
            ledger's target would be passed. Nothing is released then.
    """

    query = Query(
        what, size, clip, Event(sampling_probability, noise_multiplier), torch.device(device), chunk
    )
    noise, sample = query.streams(noise_seed, sampling_seed)
    return query.release(private, query.of_vectors(vectors), ledger, noise, sample)


def noisy_histogram(
    private: PrivateRecords,
    votes: PerRecordTensor,
    *,
    bins: int,
    noise_multiplier: float,
    ledger: Ledger,
    clip: float = 1.0,
    what: str = "noisy histogram",
    sampling_probability: float = 1.0,
    device: torch.device | str = "cpu",
    chunk: int = 512,
    noise_seed: int | None = None,
    sampling_seed: int | None = None,
) -> Tensor:
    """Release how many records fall into each bin, with noise of sigma C in every bin.

    One record changes one count by 1; or, with votes, all counts by its votes, clipped to C in
    the L2 norm. So it is a :func:`noisy_sum` of votes, and costs the same. Counts are real numbers
    and can be negative: rounding or thresholding them is free.

    Args:
        private: the records.
        votes: from columns of b records to integers ``[b]``, the bin of each record, or to
            floating point ``[b, bins]``, its votes. A bin outside ``0..bins - 1`` counts nowhere,
            so -1 abstains; votes that are not finite count as none.
        bins: how many, public.
        noise_multiplier: sigma; 0 adds no noise, which only an infinite budget allows.
        ledger: charged once, see :func:`noisy_sum`.
        clip: C, positive; 1 is right for bins, each of which counts ``min(1, C)``.
        what, sampling_probability, device, chunk, noise_seed, sampling_seed: see
            :func:`noisy_sum`.

    Returns:
        float64 ``[bins]`` on ``device``.

    Raises:
        UserError: see :func:`noisy_sum`.
    """

    query = Query(
        what, bins, clip, Event(sampling_probability, noise_multiplier), torch.device(device), chunk
    )
    noise, sample = query.streams(noise_seed, sampling_seed)
    return query.release(private, query.of_votes(votes), ledger, noise, sample)


Contribution = Callable[[Columns, int], Tensor]
"""From columns of b records, and b, to the sum of their bounded parts, float64 ``[k]``."""


@dataclass(frozen=True)
class Query:
    """One Gaussian mechanism: everything about it that is public.

    Attributes:
        what: its name in the ledger.
        size: k.
        clip: C. Infinite only without noise, where nothing has to be bounded.
        event: q and sigma.
    """

    what: str
    size: int
    clip: float
    event: Event
    device: torch.device
    chunk: int

    def __post_init__(self) -> None:
        q, sigma = self.event.sampling_probability, self.event.noise_multiplier
        if self.size < 1 or self.chunk < 1:
            raise UserError(
                f"{self.what}: the size of the result and the chunk must be at least 1, got "
                f"{self.size} and {self.chunk}."
            )
        if not (0 < self.clip < math.inf or (self.clip == math.inf and sigma == 0)):
            raise UserError(
                f"{self.what}: clip must be positive and finite, got {self.clip}; "
                "choose a bound on one record's norm without looking at private records."
            )
        if not 0 <= sigma < math.inf:
            raise UserError(
                f"{self.what}: the noise multiplier must be finite and not negative, got {sigma}; "
                "calibrate gives the one that fits a budget."
            )
        if not 0 < q <= 1:
            raise UserError(
                f"{self.what}: the sampling probability must lie in (0, 1], got {q}; "
                "use 1 for all records."
            )

    def of_vectors(self, vectors: PerRecordTensor) -> Contribution:
        """Rows ``[b, k]``, clipped to C: see :func:`noisy_sum`."""

        def contribution(rows: Columns, count: int) -> Tensor:
            found = vectors(rows)
            if not isinstance(found, Tensor) or found.shape != (count, self.size):
                raise UserError(
                    f"{self.what}: the function must return one row of {self.size} numbers per "
                    f"record, a tensor [b, {self.size}]; return one, or change size."
                )
            return _clipped_sum(found, self.clip)

        return contribution

    def of_votes(self, votes: PerRecordTensor) -> Contribution:
        """Bins or votes of records, each counted up to C: see :func:`noisy_histogram`."""

        def contribution(rows: Columns, count: int) -> Tensor:
            found = votes(rows)
            if isinstance(found, Tensor) and found.is_floating_point():
                if found.shape == (count, self.size):
                    return _clipped_sum(found, self.clip)
            elif isinstance(found, Tensor) and not found.is_complex() and found.shape == (count,):
                chosen = found[(found >= 0) & (found < self.size)].long()
                return torch.bincount(chosen, minlength=self.size).double() * min(1.0, self.clip)
            raise UserError(
                f"{self.what}: the function must return one bin per record, integers [b], or its "
                f"votes, floating point [b, {self.size}]; return one of them, or change bins."
            )

        return contribution

    def streams(self, noise_seed: int | None, sampling_seed: int | None) -> tuple[Stream, Stream]:
        """Of the noise and of the sample, from seeds or from the operating system."""
        return (
            Stream.fresh(noise_seed, f"{self.what}, noise"),
            Stream.fresh(sampling_seed, f"{self.what}, sample"),
        )

    def release(
        self,
        private: PrivateRecords,
        contribution: Contribution,
        ledger: Ledger,
        noise: Stream,
        sample: Stream,
        step: int = 0,
        replay: bool = False,
    ) -> Tensor:
        """The sum of bounded contributions of the sampled records, charged and noised.

        Under ``torchrun`` the first rank makes the release and gives it to the others: one query,
        one result.

        Args:
            noise, sample: where noise and sample come from; ``step`` chooses among their draws.
            replay: whether this process goes on where another one was killed, which may have paid
                for this query, see :meth:`Ledger.charge`.
        """
        if not isinstance(private, PrivateRecords):
            raise UserError(f"{self.what}: it needs PrivateRecords; sum public records directly.")
        world = World.current()
        released: Tensor | None = None
        refused: str | None = None
        if world.leads:
            try:
                total = self._sum(open_columns(private), contribution, sample, step)
                ledger.charge(self.event, self.what, noise.tag(step), replay=replay)
                sigma = self.event.noise_multiplier
                std = sigma * self.clip if sigma else 0.0  # the clip may be infinite then
                GaussianNoise(std, noise).add_to({"sum": total}, step)
                released = total.cpu()
            except UserError as error:
                refused = str(error)
        released, refused = world.agreed((released, refused))
        if released is None:
            raise UserError(refused)
        if not world.leads:
            ledger.charge(self.event, self.what, noise.tag(step), replay=replay)
        return released.to(self.device)

    def _sum(
        self, columns: Columns, contribution: Contribution, sample: Stream, step: int
    ) -> Tensor:
        total = torch.zeros(self.size, dtype=torch.float64, device=self.device)
        index = self._rows(len(next(iter(columns.values()))), sample, step)
        with torch.no_grad():
            for start in range(0, len(index), self.chunk):
                part = index[start : start + self.chunk]
                rows = {name: self._take(values, part) for name, values in columns.items()}
                total += contribution(rows, len(part)).to(self.device)
        return total

    def _rows(self, records: int, sample: Stream, step: int) -> np.ndarray:
        """Rows that take part, in order, so that memory-mapped columns are read forwards."""
        if self.event.sampling_probability == 1:
            return np.arange(records)
        batches = PoissonBatches(records, self.event.sampling_probability, sample)
        return np.sort(batches.at(step))

    def _take(self, values: Any, index: np.ndarray) -> Any:
        if isinstance(values, Tensor):
            return values[torch.from_numpy(index)].to(self.device)
        if isinstance(values, np.ndarray):
            return values[index]
        return [values[row] for row in index.tolist()]


def _clipped_sum(vectors: Tensor, clip: float) -> Tensor:
    """``sum_i min(1, C / |v_i|) v_i`` of the finite rows of ``[b, k]``, in float64.

    float64 because the bound must hold for a sum over many records: in float32 the rounding of a
    large sum would move by more than a small C.
    """
    vectors = vectors.to(torch.float64)
    vectors = vectors.where(vectors.isfinite().all(dim=1, keepdim=True), 0.0)
    norms = torch.linalg.vector_norm(vectors, dim=1)
    factors = (clip / norms).clamp_max(1.0)  # 1 at norm zero
    return factors @ vectors
