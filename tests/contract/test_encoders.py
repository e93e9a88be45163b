"""What methods map over private records: functions of one record, with public constants only."""

import math

import pytest
import torch
from test_methods import RECORDS, build, private_faces

from benchmarks.config import choices
from wavedp.dp import Budget, DPPlan, Ledger, PrivateRecords, Trainer
from wavedp.dp.private import open_columns

TAKEN = 12


@pytest.fixture(params=choices("method"))
def mapped(request, cache, tmp_path, monkeypatch):
    """The functions that a method maps while it is finetuned, and the columns they get."""
    functions, real = [], PrivateRecords.map

    def spy(self, *given, **settings):
        functions.extend((function, open_columns(self)) for function in given)
        return real(self, *given, **settings)

    monkeypatch.setattr(PrivateRecords, "map", spy)
    plan = DPPlan(Budget(math.inf, 1e-5), RECORDS, 16, 1, 1.0, 1.0)
    ledger = Ledger(tmp_path / "ledger.jsonl", plan.budget)
    build(request.param).finetune(private_faces(cache), Trainer(plan, ledger=ledger))
    return functions


def part(columns, rows):
    return {
        name: values[rows] if hasattr(values, "shape") else [values[row] for row in rows]
        for name, values in columns.items()
    }


def test_a_record_is_encoded_as_if_there_were_no_other(mapped):
    """Alone, in other company and in another order: so no mean, vocabulary or longest caption."""
    for function, columns in mapped:
        order = torch.randperm(TAKEN, generator=torch.Generator().manual_seed(0)).tolist()
        together = function(part(columns, order))
        for place, row in enumerate(order):
            for name, alone in function(part(columns, [row])).items():
                assert alone.shape[1:] == together[name].shape[1:]
                # The last bits may differ with the number of rows.
                torch.testing.assert_close(alone[0], together[name][place], rtol=1e-3, atol=1e-3)


def test_a_record_with_more_and_longer_captions_changes_no_other(mapped):
    for function, columns in mapped:
        rows = part(columns, list(range(TAKEN)))
        before = function(rows)
        rows["captions"] = [*rows["captions"][:-1], ["zebra " * 200] * 40]
        for name, after in function(rows).items():
            assert after.shape == before[name].shape
            assert torch.equal(after[:-1], before[name][:-1])
