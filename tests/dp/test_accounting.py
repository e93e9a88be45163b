"""Epsilon against published numbers, and calibration against its own score."""

import math
from contextlib import contextmanager

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from wavedp.dp import DPPlan, Ledger, NonPrivatePlan, UserError, accountants, accounting, answers
from wavedp.dp.accounting import Budget, Event, calibrate, epsilon_of


@contextmanager
def unkept():
    """Without results of earlier calls, in memory or on disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "recall", lambda question: None)
        yield


TABLE = [  # q = 0.01, T = 1000, delta = 1e-5, add or remove one record
    ("pld", 1.0, 1.41464, 2e-3),
    ("pld", 10.0, 0.54678, 2e-3),
    ("prv", 1.0, 1.42578, 2e-3),
    ("prv", 10.0, 0.54703, 2e-3),
    ("rdp", 1.0, 1.523, 1e-2),  # depends on the library's list of orders
    ("rdp", 10.0, 0.573, 1e-2),
]


@pytest.mark.parametrize(("accountant", "epsilon", "sigma", "tolerance"), TABLE)
def test_reference_table(accountant, epsilon, sigma, tolerance):
    budget = Budget(epsilon, 1e-5, accountant=accountant)
    found = calibrate(budget, 0.01, 1000)
    assert found == pytest.approx(sigma, rel=tolerance)
    spent = epsilon_of({Event(0.01, found): 1000}, 1e-5, accountant)
    assert 0.98 * epsilon <= spent <= epsilon


def analytic_gaussian_epsilon(sigma, delta):
    """The exact epsilon of the Gaussian mechanism (Balle and Wang 2018, theorem 8)."""

    def excess(epsilon):
        a, b = 1 / (2 * sigma), epsilon * sigma
        return norm.cdf(a - b) - math.exp(epsilon) * norm.cdf(-a - b) - delta

    return brentq(excess, 0, 100, xtol=1e-12)


@pytest.mark.parametrize(("sigma", "count"), [(4.0, 1), (1.2, 1), (20.0, 30), (8.0, 100)])
def test_without_sampling_it_is_the_analytic_gaussian_mechanism(sigma, count):
    """T mechanisms with sigma are one with sigma / sqrt(T)."""
    exact = analytic_gaussian_epsilon(sigma / math.sqrt(count), 1e-5)
    counts = {Event(1.0, sigma): count}
    assert exact <= epsilon_of(counts, 1e-5) <= exact * 1.001 + 1e-3
    assert exact <= epsilon_of(counts, 1e-5, "prv") <= exact + 0.025
    assert exact <= epsilon_of(counts, 1e-5, "rdp") <= exact * 1.2


def test_the_relation_is_stated_because_replacing_a_record_costs_nearly_twice_as_much():
    assert epsilon_of({Event(0.01, 1.41464): 1000}, 1e-5) == pytest.approx(1.0, abs=1e-3)
    direct = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE)
    gaussian = dp_accounting.GaussianDpEvent(1.41464)
    direct.compose(dp_accounting.PoissonSampledDpEvent(0.01, gaussian), 1000)
    assert direct.get_epsilon(1e-5) == pytest.approx(1.80, abs=5e-3)
    with pytest.raises(UserError, match="replace_one"):
        Budget(1.0, 1e-5, relation="replace_one")


@pytest.mark.parametrize(("deviations", "cost"), [(0.0, 3.06), (4.5, 0.0006)])
def test_batches_must_not_be_truncated(deviations, cost):
    """What a cap on the Poisson batch would add to epsilon 1, at N = 50,000 records."""
    size, q, sigma, grid = 50_000, 0.01, 1.41464, 1e-3
    cap = int(q * size + deviations * math.sqrt(size * q * (1 - q)))
    direct = PLDAccountant(value_discretization_interval=grid)
    direct.compose(dp_accounting.TruncatedSubsampledGaussianDpEvent(size, q, cap, sigma), 1000)
    ours = epsilon_of({Event(q, sigma): 1000}, 1e-5, interval=grid)
    assert direct.get_epsilon(1e-5) - ours == pytest.approx(cost, rel=0.05)


EVENTS = st.dictionaries(
    st.builds(Event, st.floats(0.005, 1.0), st.floats(4.0, 20.0)),
    st.integers(1, 100),
    min_size=1,
    max_size=3,
)


@settings(max_examples=15, deadline=None)
@given(counts=EVENTS, delta=st.sampled_from([1e-7, 1e-5, 1e-3]))
def test_agrees_with_dp_accounting_called_directly(counts, delta):
    direct = PLDAccountant(value_discretization_interval=1e-3)
    for event, count in counts.items():
        gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
        sampled = dp_accounting.PoissonSampledDpEvent(event.sampling_probability, gaussian)
        direct.compose(sampled, count)
    ours = epsilon_of(counts, delta, interval=1e-3)
    assert ours == pytest.approx(direct.get_epsilon(delta), rel=1e-6, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(counts=EVENTS, delta=st.sampled_from([1e-7, 1e-5, 1e-3]))
def test_prv_is_an_upper_bound_close_to_the_tight_one(counts, delta):
    """Two libraries and two algorithms, on heterogeneous events."""
    tight = epsilon_of(counts, delta)
    # PLD is itself a little above the truth, and beyond 100 "prv" is the RDP bound.
    assert epsilon_of(counts, delta, "prv") >= tight - 2e-3
    if tight < 80:
        assert epsilon_of(counts, delta, "prv") <= tight + 0.025


@pytest.mark.parametrize(
    ("sigma", "delta"), [(0.25, 1e-5), (3.0, 1e-12)], ids=["large epsilon", "small delta"]
)
def test_beyond_its_arithmetic_prv_falls_back_to_a_looser_bound(sigma, delta):
    counts = {Event(0.5, sigma): 10}
    bound = epsilon_of(counts, delta, "prv")
    assert bound == epsilon_of(counts, delta, "rdp")
    assert bound > epsilon_of(counts, delta, interval=1e-3)


@pytest.mark.parametrize("accountant", ["pld", "prv", "rdp"])
def test_different_mechanisms_compose_in_one_run(accountant):
    sgd, histogram = {Event(0.05, 2.0): 100}, {Event(1.0, 4.0): 1}
    both = epsilon_of(sgd | histogram, 1e-5, accountant)
    parts = [epsilon_of(part, 1e-5, accountant) for part in (sgd, histogram)]
    halves = [epsilon_of(part, 5e-6, accountant) for part in (sgd, histogram)]
    assert max(parts) < both < sum(halves)
    assert epsilon_of(histogram | sgd, 1e-5, accountant) == both


def test_a_ledger_is_scored_again_by_any_accountant(tmp_path):
    """DP-SGD and a histogram, planned with PLD: each accountant says what it would report."""
    ledger = Ledger(tmp_path / "ledger.jsonl", Budget(3.0, 1e-5))
    sgd, histogram = Event(0.05, 2.0), Event(1.0, 4.0)
    ledger.reserve(sgd, 50)
    for _ in range(50):
        ledger.charge(sgd, "training")
    ledger.charge(histogram, "histogram")
    pld, prv, rdp = (epsilon_of(ledger.counts, 1e-5, name) for name in ("pld", "prv", "rdp"))
    assert ledger.spent().epsilon == pld
    assert pld < prv < rdp < 1.25 * pld
    assert prv == pytest.approx(pld, abs=0.02)


def test_a_new_file_is_a_new_accountant(tmp_path, monkeypatch):
    code = "LIBRARY = 'torch'\ndef epsilon(counts, delta, interval):\n    return 0.125\n"
    (tmp_path / "eighth.py").write_text(code)
    (tmp_path / "_helper.py").write_text("")
    monkeypatch.setattr(accountants, "__path__", [*accountants.__path__, str(tmp_path)])
    accountants.names.cache_clear()
    try:
        assert accountants.names() == ("eighth", "pld", "prv", "rdp")
        assert Budget(1.0, 1e-5, accountant="eighth")
        assert epsilon_of({Event(0.1, 1.0): 1}, 1e-5, "eighth") == 0.125
    finally:
        accountants.names.cache_clear()


def test_a_result_that_is_no_number_is_infinite(monkeypatch):
    monkeypatch.setattr("wavedp.dp.accountants.rdp.epsilon", lambda *_: math.nan)
    assert epsilon_of({Event(0.123, 1.0): 1}, 1e-5, "rdp") == math.inf


def test_nothing_costs_nothing_and_no_noise_costs_everything():
    assert epsilon_of({}, 1e-5) == 0
    assert epsilon_of({Event(0.1, 0.0): 1}, 1e-5) == math.inf


@settings(max_examples=8, deadline=None)
@given(epsilon=st.floats(0.3, 12), batch=st.integers(1, 4000), steps=st.integers(1, 300))
def test_a_calibrated_plan_meets_its_target_and_wastes_little(epsilon, batch, steps):
    plan = DPPlan.calibrate(
        epsilon=epsilon, delta=1e-5, records=4000, expected_batch=batch, steps=steps
    )
    spent = epsilon_of({plan.event: steps}, 1e-5)
    assert spent <= epsilon
    assert spent >= 0.98 * epsilon


@pytest.mark.parametrize(
    ("epsilon", "q", "steps"),
    [(1, 0.01, 1000), (10, 0.01, 1000), (1, 2048 / 22_000, 200), (10, 160 / 20_000, 120)],
)
def test_a_usual_calibration_takes_few_evaluations(epsilon, q, steps):
    """At most seconds: an evaluation on the fine grid takes about one."""
    accounting._computed.cache_clear()
    calibrate.cache_clear()
    with unkept():
        calibrate(Budget(epsilon, 1e-5), q, steps)
    assert 0 < accounting._computed.cache_info().misses <= 12


@pytest.mark.parametrize(("epsilon", "q", "steps"), [(0.1, 0.01, 1000), (0.05, 0.0005, 100_000)])
def test_small_budgets_are_used_up_although_the_search_grid_is_too_coarse(epsilon, q, steps):
    found = Event(q, calibrate(Budget(epsilon, 1e-5), q, steps))
    assert epsilon_of({found: steps}, 1e-5, interval=accounting.SEARCH_INTERVAL) > 1.05 * epsilon
    assert 0.98 * epsilon <= epsilon_of({found: steps}, 1e-5) <= epsilon


@pytest.mark.parametrize("accountant", ["pld", "prv", "rdp"])
def test_epsilon_falls_with_noise_however_much_there_is(accountant):
    spent = [epsilon_of({Event(0.01, 10.0**k): 10}, 1e-5, accountant) for k in range(10)]
    assert spent == sorted(spent, reverse=True)
    assert 0 <= spent[-1] < 1e-3


@pytest.mark.parametrize(
    "epsilon_at",
    [
        lambda sigma: 3 / sigma**2,
        lambda sigma: math.inf if sigma < 40 else 1 / sigma,
        lambda sigma: 0.0 if sigma > 0.3 else 2.0,
        lambda sigma: 2.0 if sigma < 7 else 0.9,
    ],
    ids=["smooth", "infinite", "zero", "jump"],
)
def test_the_search_ends_on_the_private_side(epsilon_at):
    sigma = accounting._least_noise(epsilon_at, 1.0, guess=1.0, step=1.5)
    assert epsilon_at(sigma) <= 1
    assert epsilon_at(sigma) >= 0.999 or epsilon_at(sigma / 1.0001) > 1 or sigma < 40.01


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epsilon": 0}, "epsilon"),
        ({"epsilon": -1}, "epsilon"),
        ({"epsilon": math.inf}, "NonPrivatePlan"),
        ({"epsilon": math.nan}, "epsilon"),
        ({"delta": 1 / 4000}, "1/N"),
        ({"delta": 0}, "delta"),
        ({"expected_batch": 5000}, "expected batch"),
        ({"expected_batch": 0}, "expected batch"),
        ({"steps": 0}, "steps"),
        ({"clip": 0}, "clip"),
        ({"accountant": "moments"}, "accountant"),
        ({"epsilon": 1e-9, "delta": 1e-30}, "No noise"),
    ],
)
def test_bad_plans_are_refused_by_name(change, named):
    good = {"epsilon": 1, "delta": 1e-5, "records": 4000, "expected_batch": 256, "steps": 10}
    with pytest.raises(UserError, match=named):
        DPPlan.calibrate(**(good | change))


def test_plans_are_frozen():
    with pytest.raises(AttributeError):
        NonPrivatePlan(8, 10).steps = 20
