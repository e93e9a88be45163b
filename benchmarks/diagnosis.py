"""From what was seen of every image to findings: the part of the doctor that judges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from wavedp.data.duplicates import Pairs, exact_pairs, near_pairs
from wavedp.data.examination import Examined, examine
from wavedp.data.findings import Finding, Kind
from wavedp.data.photos import EVALUATION, PRIVATE, PUBLIC, Photo, PhotoFolder
from wavedp.dp.progress import Progress


@dataclass(frozen=True)
class Examination:
    """One side of a data set with all that was seen of it."""

    folder: PhotoFolder
    side: str
    photos: Sequence[Photo]
    seen: Examined
    damaged_cache: bool

    @classmethod
    def of(
        cls, folder: PhotoFolder, side: str, photos: Sequence[Photo], progress: Progress
    ) -> Examination:
        """Read every image of a side, and its cache where there is one."""
        seen = examine([photo.image for photo in photos], progress, f"examining {side} images")
        cache = folder.cache(side, photos)
        return cls(folder, side, photos, seen, cache.is_built() and cache.damaged(progress))

    def names(self, rows: Sequence[int] | np.ndarray) -> tuple[str, ...]:
        """The files in some rows."""
        return tuple(self.photos[int(row)].file for row in rows)


def diagnose(sides: Sequence[Examination], progress: Progress) -> list[Finding]:
    """What is wrong with the sides one by one, and between them."""
    alone = [finding for side in sides for check in CHECKS for finding in check(side)]
    steps = progress(range(1), "looking for duplicates")
    return alone + [finding for _ in steps for finding in duplicates(sides)]


def damaged_files(side: Examination) -> Iterator[Finding]:
    """Files that are there and cannot be decoded."""
    there = {row for row, photo in enumerate(side.photos) if photo.image.stamp()[0] >= 0}
    rows = sorted(there & side.seen.damaged.keys())
    if rows:
        names = side.names(rows)
        items = tuple(
            f"{name}: {side.seen.damaged[row]}" for name, row in zip(names, rows, strict=True)
        )
        text = (
            f"{len(rows)} of {len(side.photos)} {side.side} images cannot be decoded, the first "
            f"is {items[0]}; the loader refuses them: copy these files again."
        )
        yield Finding(Kind.CORRUPT, side.side, items, text)


def damaged_cache(side: Examination) -> Iterator[Finding]:
    """A cache whose bytes are not those that were written."""
    if side.damaged_cache:
        text = (
            f"The cache of decoded {side.side} images does not have the checksums that were "
            "written with it: python -m benchmarks.prepare builds it anew."
        )
        yield Finding(Kind.CACHE, side.side, (side.folder.name,), text)


def caption_counts(side: Examination) -> Iterator[Finding]:
    """Records with another number of captions than declared; those without any are told apart."""
    declared = side.folder.captions_per_record
    counts = [len(photo.captions) for photo in side.photos]
    rows = [row for row, count in enumerate(counts) if count not in (0, declared)]
    if rows:
        found = Counter(counts[row] for row in rows)
        spread = ", ".join(f"{n} with {count}" for count, n in sorted(found.items()))
        first = side.names(rows[:1])[0]
        text = (
            f"{len(rows)} of {len(side.photos)} {side.side} records do not have the declared "
            f"{declared} captions ({spread}), the first is {first}: longer lists are cut when "
            "used and shorter ones repeated; correct dataset.captions_per_record if it is wrong."
        )
        yield Finding(Kind.CAPTIONS, side.side, side.names(rows), text)


def small_images(side: Examination) -> Iterator[Finding]:
    """Images that have to be enlarged."""
    shorter, resolution = side.seen.sizes.min(axis=1, initial=2**30), side.folder.resolution
    rows = np.flatnonzero(side.seen.sound & (shorter < resolution))
    if len(rows):
        least = int(shorter[rows].min())
        text = (
            f"{len(rows)} of {len(side.photos)} {side.side} images have a side below "
            f"{resolution} px (the smallest has {least}), the first is {side.names(rows[:1])[0]}: "
            "they are enlarged and look blurred; use a lower dataset.resolution or a larger copy."
        )
        yield Finding(Kind.SMALL, side.side, side.names(rows), text)


def grey_images(side: Examination) -> Iterator[Finding]:
    """Images without colour."""
    rows = np.flatnonzero(side.seen.sound & side.seen.grey)
    if len(rows):
        text = (
            f"{len(rows)} of {len(side.photos)} {side.side} images are greyscale, the first is "
            f"{side.names(rows[:1])[0]}: they are used as they are, in three equal channels; "
            "that is right where the published set has them."
        )
        yield Finding(Kind.GREY, side.side, side.names(rows), text)


CHECKS: tuple[Callable[[Examination], Iterator[Finding]], ...] = (
    damaged_files,
    damaged_cache,
    caption_counts,
    small_images,
    grey_images,
)

REMEDY = {
    (PRIVATE, PRIVATE): "a picture that is two records weighs twice, and epsilon is for one of "
    "them; declare another data set without the copies if they should be one",
    (PRIVATE, EVALUATION): "scores would be on training images; take them out of the evaluation "
    "side or say so beside the score",
    (PRIVATE, PUBLIC): "what is public in training is not private; take them out of the public "
    "corpus",
    (EVALUATION, EVALUATION): "they weigh twice in every score; keep one of them",
    (EVALUATION, PUBLIC): "scores would be on images of pretraining; take them out of the public "
    "corpus",
}
"""What to do about a picture that is on two sides. Copies within a public corpus do no harm."""


def duplicates(sides: Sequence[Examination]) -> Iterator[Finding]:
    """Pictures that are the same, exactly or nearly, within a side and between two.

    A picture that is a side's copy of an earlier one is reported as that, and takes no part in the
    search for near ones: a corpus full of one placeholder would have as many pairs as its square.
    """
    bounds = np.cumsum([0, *(len(side.photos) for side in sides)])
    copies = [exact_pairs(side.seen.digests) for side in sides]
    first = [
        np.setdiff1d(np.arange(len(side.photos)), again[:, 1])
        for side, again in zip(sides, copies, strict=True)
    ]
    rows = np.concatenate([own + start for own, start in zip(first, bounds, strict=False)])
    digests = np.concatenate([side.seen.digests for side in sides])
    thumbs = [side.seen.thumbs[own] for side, own in zip(sides, first, strict=True)]
    near = rows[near_pairs(np.concatenate(thumbs))]
    near = near[digests[near[:, 0]] != digests[near[:, 1]]]
    for a, b in combinations_with_replacement(range(len(sides)), 2):
        if (sides[a].side, sides[b].side) in REMEDY:
            exact = copies[a] if a == b else _common(sides[a], sides[b])
            yield from _duplicate(Kind.EXACT, sides[a], sides[b], exact)
            yield from _duplicate(Kind.NEAR, sides[a], sides[b], _between(near, bounds, a, b))


def _common(a: Examination, b: Examination) -> Pairs:
    """Pictures of side ``b`` with the first one of side ``a`` that is the same."""
    bounds = np.array([0, len(a.photos), len(a.photos) + len(b.photos)])
    return _between(exact_pairs(np.concatenate([a.seen.digests, b.seen.digests])), bounds, 0, 1)


def _between(pairs: Pairs, bounds: np.ndarray, a: int, b: int) -> Pairs:
    """The pairs with one picture on side ``a`` and one on ``b``, in rows of those sides."""
    side = np.searchsorted(bounds, pairs, side="right") - 1
    return pairs[(side == (a, b)).all(axis=1)] - bounds[[a, b]]


def _duplicate(kind: Kind, a: Examination, b: Examination, pairs: Pairs) -> Iterator[Finding]:
    if not len(pairs):
        return
    items = tuple(f"{a.photos[i].file} = {b.photos[j].file}" for i, j in pairs.tolist())
    where = f"among the {a.side} images" if a is b else f"of {a.side} and {b.side} images"
    what = "the same, pixel for pixel" if kind is Kind.EXACT else "nearly the same picture"
    noun, what = ("pair", f"is {what}") if len(items) == 1 else ("pairs", f"are {what}")
    text = f"{len(items)} {noun} {where} {what}, the first is {items[0]}: {REMEDY[a.side, b.side]}."
    yield Finding(kind, a.side if a is b else f"{a.side} and {b.side}", items, text)
