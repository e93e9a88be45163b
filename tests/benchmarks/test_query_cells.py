"""Cells of methods that ask queries instead of training by gradients: found, not listed."""

import math

import pytest

from benchmarks import run
from benchmarks.cell import make_plan
from benchmarks.config import cells, choices, compose
from benchmarks.record import load_folder

METHODS = [
    m for m in choices("method") if "engine" not in compose([f"method={m}"])["method"]["finetuning"]
]


def test_there_are_such_methods():
    assert {"private_evolution", "dp_merf"} <= set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_all_records_take_part_in_each_query_whatever_the_data_set(method, in_root):
    for records in (500, 700):
        size = [f"dataset.private_records={records}", "privacy.epsilon=[10]"]
        for cell in cells(["suite=quick", f"method={method}", *size]):
            plan = make_plan(cell)
            if plan is not None:
                assert plan.expected_batch == records
                assert plan.event.sampling_probability == 1


@pytest.mark.parametrize("method", METHODS)
def test_records_tell_what_ran(method, tmp_path, cache, in_root):
    small = compose([f"method={method}"])["method"]["small"]
    given = [f"method.generator.{name}={value}" for name, value in small.items()]
    given += ["dataset.private_records=64", "dataset.evaluation_records=300", "suite.samples=24"]
    given += ["method.finetuning.steps=2", "privacy.epsilon=[10]", "suite=quick"]
    places = [f"results_dir={tmp_path}", f"cache_dir={cache}"]
    assert run.main([f"method={method}", *given, *places]) == 0
    rows = {r.row: r for r in load_folder(tmp_path / "quick" / "records")}
    assert rows.keys() == {"pretrained", "private", "non_private", "oracle"}
    private = rows["private"].privacy
    assert 9.9 < private.epsilon_spent <= 10
    assert (private.sampling_probability, private.expected_batch) == (1, 64)
    assert private.sensitivity == private.clip == 1
    (query,) = private.queries
    assert (query.count, query.noise_multiplier) == (2, private.noise_multiplier)
    assert rows["pretrained"].privacy.epsilon_spent == 0
    assert rows["non_private"].privacy.epsilon_spent == math.inf
    for trained in ("private", "non_private"):
        assert rows[trained].cost.train_seconds > 0
    ledgers = (tmp_path / "quick" / "ledgers").iterdir()
    assert [len(path.read_text().splitlines()) for path in ledgers] == [3, 3]
