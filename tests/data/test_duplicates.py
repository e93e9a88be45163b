"""The search for duplicates, against brute force and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavedp.data.duplicates import (
    BITS,
    close_pairs,
    difference_hash,
    distance,
    exact_pairs,
    near_pairs,
)


def brute_force(codes: np.ndarray, bits: int) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i in range(len(codes))
        for j in range(i + 1, len(codes))
        if bin(int(codes[i]) ^ int(codes[j])).count("1") <= bits
    }


def found(codes: np.ndarray, bits: int) -> set[tuple[int, int]]:
    rows = [pair for part in close_pairs(codes, bits) for pair in part.tolist()]
    return {(min(pair), max(pair)) for pair in rows}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40), st.integers(0, 9), st.integers(1, 64))
def test_no_close_pair_is_missed(seed: int, count: int, bits: int, spread: int) -> None:
    """Codes around a few centres, with flips anywhere."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**63, 3, dtype=np.uint64)
    codes = rng.choice(centres, count)
    for _ in range(rng.integers(0, 10)):
        flips = rng.integers(0, spread, count).astype(np.uint64)
        codes = codes ^ (np.uint64(1) << flips) * rng.integers(0, 2, count).astype(np.uint64)
    assert found(codes, bits) == brute_force(codes, bits)


def test_distance_by_hand() -> None:
    a = np.array([0, 0b1011, 2**64 - 1], np.uint64)
    b = np.array([0, 0b0001, 0], np.uint64)
    assert distance(a, b).tolist() == [0, 2, 64]


def test_the_hash_says_where_the_left_neighbour_is_brighter() -> None:
    """A ramp that darkens to the right sets all bits, one that brightens none."""
    ramp = np.repeat(np.arange(18, dtype=np.uint8)[::-1, None] * 10, 3, axis=1)
    dark = np.broadcast_to(ramp, (16, 18, 3))
    both = np.stack([dark, dark[:, ::-1]])
    assert difference_hash(both).tolist() == [2**64 - 1, 0]
    half = dark.copy()
    half[:2] = half[:2, ::-1]  # the first row of cells
    assert distance(difference_hash(half[None]), difference_hash(dark[None])).tolist() == [8]


def test_exact_pairs_by_hand() -> None:
    digests = np.array([b"a", b"", b"b", b"a", b"", b"a"])
    assert exact_pairs(digests).tolist() == [[0, 3], [0, 5]]
    assert exact_pairs(digests[:0]).tolist() == []


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 1, 16, 18, 3), dtype=np.uint8)


def test_a_changed_copy_is_near_and_another_colour_is_not() -> None:
    thumbs = pictures(4)
    thumbs[2] = np.clip(thumbs[0].astype(int) + 4, 0, 255)
    assert near_pairs(thumbs).tolist() == [[0, 2]]
    thumbs[2] = thumbs[0] // 2  # the same hash, but half as bright
    assert distance(*(difference_hash(thumbs[i]) for i in (0, 2))).item() <= BITS
    assert near_pairs(thumbs).tolist() == []


def test_any_view_of_one_may_match_any_of_the_other() -> None:
    views = np.concatenate([pictures(6), np.zeros_like(pictures(6))], axis=1)
    views[3, 1] = views[5, 0]
    views[4, 1] = views[4, 0]  # its own views do not make a pair
    assert near_pairs(views).tolist() == [[3, 5]]


@pytest.mark.parametrize("count", [0, 1])
def test_few_pictures_have_no_pairs(count: int) -> None:
    assert near_pairs(pictures(count)).shape == (0, 2)


def test_flat_pictures_have_no_hash() -> None:
    assert near_pairs(np.full((5, 1, 16, 18, 3), 200, np.uint8)).tolist() == []
