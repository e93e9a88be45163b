"""What leaves a machine of results on photographs: numbers, and pictures that epsilon covers."""

from __future__ import annotations

import numpy as np
import pytest
from report_records import record

from benchmarks.pass_on import main
from benchmarks.record import load_folder, save
from benchmarks.samples import save_strip
from wavedp.dp.errors import UserError

ROWS = {"pretrained": 0.0, "private": 1.0, "non_private": float("inf"), "oracle": None}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "local"
    for number, (row, epsilon) in enumerate(ROWS.items()):
        made = record("dp_wavelet", row, epsilon, 50.0 + number)
        strip = f"samples/{made.cell}.png"
        update = {"samples": strip, "config": {**made.config, "privacy": {}}}
        save(made.model_copy(update=update), folder / "records")
        save_strip(np.full((4, 3, 16, 16), 40 * number, dtype=np.uint8), folder / strip)
        ledger = folder / "ledgers" / f"{made.cell}.jsonl"
        ledger.parent.mkdir(exist_ok=True)
        ledger.write_text("{}\n")
    [dataset] = {made.dataset for made in load_folder(folder / "records")}
    save_strip(np.zeros((4, 3, 16, 16), dtype=np.uint8), folder / f"samples/real-{dataset}.png")
    (folder / f"samples/prompts-{dataset}.json").write_text('["a secret caption"]')
    return folder


def test_all_numbers_and_the_pictures_of_covered_rows_are_copied(source, tmp_path):
    target = tmp_path / "shared"
    assert main([str(source), str(target), "--evaluation"]) == 0
    before, after = (load_folder(folder / "records") for folder in (source, target))
    assert [(r.metrics, r.cost) for r in after] == [(r.metrics, r.cost) for r in before]
    assert {r.row for r in after if r.samples} == {"pretrained", "private"}
    pictures = {path.name for path in (target / "samples").iterdir()}
    assert pictures == {f"{r.cell}.png" for r in after if r.samples}
    assert len(list((target / "ledgers").iterdir())) == len(before)
    assert (target / "report.html").exists()
    assert "a secret caption" not in (target / "report.html").read_text(encoding="utf-8")
    assert main([str(source), str(target)]) == 0  # again, after more cells


def test_numbers_that_no_epsilon_covers_stay_unless_they_are_asked_for(source, tmp_path):
    one = next(r for r in load_folder(source / "records") if r.row == "private")
    score = next(iter(one.metrics.values())).model_copy(
        update={"reads_private": True, "reads": "private"}
    )
    save(one.model_copy(update={"metrics": one.metrics | {"near": score}}), source / "records")
    assert main([str(source), str(tmp_path / "shared")]) == 0
    for copied in load_folder(tmp_path / "shared" / "records"):
        assert copied.metrics
        assert "near" not in copied.metrics
        assert (copied.cost.train_seconds, copied.cost.peak_memory_mb) == (None, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": "failed", "reason": "no memory", "metrics": {}}, "has failed"),
        ({"seeded": True}, "noise_seed"),
    ],
)
def test_what_is_no_result_is_not_passed_on(change, words, source, tmp_path):
    one = load_folder(source / "records")[0]
    if change.pop("seeded", False):
        change = {"privacy": one.privacy.model_copy(update={"reproducible_noise": True})}
    save(one.model_copy(update=change), source / "records")
    with pytest.raises(UserError, match=words):
        main([str(source), str(tmp_path / "shared")])
    assert not (tmp_path / "shared").exists()


def test_neither_nothing_nor_a_folder_of_other_cells_is_written_to(source, tmp_path):
    with pytest.raises(UserError, match="no records"):
        main([str(tmp_path / "nowhere"), str(tmp_path / "shared")])
    other = record("dp_merf", "private", 1.0, 3.0)
    save(other, tmp_path / "shared" / "records")
    with pytest.raises(UserError, match=f"has other results, such as {other.cell}"):
        main([str(source), str(tmp_path / "shared")])
