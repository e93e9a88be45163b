"""The benchmark of the core, end to end on a tiny model: what is written, not how fast."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.throughput import core
from benchmarks.throughput.cases import CPU, GPU, transformer
from benchmarks.throughput.measure import Effort, baseline
from benchmarks.throughput.meter import PeakMemory
from benchmarks.throughput.sides import Ordinary, train
from benchmarks.throughput.table import Machine, Table

ROOT = Path(__file__).resolve().parents[2]
TINY = transformer("tiny", length=4, width=8, depth=1, heads=2, batch=6, micro_batch=3)
EFFORT = Effort(pairs=2, least=2, seconds=0.0)


@pytest.fixture(autouse=True)
def _forget():
    yield
    baseline.cache_clear()


def read(table):
    with table.path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def make_table(tmp_path):
    cases = [(TINY, "bookkeeping"), (TINY, "hooks"), (GPU[0], "bookkeeping")]

    def make(machine=None, **settings):
        rows = [core.row_of(*case, "not measured yet") for case in cases]
        # Of changed code no table is continued: here it is unchanged, whatever is being edited.
        here = replace(Machine.here("cpu"), code_revision="0123abc")
        where = (tmp_path / "x.csv", machine or here)
        return Table(*where, core.KEY, core.COLUMNS, rows, **settings)

    return make


def row(engine, found=""):
    return core.row_of(TINY, engine, found)


@pytest.mark.parametrize("engine", ["bookkeeping", "hooks", "ghost"])
def test_a_row_is_ratios_to_the_ordinary_step(make_table, engine):
    found = make_table().put(row(engine, core.try_to_measure(TINY, engine, EFFORT)))
    assert found["status"] == "measured", found
    assert float(found["time_low"]) <= float(found["time_ratio"]) <= float(found["time_high"])
    assert float(found["memory_ratio"]) > 0
    assert float(found["examples_per_s"]) > 0


def test_the_table_says_what_is_missing_and_goes_on_where_it_stopped(make_table):
    table = make_table()
    table.put(row("bookkeeping", core.try_to_measure(TINY, "bookkeeping", EFFORT)))
    table.put(core.row_of(GPU[0], "bookkeeping", "no GPU here"))
    first, second, third = read(table)
    assert tuple(first) == core.COLUMNS
    assert (first["model"], first["engine"], first["batch"]) == ("tiny", "bookkeeping", "6")
    assert (first["tokens"], first["dtype"], first["compiled"]) == ("4", "float32", "false")
    assert (second["status"], second["reason"]) == ("missing", "not measured yet")
    assert (third["time_ratio"], third["reason"]) == ("", "no GPU here")
    about = json.loads(table.path.with_suffix(".json").read_text())
    assert about["threads"] == torch.get_num_threads()
    assert about["torch_version"] == torch.__version__

    again = make_table()
    assert again.has(row("bookkeeping"))
    assert not again.has(row("hooks"))
    assert not make_table(fresh=True).has(row("bookkeeping"))


def test_a_table_of_another_machine_is_not_continued(make_table):
    found = core.try_to_measure(TINY, "bookkeeping", EFFORT)
    make_table().put(row("bookkeeping", found))
    assert make_table().has(row("bookkeeping"))
    other = replace(Machine.here("cpu"), torch_version="0.0")
    assert not make_table(other).has(row("bookkeeping"))


def test_a_table_that_cannot_be_written_stays_as_it_was(make_table):
    table = make_table()
    before = table.path.read_bytes()
    with pytest.raises(ValueError, match="another"):
        table.put(row("hooks") | {"another": "column"})
    assert table.path.read_bytes() == before
    assert {path.name for path in table.path.parent.iterdir()} == {"x.csv", "x.json"}


def test_a_row_that_fails_is_a_reason_and_not_the_end():
    def broken(model, batch):
        raise RuntimeError("no such\nkernel")

    assert core.try_to_measure(replace(TINY, loss=broken), "bookkeeping", EFFORT) == (
        "RuntimeError: no such kernel"
    )
    assert core.try_to_measure(TINY, "no_engine", EFFORT).startswith("refused: ")


def test_our_step_takes_exactly_the_ordinary_steps_records():
    seen = []

    def counting(model, batch):
        seen.append(len(batch["ids"]))
        return TINY.loss(model, batch)

    case = replace(TINY, loss=counting)
    Ordinary(case).step()
    assert seen == [3, 3]
    seen.clear()
    train(case, "bookkeeping", lambda steps, label: iter([0, 1]))
    # The core looks at one record more, once, alone and in twos, to check itself.
    assert [size for size in seen if size > 2] == [3, 3, 3, 3]


def test_peak_memory_counts_what_is_alive_at_once():
    memory = PeakMemory("cpu")
    memory.start()
    for _ in range(3):
        torch.zeros(250_000)
    held = torch.zeros(500_000)
    memory.stop()
    assert memory.bytes == pytest.approx(held.nbytes, rel=0.01)


def test_a_table_made_without_a_gpu_has_the_rows_of_one(tmp_path):
    rows = read(core.open_table("cpu", tmp_path))
    assert len(rows) == len(core.planned("cpu")) + len(core.planned("cuda"))
    assert {row["reason"] for row in rows if row["dtype"] == "bfloat16"} == {"no GPU here"}


def test_rows_of_our_engines_come_first():
    rows = core.planned("cpu")
    ordered = core.by_importance(rows)
    assert sorted(map(id, ordered)) == sorted(map(id, rows))
    assert {engine for _, engine in ordered[: len(CPU)]} <= {"bookkeeping", "two_pass"}


def test_it_runs_where_there_is_only_torch_and_numpy():
    code = """
import sys
absent = ("opacus", "dp_accounting", "pydantic", "rich", "hydra", "omegaconf", "diffusers",
          "psutil", "pytest", "safetensors")
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from benchmarks.throughput.cases import transformer
from benchmarks.throughput.core import Effort, try_to_measure
tiny = transformer("tiny", length=4, width=8, depth=1, heads=2, batch=6, micro_batch=3)
quick = Effort(pairs=2, least=2, seconds=0.0)
found = try_to_measure(tiny, "bookkeeping", quick)
assert not isinstance(found, str), found
assert try_to_measure(tiny, "ghost", quick) == "opacus is not installed"
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
