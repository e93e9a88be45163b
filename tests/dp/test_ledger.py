"""The ledger survives, refuses, and never shows less than was spent."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest

from wavedp.dp import Ledger, UserError
from wavedp.dp.accounting import Budget, Event, calibrate

BUDGET = Budget(1.0, 1e-5)
EVENT = Event(0.1, calibrate(BUDGET, 0.1, 20))


def test_spends_exactly_what_was_planned(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl", BUDGET)
    ledger.reserve(EVENT, 20)
    for _ in range(20):
        ledger.charge(EVENT, "step")
    assert 0.98 <= ledger.spent().epsilon <= 1.0


def test_refuses_the_query_that_would_pass_the_target(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl", BUDGET)
    for _ in range(20):
        ledger.charge(EVENT, "step")
    before = ledger.path.read_bytes()
    for _ in range(2):  # the calibration leaves a little room, never for two
        with contextlib.suppress(UserError):
            ledger.charge(EVENT, "step")
    with pytest.raises(UserError, match="past the target"):
        ledger.charge(EVENT, "step")
    assert ledger.spent().epsilon <= 1.0
    assert ledger.path.read_bytes().startswith(before)


def test_refuses_a_plan_that_does_not_fit_before_it_starts(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl", BUDGET)
    with pytest.raises(UserError, match="past the target"):
        ledger.reserve(EVENT, 40)
    assert not ledger.counts


def test_a_budget_of_zero_refuses_everything(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl", Budget(0.0, 1e-5))
    with pytest.raises(UserError):
        ledger.charge(EVENT, "step")
    assert ledger.spent().epsilon == 0


def test_an_infinite_budget_shows_infinity(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl", Budget(math.inf, 1e-5))
    ledger.charge(Event(1.0, 0.0), "step")
    assert ledger.spent().epsilon == math.inf


def test_continues_after_a_restart_and_drops_a_torn_line(tmp_path):
    path = tmp_path / "l.jsonl"
    first = Ledger(path, BUDGET)
    for _ in range(7):
        first.charge(EVENT, "step")
    first.close()
    with path.open("a") as file:
        file.write('{"query": "st')
    again = Ledger(path, BUDGET)
    assert again.counts[EVENT] == 7
    again.charge(EVENT, "step")
    assert [json.loads(line) for line in path.read_text().splitlines()][-1]["query"] == "step"


def test_another_budget_on_the_same_file_is_refused(tmp_path):
    Ledger(tmp_path / "l.jsonl", BUDGET).close()
    with pytest.raises(UserError, match="another budget"):
        Ledger(tmp_path / "l.jsonl", Budget(2.0, 1e-5))


CHILD = """
import sys
from wavedp.dp import Ledger
from wavedp.dp.accounting import Budget, Event
ledger = Ledger(sys.argv[1], Budget(float("inf"), 1e-5))
print("ready", flush=True)
for step in range(100000):
    ledger.charge(Event(0.1, 5.0), "step")
    print(step + 1, flush=True)  # stands for the release
"""


def test_a_killed_run_left_every_released_query_on_disk(tmp_path):
    path = tmp_path / "l.jsonl"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(0.2)
    os.kill(child.pid, signal.SIGKILL)
    released = len(child.stdout.read().split(b"\n")) - 1
    child.wait()
    assert released > 0
    assert Ledger(path, Budget(math.inf, 1e-5)).counts[Event(0.1, 5.0)] >= released
