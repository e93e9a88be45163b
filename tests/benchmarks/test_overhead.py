"""What a cell takes beside its work: what is written, and that the two times are what they say."""

import csv
import json

import pytest

from benchmarks.throughput import overhead
from benchmarks.throughput.overhead import Turn
from wavedp.dp import UserError

TINY = [
    *("suite=smoke", "method=dp_vae", "suite.grid.row=[private]", "privacy.epsilon=[10]"),
    *("suite.samples=24", "dataset.private_records=64", "dataset.evaluation_records=300"),
    *("method.finetuning.expected_batch=16", "method.finetuning.steps=3"),
]


def read(folder):
    [path] = folder.glob("overhead-*.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file)), json.loads(path.with_suffix(".json").read_text())


def test_rows_are_medians_and_the_rest_is_a_part_of_ten_minutes(tmp_path, monkeypatch, capsys):
    """By hand: of 3, 6 and 4 s the median is 4, and of 600 s that is 0.0067."""
    turns = iter([Turn(99.0, 99.0), Turn(2.0, 3.0), Turn(2.5, 6.0), Turn(9.0, 4.0)])
    monkeypatch.setattr(overhead, "turn", lambda *_: next(turns))
    monkeypatch.setattr(overhead.measured, "__defaults__", (TINY, 3))
    assert overhead.main(["--folder", str(tmp_path)]) == 0
    (start, rest), about = read(tmp_path)
    assert (start["work"], start["seconds"], start["low"], start["high"]) == (
        *("start", "2.50", "2.00", "9.00"),
    )
    assert (rest["seconds"], rest["of_ten_minutes"], rest["turns"]) == ("4.00", "0.0067", "3")
    assert start["of_ten_minutes"] == ""
    assert about["code_revision"]
    assert "overhead-" in capsys.readouterr().out


def test_what_cannot_be_measured_is_a_reason_and_no_number(tmp_path, monkeypatch):
    def fails(*_):
        raise UserError("no room")

    monkeypatch.setattr(overhead, "turn", fails)
    assert overhead.main(["--folder", str(tmp_path)]) == 1
    rows, _ = read(tmp_path)
    found = [(row["status"], row["reason"], row["seconds"]) for row in rows]
    assert found == [("missing", "refused: no room", "")] * 2


@pytest.mark.slow
def test_a_turn_is_a_process_whose_first_step_is_charged_before_it_ends(tmp_path):
    found = overhead.turn(TINY, tmp_path / "first", tmp_path / "cache")
    assert found.start > 0.5
    assert found.rest > 0.5
    with pytest.raises(UserError, match=r"code 2.*dp_vea"):
        overhead.turn(["method=dp_vea"], tmp_path / "second", tmp_path / "cache")
