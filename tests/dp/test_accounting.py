"""Epsilon against published numbers, and calibration against its own score."""

import math

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from wavedp.dp import DPPlan, NonPrivatePlan, UserError
from wavedp.dp.accounting import Budget, Event, calibrate, epsilon_of


@pytest.mark.parametrize(("epsilon", "sigma"), [(1.0, 1.41464), (10.0, 0.54678)])
def test_reference_table_pld(epsilon, sigma):
    """q = 0.01, T = 1000, delta = 1e-5, add/remove (FACTS, section 6)."""
    assert calibrate(Budget(epsilon, 1e-5), 0.01, 1000) == pytest.approx(sigma, rel=2e-3)
    assert epsilon_of({Event(0.01, sigma): 1000}, 1e-5) == pytest.approx(epsilon, rel=2e-3)


@pytest.mark.parametrize(("epsilon", "sigma"), [(1.0, 1.523), (10.0, 0.573)])
def test_reference_table_rdp(epsilon, sigma):
    spent = epsilon_of({Event(0.01, sigma): 1000}, 1e-5, "rdp")
    assert spent == pytest.approx(epsilon, rel=0.01)


@settings(max_examples=15, deadline=None)
@given(q=st.floats(0.005, 1.0), sigma=st.floats(0.8, 8.0), steps=st.integers(1, 200))
def test_agrees_with_dp_accounting_called_directly(q, sigma, steps):
    direct = PLDAccountant(value_discretization_interval=1e-4)
    gaussian = dp_accounting.GaussianDpEvent(sigma)
    direct.compose(dp_accounting.PoissonSampledDpEvent(q, gaussian), steps)
    assert epsilon_of({Event(q, sigma): steps}, 1e-5) == pytest.approx(
        direct.get_epsilon(1e-5), rel=1e-6, abs=1e-9
    )


def test_different_mechanisms_compose_to_more_than_each():
    sgd, histogram = {Event(0.05, 2.0): 100}, {Event(1.0, 4.0): 1}
    both = epsilon_of(sgd | histogram, 1e-5)
    assert both > max(epsilon_of(sgd, 1e-5), epsilon_of(histogram, 1e-5))
    assert both < epsilon_of(sgd, 5e-6) + epsilon_of(histogram, 5e-6)


def test_nothing_costs_nothing_and_no_noise_costs_everything():
    assert epsilon_of({}, 1e-5) == 0
    assert epsilon_of({Event(0.1, 0.0): 1}, 1e-5) == math.inf


@settings(max_examples=10, deadline=None)
@given(epsilon=st.floats(0.3, 12), batch=st.integers(1, 4000), steps=st.integers(1, 300))
def test_a_calibrated_plan_meets_its_target_and_wastes_little(epsilon, batch, steps):
    plan = DPPlan.calibrate(
        epsilon=epsilon, delta=1e-5, records=4000, expected_batch=batch, steps=steps
    )
    spent = epsilon_of({plan.event: steps}, 1e-5)
    assert spent <= epsilon
    assert spent >= 0.98 * epsilon


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epsilon": 0}, "epsilon"),
        ({"epsilon": -1}, "epsilon"),
        ({"epsilon": math.inf}, "non_private"),
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
