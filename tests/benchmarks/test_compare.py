"""Two sets of records: what changed, whether it is noise, and what is not compared."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_records import EVIL, INF, grid_of_records, record
from rich.console import Console

from benchmarks.compare.__main__ import main
from benchmarks.compare.changes import Changes, changes
from benchmarks.compare.estimate import Scores, estimate
from benchmarks.compare.notes import notes, verdict
from benchmarks.compare.tables import as_csv, as_json, as_rows, print_changes
from benchmarks.console import run_command
from benchmarks.record import Evaluated, Hardware, MetricValue, NotComputed, Record, save
from wavedp.dp.errors import UserError

# Intervals ----------------------------------------------------------------------------------


def test_pairs_worked_by_hand() -> None:
    """Differences 3, 2 and 4: mean 3, s = 1, t(0.975, 2) = 4.30265, half = 4.30265 / sqrt(3)."""
    before, after = Scores({0: 10.0, 1: 12.0, 2: 14.0}), Scores({2: 18.0, 0: 13.0, 1: 14.0})
    found = estimate(before, after)
    assert (found.before, found.after, found.difference) == (12, 15, 3)
    assert found.half == pytest.approx(2.48414, rel=1e-5)
    assert (found.over, found.seeds, found.same) == ("pairs", (3, 3), False)
    assert estimate(before, after, confidence=0.99).half == pytest.approx(9.92484 / math.sqrt(3))


def test_other_seeds_worked_by_hand() -> None:
    """0 and 2 against 5: the variance 2 has one degree of freedom, t(0.975, 1) = 12.7062."""
    found = estimate(Scores({0: 0.0, 1: 2.0}), Scores({7: 5.0}))
    assert found.difference == 4
    assert found.half == pytest.approx(12.7062 * math.sqrt(2 * (1 / 2 + 1)), rel=1e-5)
    assert (found.over, found.seeds) == ("seeds", (2, 1))
    # 1, 2, 3 against 4, 6: squares 2 and 2, three degrees of freedom, t = 3.18245.
    found = estimate(Scores({0: 1.0, 1: 2.0, 2: 3.0}), Scores({0: 4.0, 1: 6.0}))
    assert found.half == pytest.approx(3.18245 * math.sqrt(4 / 3 * (1 / 3 + 1 / 2)), rel=1e-5)


def test_one_seed_has_the_standard_errors_of_its_samples() -> None:
    """Errors 3 and 4 make 5, and 1.95996 of them 95 %."""
    found = estimate(Scores({0: 10.0}, [3.0]), Scores({0: 12.0}, [4.0]))
    assert (found.over, found.half) == ("samples", pytest.approx(9.79982, rel=1e-5))
    found = estimate(Scores({0: 10.0}, [3.0]), Scores({0: 12.0}))
    assert found.over == "nothing"
    assert math.isnan(found.half)


def test_scores_that_no_seed_changes_are_one_score() -> None:
    """As of an oracle: three equal differences are no evidence of three."""
    before = Scores(dict.fromkeys(range(3), 10.0), [3.0] * 3)
    after = Scores(dict.fromkeys(range(3), 10.5), [4.0] * 3)
    assert estimate(before, after).over == "samples"
    assert estimate(before, after).half == pytest.approx(9.79982, rel=1e-5)
    assert estimate(before, before).same


def covered(seeds: tuple[Sequence[int], Sequence[int]], errors: bool = False) -> float:
    """How often the interval holds a known difference, where pairs share half of their noise."""
    draws = np.random.default_rng(0)
    trials, inside = 2000, 0
    for _ in range(trials):
        shared = draws.normal(size=10)
        sides = [
            {seed: shift + shared[seed] + draws.normal() for seed in side}
            for side, shift in zip(seeds, (100.0, 107.0), strict=True)
        ]
        if errors:  # all of the noise is over samples, and its size is known
            sides = [{0: 100.0 + 3 * draws.normal()}, {0: 107.0 + 4 * draws.normal()}]
        kept = ([3.0], [4.0]) if errors else ([], [])
        found = estimate(*(Scores(*side) for side in zip(sides, kept, strict=True)))  # type: ignore[misc]
        inside += abs(found.difference - 7) <= found.half
    return inside / trials


@pytest.mark.parametrize("seeds", [(range(3), range(3)), (range(2), range(2)), (range(3), [5, 6])])
def test_95_of_100_intervals_hold_the_true_difference(seeds: Any) -> None:
    assert covered(seeds) == pytest.approx(0.95, abs=0.015)  # three deviations of 2000 trials


def test_so_do_intervals_over_samples_and_against_a_single_seed() -> None:
    assert covered(([0], [0]), errors=True) == pytest.approx(0.95, abs=0.015)
    assert covered((range(3), [5])) == pytest.approx(0.95, abs=0.015)


def simulated(shift: float, seed: int, methods: int = 300, name: str = "m") -> list[Record]:
    """Three seeds each of many methods, which differ in nothing but noise."""
    draws = np.random.default_rng(seed)
    return [
        record(f"{name}{number}", fd=100 + shift + draws.normal(), seed=s)
        for number in range(methods)
        for s in range(3)
    ]


def test_where_nothing_changed_few_rows_are_beyond_noise_and_where_much_did_nearly_all() -> None:
    before = simulated(0, seed=1)
    rows = [r for r in changes(before, simulated(0, seed=2)).judged if r.name == "fd_toy"]
    beyond = [row.verdict for row in rows if row.verdict != "within noise"]
    assert len(rows) == 300
    assert len(beyond) / 300 == pytest.approx(0.05, abs=0.038)
    rows = [r for r in changes(before, simulated(30, seed=2)).judged if r.name == "fd_toy"]
    assert sum(row.verdict == "worse" for row in rows) > 290
    assert not [row for row in rows if row.verdict == "better"]


def test_simultaneous_intervals_hold_together() -> None:
    """Of forty comparisons of 20 rows, where nothing changed, hardly any has a row beyond noise."""
    alarms = [
        [
            changes(simulated(0, k, 10), simulated(0, k + 1000, 10), simultaneous=wide).worse
            for k in range(40)
        ]
        for wide in (False, True)
    ]
    assert sum(alarms[0]) > 8  # 10 independent rows: one in five would have a worse one by chance
    assert sum(alarms[1]) <= 4
    found = changes(simulated(0, 1, 10), simulated(0, 2, 10), simultaneous=True)
    assert found.confidence == pytest.approx(1 - 0.05 / 20)


# Verdicts -----------------------------------------------------------------------------------


def line(values: Sequence[float], **changed: Any) -> list[Record]:
    return [record(fd=value, seed=seed, **changed) for seed, value in enumerate(values)]


def with_metric(item: Record, **changed: Any) -> Record:
    score = item.metrics["fd_toy"].model_copy(update=changed)
    return item.model_copy(update={"metrics": item.metrics | {"fd_toy": score}})


def judged(before: list[Record], after: list[Record], name: str = "fd_toy") -> str:
    return next(row.verdict for row in changes(before, after).rows if row.name == name)


def test_better_and_worse_follow_the_direction_of_the_metric() -> None:
    low, high = line([20.0, 21.0, 22.0]), line([30.0, 31.1, 32.0])
    assert judged(low, high) == "worse"
    assert judged(high, low) == "better"
    assert judged(low, high, "clip_toy") == "worse"  # falls as the other rises
    assert judged(low, low) == "same"
    assert judged(low, line([20.5, 20.9, 22.2])) == "within noise"
    turned = [[with_metric(r, direction="higher") for r in side] for side in (low, high)]
    assert judged(*turned) == "better"


def test_of_metrics_that_are_best_at_zero_distances_are_compared() -> None:
    def side(*values: float) -> list[Record]:
        return [with_metric(r, direction="zero") for r in line(values)]

    assert judged(side(-0.5, -0.51, -0.49), side(0.1, 0.12, 0.11)) == "better"
    assert judged(side(-0.1, -0.12, -0.11), side(0.11, 0.1, 0.12)) == "within noise"
    assert judged(side(0.1, 0.12, 0.11), side(-0.5, -0.51, -0.49)) == "worse"
    assert any("distances from zero" in text for text in notes(changes(side(1.0), side(2.0))))


def test_what_four_digits_do_not_show_is_no_difference() -> None:
    assert judged(line([20.0, 21.0]), line([20.0001, 21.0001])) == "within noise"
    assert judged(line([20.0, 21.0]), line([20.1, 21.1])) == "worse"


def test_one_seed_is_judged_by_its_samples_and_says_so() -> None:
    before, after = line([20.0]), line([30.0])
    assert judged(before, after) == "no interval"
    assert not changes(before, after).worse
    before, after = ([with_metric(r, standard_error=1.0) for r in s] for s in (before, after))
    found = changes(before, after)
    assert judged(before, after) == "worse"
    assert any("over samples" in text and "others trained" in text for text in notes(found))


# What is not compared, and is said ----------------------------------------------------------

PROMPTS = Evaluated(
    protocol="quick", prompts=500, prompts_sha256="ab" * 32, reference="rest", preparation="none"
)


def configured(records: Sequence[Record], **config: Any) -> list[Record]:
    whole = {"method": {"finetuning": {"steps": 9}}, **config}
    return [r.model_copy(update={"config": whole, "evaluated": PROMPTS}) for r in records]


def said(found: Changes) -> str:
    return " ".join(notes(found))


def test_another_setup_is_compared_and_named() -> None:
    before = configured(line([20.0, 21.0, 22.0]))
    after = configured(line([30.0, 31.1, 32.0]), method={"finetuning": {"steps": 3}})
    found = changes(before, after)
    assert {row.match.title for row in found.rows} == {"DP-Wavelet, ε = 1 (a → b)"}
    assert found.worse
    assert "method.finetuning.steps (a: 9, b: 3)" in said(found)
    assert "the two sides differ in setup" in said(found)
    assert "differ in setup" not in said(changes(before, before))


def test_the_same_setup_is_found_among_others() -> None:
    """And where two are left on one side, nothing says which became which."""
    first, second, third = (
        configured(line([20.0, 21.0]), method={"finetuning": {"steps": steps}})
        for steps in range(3)
    )
    found = changes(first, [*first, *second])
    assert [match.suffix for match in found.matches] == [" (a)", " (b)"]
    assert "Only after, seeds 0 and 1: DP-Wavelet, ε = 1 (b)." in said(found)
    found = changes(first, [*second, *third])
    assert not found.rows
    assert "Only before, seeds 0 and 1: DP-Wavelet, ε = 1 (a)." in said(found)


Change = Callable[[Record], Record]


def rebudgeted(item: Record) -> Record:
    return item.model_copy(update={"privacy": item.privacy.model_copy(update={"delta": 1e-3})})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda r: r.model_copy(update={"evaluated": None}), "evaluated"),
        (lambda r: r.model_copy(update={"dataset_version": "2"}), "dataset_version"),
        (lambda r: r.model_copy(update={"config": {"dataset": {"seed": 1}}}), "dataset.seed"),
        (rebudgeted, "delta"),
    ],
)
def test_other_images_prompts_or_budgets_are_not_compared(change: Change, named: str) -> None:
    before, after = configured(line([20.0, 21.0])), configured(line([90.0, 91.0]))
    assert changes(before, after).worse
    found = changes(before, [change(item) for item in after])
    assert not found.rows
    assert not found.worse
    assert f"{named}" in said(found)
    assert "Not compared, as" in said(found)


@pytest.mark.parametrize("changed", [{"protocol": "q"}, {"n_samples": 9}, {"weights": {"y": "0"}}])
def test_scores_of_another_ruler_are_not_compared(changed: dict[str, Any]) -> None:
    before, after = line([20.0, 21.0]), [with_metric(r, **changed) for r in line([90.0, 91.0])]
    found = changes(before, after)
    assert [row.name for row in found.rows if not row.cost] == ["clip_toy"]
    assert "Not compared, as fd_toy† was taken by different rulers" in said(found)


def test_missing_cells_and_scores_are_said() -> None:
    before = [*line([20.0, 21.0, 22.0]), record("b"), record(row="oracle", epsilon=None)]
    absent = NotComputed(reason="weights are missing", direction="lower")
    after = [
        r.model_copy(update={"metrics": {"clip_toy": r.metrics["clip_toy"]}})
        for r in line([20.5, 21.0])
    ]
    after = [r.model_copy(update={"not_computed": {"fd_toy": absent}}) for r in after]
    text = said(changes(before, [*after, record("c")]))
    assert "Only before, seed 2: DP-Wavelet, ε = 1." in text
    assert "Only before, seed 0: B, ε = 1; DP-Wavelet, oracle†." in text
    assert "Only after, seed 0: C, ε = 1." in text
    assert "fd_toy† has scores before only: DP-Wavelet, ε = 1." in text


def test_a_cell_that_fails_now_is_worse_and_one_that_failed_already_is_not() -> None:
    good, bad = line([20.0, 21.0]), [record(seed=0, reason=EVIL), record(fd=21.0, seed=1)]
    found = changes(good, bad)
    assert found.worse
    assert "Succeeded before and fail now: DP-Wavelet, ε = 1, seed 0." in said(found)
    assert "1 that fail now" in verdict(found)
    assert not changes(bad, bad).worse
    assert "Failed before: DP-Wavelet, ε = 1, seed 0." in said(changes(bad, good))
    assert not changes(bad, good).worse


def test_a_cell_that_spends_more_than_its_target_now_is_worse() -> None:
    before = line([20.0, 21.0])
    after = line([20.0, 21.0], spent={"epsilon_spent": 1.1})
    assert changes(before, after).worse
    assert after[0].cell in said(changes(before, after))
    assert not changes(after, after).worse


def test_costs_are_shown_and_judged_when_asked_for() -> None:
    def slow(item: Record, seconds: float) -> Record:
        cost = item.cost.model_copy(update={"train_seconds": seconds + item.seed})
        machine = Hardware(device="H100", processor="p", threads=1, memory_gb=1)
        return item.model_copy(update={"cost": cost, "hardware": machine})

    before = line([20.0, 21.0, 22.0])
    after = [slow(item, 400 + item.seed) for item in before]
    found = changes(before, after)
    assert [row.verdict for row in found.rows if row.cost] == ["not judged"] * 2
    assert not found.worse
    assert "of different machines: cpu (a processor, threads: 2) before, H100 (p" in said(found)
    assert changes(before, after, costs=True).worse
    assert not changes(after, before, costs=True).worse


def test_how_many_are_expected_by_chance_is_said() -> None:
    found = changes(simulated(0, 1, 10), simulated(0, 2, 10))
    assert len(found.judged) == 20
    assert "20 scores were compared" in said(found)
    assert "about 1 of them would lie beyond noise by chance, 0.5 as worse" in said(found)
    assert "by chance" not in said(changes(line([1.0]), line([1.0])))


# The command --------------------------------------------------------------------------------


def folder_of(place: Path, records: Sequence[Record]) -> str:
    for item in records:
        save(item, place / "records")
    return str(place)


def command(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["compare", *arguments])
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    return int(str(ended.value.code))


def test_exit_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = folder_of(tmp_path / "good", line([20.0, 21.0, 22.0]))
    bad = folder_of(tmp_path / "bad", line([30.0, 31.1, 32.0]))
    assert command(good, good, monkeypatch=monkeypatch) == 0
    assert command(good, f"{bad}/records", monkeypatch=monkeypatch) == 1
    assert command(bad, good, monkeypatch=monkeypatch) == 0
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    other = folder_of(tmp_path / "other", [record("b")])
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.json").write_text("{}")
    for wrong, named in [
        ("nowhere", "nowhere is no folder"),
        (str(tmp_path / "empty"), "no records"),
        (str(broken), "not a record"),
        ("HEAD:nowhere", "git does not know HEAD:nowhere"),
        ("--output=x:y", "required"),
        (other, "no row in common"),
    ]:
        assert command(good, wrong, monkeypatch=monkeypatch) == 2
        shown = " ".join(capsys.readouterr().err.split())
        assert named in shown
        assert "Traceback" not in shown


def test_a_git_revision_is_read_without_checking_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "results" / "s", line([20.0, 21.0, 22.0]))
    (tmp_path / "results" / "s" / "other.json").write_text("{}")
    git("init")
    git("add", ".")
    git("commit", "-m", "records")
    folder_of(tmp_path / "results" / "s", line([30.0, 31.1, 32.0]))
    for before in ("HEAD:results/s", "HEAD:results/s/records"):
        assert main([before, "results/s"]) == 1
        assert main(["results/s", before]) == 0
    with pytest.raises(UserError, match="no records"):
        main(["HEAD:results", "results/s"])


def test_the_table_fits_80_columns_and_is_safe() -> None:
    before, after = grid_of_records(), grid_of_records()[1:]
    console = Console(width=80, record=True, file=io.StringIO())
    print_changes(changes(before, after), console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    for words in (
        "fd_toy† ↓",
        "ε = ∞",
        "oracle†",
        "train s",
        "Failed before",
        "same",
        "covered by",
    ):
        assert words in text
    assert "…" not in text


def test_csv_and_json_hold_the_same_rows(tmp_path: Path) -> None:
    before = [*line([20.0, 21.0, 22.0]), record(row="non_private", epsilon=INF, fd=9.0)]
    after = [*line([30.0, 31.1, 32.0]), record(row="non_private", epsilon=INF, fd=8.0)]
    sides = [folder_of(tmp_path / n, r) for n, r in (("a", before), ("b", after))]
    files = [str(tmp_path / name) for name in ("rows.csv", "rows.json")]
    assert main([*sides, "--csv", files[0], "--json", files[1]]) == 1
    found = changes(before, after)
    assert Path(files[0]).read_text() == as_csv(found)
    assert Path(files[1]).read_text() == as_json(found)
    content = json.loads(as_json(found))
    assert content["worse"] is True
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [row["verdict"] for row in rows] == [row["verdict"] for row in content["rows"]]
    first = as_rows(found)[0]
    assert first["low"] <= first["difference"] <= first["high"]
    assert (first["name"], first["over"], first["better"]) == ("fd_toy", "pairs", "lower")
    assert "inf" in {row["epsilon_target"] for row in rows}
    single = next(row for row in content["rows"] if row["row"] == "non_private")
    assert single["low"] is None


def test_a_score_that_is_not_finite_is_no_score() -> None:
    lost = [with_metric(r, value=math.nan) for r in line([1.0, 2.0])]
    found = changes(line([1.0, 2.0]), lost)
    assert "fd_toy† has scores before only" in said(found)
    assert isinstance(lost[0].metrics["fd_toy"], MetricValue)
