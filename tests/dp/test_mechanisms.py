"""Noisy sums and histograms: bounded per record, charged before they exist, noised."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wavedp.dp import Budget, Ledger, PrivateRecords, UserError, mechanisms
from wavedp.dp import noisy_histogram as histogram
from wavedp.dp import noisy_sum as total
from wavedp.dp.accounting import Event, epsilon_of

ANY = Budget(math.inf, 1e-5)


def sealed(rows, **more):
    return PrivateRecords({"x": rows, **more}, name="toy", records=100)


def x(rows):
    return rows["x"]


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.jsonl", ANY)


class Free:
    """Charges nothing: for properties over many releases, where fsync would take the time."""

    def charge(self, event, what, noise=None, *, replay=False):
        pass


def test_a_sum_by_hand(ledger):
    """Norms 5, 2 and 0 clipped to 2: (3, 4) * 2/5 + (0, 2) + (0, 0) = (1.2, 3.6)."""
    rows = torch.tensor([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])
    found = total(sealed(rows), x, size=2, clip=2.0, noise_multiplier=0.0, ledger=ledger)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.tensor([1.2, 3.6], dtype=torch.float64))


def test_histograms_by_hand(ledger):
    """Bins; then votes (0.6, 0.8, 0), (3, 0, 4) clipped to norm 1, and a NaN counted as none."""
    bins = torch.tensor([2, 0, 2, -1, 3, 2])
    found = histogram(sealed(bins), x, bins=3, noise_multiplier=0.0, ledger=ledger)
    assert found.tolist() == [1, 0, 3]
    votes = torch.tensor([[0.6, 0.8, 0.0], [3.0, 0.0, 4.0], [1.0, 0.0, math.nan]])
    found = histogram(sealed(votes), x, bins=3, noise_multiplier=0.0, ledger=ledger)
    torch.testing.assert_close(found, torch.tensor([1.2, 0.8, 0.8], dtype=torch.float64))
    found = histogram(sealed(votes), x, bins=3, clip=5.0, noise_multiplier=0.0, ledger=ledger)
    torch.testing.assert_close(found, torch.tensor([3.6, 0.8, 4.0], dtype=torch.float64))


NUMBER = st.one_of(
    st.floats(-10, 10, width=32), st.sampled_from([math.nan, math.inf, -math.inf, 3e38, 1e-45])
)
ROWS = st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, clip=st.sampled_from([1e-3, 1.0, 7.0]), data=st.data())
def test_one_record_moves_a_sum_by_at_most_its_bound(rows, clip, data):
    """The same noise twice, so that the difference is the record's own part."""
    without = [*rows]
    without.pop(data.draw(st.integers(0, len(rows) - 1)))

    def release(part, votes):
        private = sealed(torch.tensor(part, dtype=torch.float32).view(-1, 3))
        fixed = {"noise_multiplier": 1.5, "ledger": Free(), "clip": clip, "noise_seed": 3}
        if votes:
            return histogram(private, x, bins=3, **fixed)
        return total(private, x, size=3, chunk=2, **fixed)

    for votes in (False, True):
        moved = release(rows, votes) - release(without, votes)
        assert moved.norm() <= clip * (1 + 1e-6) + 1e-12


@settings(max_examples=100, deadline=None)
@given(bins=st.lists(st.integers(-2, 5), min_size=1, max_size=8), data=st.data())
def test_one_record_changes_one_count_by_at_most_one(bins, data):
    without = [*bins]
    gone = without.pop(data.draw(st.integers(0, len(bins) - 1)))
    with_it, without_it = (
        histogram(
            sealed(torch.tensor(part, dtype=torch.int64)),
            x,
            bins=4,
            noise_multiplier=1.0,
            ledger=Free(),
            noise_seed=3,
        )
        for part in (bins, without)
    )
    expected = [float(gone == place) for place in range(4)]
    assert (with_it - without_it).tolist() == pytest.approx(expected, abs=1e-9)


def test_a_large_sum_still_moves_by_the_small_bound():
    """In float32, adding 1e-3 to 40,000 would change nothing or too much."""
    rows = torch.cat([torch.ones(40_000, 1), torch.full((1, 1), 1e-3)])
    ends = [
        total(sealed(part), x, size=1, clip=1.0, noise_multiplier=1.0, ledger=Free(), noise_seed=0)
        for part in (rows, rows[:-1])
    ]
    assert (ends[0] - ends[1]).item() == pytest.approx(1e-3, rel=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_record_that_is_not_finite_counts_as_zero(bad, ledger):
    rows = torch.tensor([[1.0, 1.0], [bad, 0.5], [0.5, 0.0]])
    found = total(sealed(rows), x, size=2, clip=9.0, noise_multiplier=0.0, ledger=ledger)
    assert found.tolist() == [1.5, 1.0]


@pytest.mark.parametrize("sigma_and_clip", [(3.0, 0.5), (0.7, 4.0)])
@pytest.mark.parametrize("q", [1.0, 1e-9], ids=["all records", "empty sample"])
def test_noise_has_the_deviation_that_is_accounted_for(sigma_and_clip, q, ledger):
    """An empty sample is released like any other: k numbers of noise."""
    sigma, clip = sigma_and_clip
    private, size = sealed(torch.zeros(3, 40_000)), 40_000
    options = {"noise_multiplier": sigma, "clip": clip, "sampling_probability": q}
    for noise in (
        total(private, x, size=size, ledger=ledger, **options),
        histogram(private, x, bins=size, ledger=ledger, **options),
    ):
        # Four standard errors of a mean and of a standard deviation.
        assert abs(noise.mean()) < 4 * sigma * clip / size**0.5
        assert noise.std().item() == pytest.approx(sigma * clip, rel=4 / (2 * size) ** 0.5)


def test_noise_is_fresh_unless_a_seed_is_given():
    fixed = {"size": 4, "clip": 1.0, "noise_multiplier": 1.0, "ledger": Free()}
    private = sealed(torch.zeros(3, 4))
    assert not torch.equal(total(private, x, **fixed), total(private, x, **fixed))
    seeded = [total(private, x, **fixed, noise_seed=5) for _ in range(2)]
    assert torch.equal(*seeded)
    assert not torch.equal(seeded[0], total(private, x, **fixed, noise_seed=5, what="another"))


def test_the_same_noise_is_refused_on_the_same_ledger(ledger):
    """Of two releases with one noise, the difference has none."""
    fixed = {"size": 4, "clip": 1.0, "noise_multiplier": 1.0, "ledger": ledger, "noise_seed": 5}
    total(sealed(torch.zeros(3, 4)), x, **fixed)
    with pytest.raises(UserError, match="noise that another one has used"):
        total(sealed(torch.ones(3, 4)), x, **fixed)
    total(sealed(torch.ones(3, 4)), x, **fixed, what="another")


def test_every_record_joins_a_sample_with_probability_q(ledger):
    size, q = 50_000, 0.3
    options = {"bins": size, "noise_multiplier": 0.0, "ledger": ledger, "chunk": 10_000}
    private = sealed(torch.arange(size))
    first, second = (histogram(private, x, sampling_probability=q, **options) for _ in range(2))
    assert set(first.tolist()) == {0.0, 1.0}  # nobody twice
    deviation = math.sqrt(q * (1 - q) / size)
    assert abs(first.mean().item() - q) < 5 * deviation
    assert abs((first * second).mean().item() - q * q) < 5 * deviation  # independently


def test_a_sampling_seed_repeats_the_sample(ledger):
    options = {"bins": 99, "noise_multiplier": 0.0, "ledger": ledger, "sampling_probability": 0.5}
    private = sealed(torch.arange(99))
    same = [histogram(private, x, sampling_seed=1, **options) for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], histogram(private, x, sampling_seed=2, **options))


@pytest.mark.parametrize("q", [1.0, 0.5])
def test_chunks_and_kinds_of_columns_do_not_matter(q, ledger):
    rows = torch.arange(7.0)
    private = sealed(rows, array=rows.numpy() ** 2, words=["a" * k for k in range(7)])
    seen = []

    def vectors(part):
        assert isinstance(part["array"], np.ndarray)
        seen.append(len(part["x"]))
        lengths = torch.tensor([float(len(word)) for word in part["words"]])
        return torch.stack([part["x"], torch.from_numpy(part["array"]), lengths], dim=1)

    options = {"size": 3, "clip": 99.0, "noise_multiplier": 0.0, "ledger": ledger}
    options |= {"sampling_probability": q, "sampling_seed": 1}
    small = total(private, vectors, chunk=3, **options)
    assert max(seen) == 3
    assert torch.equal(small, total(private, vectors, **options))
    assert small[0] == small[2]
    if q == 1:
        assert small.tolist() == [21, 91, 21]


def test_the_function_runs_without_gradients(ledger):
    weight = torch.ones(2, requires_grad=True)
    fixed = {"size": 2, "clip": 1.0, "noise_multiplier": 1.0, "ledger": ledger}
    found = total(sealed(torch.ones(3, 2)), lambda rows: rows["x"] * weight, **fixed)
    assert not found.requires_grad


def test_the_ledger_says_what_was_released(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl", Budget(2.0, 1e-5))
    private = sealed(torch.zeros(5, 2))
    total(private, x, size=2, clip=3.0, noise_multiplier=5.0, ledger=ledger, what="mean latent")
    histogram(private, x, bins=2, noise_multiplier=4.0, ledger=ledger, sampling_probability=0.25)
    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()[1:]]
    assert [line["query"] for line in lines] == ["mean latent", "noisy histogram"]
    both = {Event(1.0, 5.0): 1, Event(0.25, 4.0): 1}
    assert ledger.counts == both
    assert ledger.spent().epsilon == epsilon_of(both, 1e-5)


def test_the_ledger_is_charged_before_there_is_a_noisy_result(ledger, monkeypatch):
    class Noise(mechanisms.GaussianNoise):
        def add_to(self, sums, step):
            on_disk.append(ledger.path.read_text().count('"query"'))
            super().add_to(sums, step)

    on_disk = []
    monkeypatch.setattr(mechanisms, "GaussianNoise", Noise)
    private = sealed(torch.zeros(5, 2))
    total(private, x, size=2, clip=1.0, noise_multiplier=5.0, ledger=ledger)
    histogram(private, x, bins=2, noise_multiplier=5.0, ledger=ledger)
    assert on_disk == [1, 2]


@pytest.mark.parametrize("sigma", [0.5, 0.0])
def test_a_refused_query_releases_and_writes_nothing(sigma, tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "ledger.jsonl", Budget(1.0, 1e-5))
    before = ledger.path.read_bytes()
    monkeypatch.setattr(mechanisms, "GaussianNoise", None)  # drawing noise would fail
    with pytest.raises(UserError, match="past the target"):
        total(sealed(torch.ones(2, 2)), x, size=2, clip=1.0, noise_multiplier=sigma, ledger=ledger)
    with pytest.raises(UserError, match="past the target"):
        histogram(sealed(torch.ones(2, 2)), x, bins=2, noise_multiplier=sigma, ledger=ledger)
    assert ledger.path.read_bytes() == before


@pytest.mark.parametrize(
    "function",
    [
        lambda rows: rows["x"].mean(0),
        lambda rows: rows["x"].mean(0, keepdim=True),
        lambda rows: rows["x"][:, :1],
        lambda rows: rows["x"][1:],
        lambda rows: rows["x"].mean(),
        lambda rows: rows["x"].tolist(),
        lambda rows: rows,
    ],
)
def test_a_function_without_one_row_per_record_is_refused(function, ledger):
    private = sealed(torch.ones(7, 3))
    fixed = {"noise_multiplier": 1.0, "ledger": ledger}
    for refused in (
        lambda: total(private, function, size=3, clip=1.0, **fixed),
        lambda: histogram(private, function, bins=3, **fixed),
    ):
        with pytest.raises(UserError, match="per record") as error:
            refused()
        assert "7" not in str(error.value)  # how many records there are is private
    assert not ledger.counts


@pytest.mark.parametrize(
    "bins", [torch.ones(7, 3, dtype=torch.int64), torch.ones(7), torch.ones(6).long()]
)
def test_bins_are_one_integer_per_record(bins, ledger):
    with pytest.raises(UserError, match="one bin per record"):
        histogram(
            sealed(torch.ones(7)), lambda _: bins, bins=3, noise_multiplier=1.0, ledger=ledger
        )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"size": 0}, "size"),
        ({"chunk": 0}, "chunk"),
        ({"clip": 0.0}, "clip"),
        ({"clip": math.inf}, "clip"),
        ({"clip": math.nan}, "clip"),
        ({"noise_multiplier": -1.0}, "noise multiplier"),
        ({"noise_multiplier": math.nan}, "noise multiplier"),
        ({"noise_multiplier": math.inf}, "noise multiplier"),
        ({"sampling_probability": 0.0}, "sampling probability"),
        ({"sampling_probability": 1.5}, "sampling probability"),
        ({"sampling_probability": math.nan}, "sampling probability"),
    ],
)
def test_bad_arguments_are_refused_by_name(change, named, ledger):
    good = {"size": 3, "clip": 1.0, "noise_multiplier": 1.0}
    with pytest.raises(UserError, match=named):
        total(sealed(torch.ones(2, 3)), x, ledger=ledger, **(good | change))
    votes = {"bins": change["size"]} if "size" in change else {"bins": 3, **change}
    with pytest.raises(UserError, match=named):
        histogram(sealed(torch.ones(2, 3)), x, ledger=ledger, **({"noise_multiplier": 1.0} | votes))
    assert not ledger.counts


def test_plain_tensors_are_refused(ledger):
    with pytest.raises(UserError, match="PrivateRecords"):
        total({"x": torch.ones(2, 3)}, x, size=3, clip=1.0, noise_multiplier=1.0, ledger=ledger)
