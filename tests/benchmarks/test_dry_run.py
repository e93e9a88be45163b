"""What a run would do, told before it does it."""

import pytest

from benchmarks import run
from benchmarks.cell import make_plan
from benchmarks.config import cells
from benchmarks.record import load_folder, save

GRID = [
    *("suite=smoke", "suite.grid.method=[dp_vae,dp_merf]", "suite.samples=24"),
    *("suite.grid.row=[pretrained,private]", "suite.grid.seed=[0,1]", "privacy.epsilon=[1,10]"),
    *("dataset.private_records=64", "dataset.evaluation_records=300"),
    *("method.finetuning.expected_batch=16", "method.finetuning.steps=2"),
]


def grid(tmp_path, cache, *more):
    return [*GRID, f"results_dir={tmp_path}/results", f"cache_dir={cache}", *more]


def test_nothing_is_run_or_written_and_plans_are_shown(
    tmp_path, cache, in_root, monkeypatch, capsys
):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(run, "run_cell", lambda *_: pytest.fail("a cell ran"))
    asked = grid(tmp_path, cache, "dry_run=true", "suite.grid.method=[dp_vae]")
    assert run.main(asked) == 0
    assert not (tmp_path / "results").exists()
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines() if "Results" not in line)
    assert "6 cells, 6 of them to be run: 0 s, and 6 that no record tells the time of." in out
    plan = make_plan(next(cell for cell in cells(asked) if cell.epsilon == 1))
    line = next(line.split() for line in out.splitlines() if "ε = 1 " in line)
    assert line[-7:] == ["2", "of", "2", f"{plan.noise_multiplier:.3g}", "0.25", "2", "?"]


def test_times_are_those_of_records_in_proportion(tmp_path, cache, in_root, capsys):
    """Of one cell by hand: 100 of 32 records at 8 a second, 24 images at 12, 3 s of scoring."""
    asked = grid(tmp_path, cache, "suite.grid.method=[dp_vae]", "suite.grid.seed=[0]")
    assert run.main(asked) == 0
    folder = tmp_path / "results" / "smoke" / "records"
    for record in load_folder(folder):
        cost = {"train_examples_per_s": 8.0, "sample_images_per_s": 12.0, "score_seconds": 3.0}
        kept = record.cost.model_copy(update=cost)
        save(record.model_copy(update={"cost": kept}), folder)
    again = [*asked, "dry_run=true", "suite.grid.seed=[0,1]", "method.finetuning.steps=50"]
    capsys.readouterr()
    assert run.main(again) == 0
    out = capsys.readouterr().out
    # Other steps are other cells, so all six are to be run.
    private = 50 * 16 / 8 + 24 / 12 + 3
    assert f"6 cells, 6 of them to be run: {(2 * 5 + 4 * private) / 60:.0f} min." in out
    assert run.main([*asked, "dry_run=true", "suite.grid.seed=[0,1]"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "pretrained" in line]
    assert [line[-1] for line in lines] == ["s"]
    assert run.main([*asked, "dry_run=true"]) == 0
    assert "3 cells, 0 of them to be run: 0 s." in capsys.readouterr().out
