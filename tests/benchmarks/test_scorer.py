"""The scorer: what goes into records and tables, with weights and without them."""

from __future__ import annotations

import math
from pathlib import Path

import fake_weights
import pytest
import torch
from report_records import record

from benchmarks import run
from benchmarks.config import load_choice
from benchmarks.metrics import directions
from benchmarks.protocol import Protocol
from benchmarks.record import Evaluated, MetricValue, NotComputed, Record, load_folder
from benchmarks.report.comparison import compare
from benchmarks.report.facts import metrics_of
from benchmarks.report.intervals import intervals
from benchmarks.report.notes import footer
from benchmarks.report.tables import markdown
from benchmarks.scorer import Scorer, check_metrics
from wavedp.data.toyfaces import ToyFaces
from wavedp.dp.errors import UserError

PUBLISHED = ["fid", "kid", "clip_score", "lpips", "prdc", "fd_clip", "fid_768"]
NETWORK_FREE = ["fd_toy", "clip_toy", "spectral", "memorisation", "prdc_toy"]


@pytest.fixture
def dataset(cache: str) -> ToyFaces:
    return ToyFaces(private_records=40, evaluation_records=120, cache_dir=cache)


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has fetched nothing."""
    for variable in ("WAVEDP_WEIGHTS", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "nothing"))
    monkeypatch.setattr("benchmarks.features._opened", {})


def test_missing_weights_leave_the_other_metrics_and_no_number(
    dataset: ToyFaces, no_weights: None
) -> None:
    check_metrics([*PUBLISHED, *NETWORK_FREE])
    found = Scorer.make(dataset, [*PUBLISHED, *NETWORK_FREE], 40)
    assert set(found.metrics) == set(NETWORK_FREE)
    missing = found.missing("text")
    assert set(missing) == {
        *("fid", "kid", "clip_score", "lpips", "fd_clip", "fid_768"),
        *(f"prdc_{part}" for part in ("precision", "recall", "density", "coverage")),
    }
    assert set(missing) - set(found.missing("none")) == {"clip_score", "lpips"}
    reason = missing["prdc_recall"].reason
    assert reason.startswith("weights inception-2015-12-05 missing, get them by `python -m")
    held = torch.cat(list(found.evaluation.held_images))
    values = found.values([held], found.evaluation.prompts, "text")
    assert not set(values) & set(missing)
    assert {"spectral_energy_ll", "memorisation_closer", "prdc_toy_recall"} <= set(values)


def test_values_say_what_they_read_and_how_sure_they_are(dataset: ToyFaces) -> None:
    found = Scorer.make(dataset, NETWORK_FREE, 40)
    held = torch.cat(list(found.evaluation.held_images))
    values = found.values(list(held.split(13)), found.evaluation.prompts, "text")
    reads = {name: value.reads for name, value in values.items()}
    assert (reads["fd_toy"], reads["clip_toy"]) == ("evaluation", "nothing")
    assert reads["memorisation_distance"] == "private"
    private = values["memorisation_distance"]
    assert private.reads_private
    assert private.n_reference == 40
    assert values["clip_toy"].n_reference is None
    for name, value in values.items():
        assert value.value == pytest.approx(found.real[name], rel=1e-4, abs=1e-6)
        # One set of samples does not tell how much recall and coverage vary.
        stated = not name.endswith(("recall", "coverage"))
        assert (value.standard_error is not None and value.standard_error >= 0) == stated, name
    unlike = {name: value.unlike for name, value in values.items()}
    assert (unlike["fd_toy"], unlike["clip_toy"]) == ("FID", "CLIP score")
    assert unlike["memorisation_distance"] == ""
    assert set(values["fd_toy"].weights) == {"yardstick"}
    assert values["spectral_energy_d1"].direction == "zero"
    unconditional = found.values([held], found.evaluation.prompts, "none")
    assert set(values) - set(unconditional) == {"clip_toy"}


def test_pairs_are_a_sample_and_the_real_image_of_its_caption(
    dataset: ToyFaces, random_weights: Path
) -> None:
    """The real images in the order of their prompts score 0, in another order they do not."""
    found = Scorer.make(dataset, ["lpips"], 90)  # 60 held-out images: some serve twice
    prompts = found.evaluation.prompts
    batches = list(found.evaluation.real(slice(0, len(prompts))).split(25))
    assert found.score(batches, prompts) == {"lpips": pytest.approx(0, abs=1e-6)}
    assert found.score(batches[::-1], prompts)["lpips"] > 1e-3
    assert found.real == {}  # an image against itself says nothing


def test_real_images_are_not_scored_against_themselves(dataset: ToyFaces) -> None:
    everything = Protocol(name="all", reference="all", prompts=50)
    found = Scorer.make(dataset, ["fd_toy", "clip_toy"], 10, everything)
    assert set(found.real) == {"clip_toy"}
    held = torch.cat(list(found.evaluation.held_images))
    assert found.values([held], found.evaluation.prompts, "text")["fd_toy"].floor is None


def test_too_few_samples_are_refused_before_work(dataset: ToyFaces) -> None:
    with pytest.raises(UserError, match=r"prdc_toy needs at least 6 .* raise suite\.samples"):
        Scorer.make(dataset, ["prdc_toy"], 5)


def test_a_damaged_file_of_weights_is_refused_before_any_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inception_fid_768_fp16.safetensors").write_bytes(b"x")
    monkeypatch.setenv("WAVEDP_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match="is not the file that the registry calls"):
        check_metrics(["fd_toy", "fid_768"])


def test_metrics_that_share_a_network_pass_each_image_once(
    dataset: ToyFaces, random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Scorer.make(dataset, ["kid", "prdc"], 20)
    seen: list[int] = []
    space = found.metrics["kid"].space  # type: ignore[attr-defined]
    assert space is found.metrics["prdc"].space  # type: ignore[attr-defined]
    extract = space.extract
    monkeypatch.setattr(space, "extract", lambda x: seen.append(len(x)) or extract(x))
    held = torch.cat(list(found.evaluation.held_images))
    found.score(list(held.split(10)), found.evaluation.prompts)
    assert sum(seen) == len(held)


def test_a_run_without_weights_says_so_in_records_and_tables(
    tmp_path: Path,
    cache: str,
    in_root: Path,
    no_weights: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen = [
        *("suite=smoke", "suite.samples=24", "suite.metrics=[fd_toy,fid,memorisation]"),
        *("dataset.private_records=64", "dataset.evaluation_records=100", "method=dp_wavelet"),
        *("suite.grid.row=[pretrained]", f"results_dir={tmp_path}", f"cache_dir={cache}"),
    ]
    assert run.main(chosen) == 0
    records = load_folder(tmp_path / "smoke" / "records")
    assert set(records[0].not_computed) == {"fid"}
    assert "fid" not in records[0].metrics
    evaluated = records[0].evaluated
    assert evaluated is not None
    assert (evaluated.protocol, evaluated.prompts, evaluated.reference) == ("quick", 24, "rest")
    assert len(evaluated.prompts_sha256) == 64
    assert records[0].provenance.overlap == "none"
    text = (tmp_path / "smoke" / "table.md").read_text()
    page = (tmp_path / "smoke" / "report.html").read_text()
    for words in ("not computed", "fid not computed: weights inception-2015-12-05 missing"):
        assert words in text
        assert words in page
    said = " ".join(capsys.readouterr().err.split())
    for name in ("fd_toy†", "memorisation_distance† (reads private records)"):
        assert name in text
        assert name in page
        assert f"{name} {records[0].metrics[name.split('†')[0]].value:.2f}" in said
    assert "† evaluation, not private" in said
    assert "evaluation, not private" in text
    assert "| method | row | overlap |" in text
    assert evaluated.prompts_sha256[:16] in page
    assert "over samples" in page


# The report, from hand-built records --------------------------------------------------------


def scored(value: float, seed: int = 0, **changes: object) -> Record:
    score = MetricValue(
        value=value,
        direction="zero",
        n_samples=9,
        protocol="p",
        reads="nothing",
        standard_error=0.5,
    ).model_copy(update=changes)
    return record(seed=seed).model_copy(update={"metrics": {"energy": score}})


def test_nearer_to_zero_is_better() -> None:
    one = record("a").model_copy(update={"metrics": scored(-0.2).metrics})
    other = record("b").model_copy(update={"metrics": scored(0.5).metrics})
    best = [line.method for line in compare([one, other], "toy_shapes").lines if line.cells[0].best]
    assert best == ["A"]
    assert metrics_of([one])[0].title == "energy →0"


def test_one_seed_shows_the_interval_over_samples_and_says_so() -> None:
    records = [scored(10.0)]
    assert compare(records, "toy_shapes").lines[0].cells[0].text == "10.00 ± 0.98"
    assert "95% interval over samples and" in " ".join(footer(records))
    two = [scored(10.0), scored(11.0, seed=1)]
    assert "±" in compare(two, "toy_shapes").lines[0].cells[0].text
    assert "t-interval over seeds" in " ".join(footer(two))


def test_intervals_over_samples_and_seeds_stand_side_by_side() -> None:
    rows = intervals([scored(10.0), scored(12.0, seed=1)])
    assert len(rows) == 1
    assert rows[0].mean == 11
    assert rows[0].samples == "10.02 to 11.98"
    assert rows[0].seeds == "-1.706 to 23.71"  # 11 ± t(0.975, 1), as in the tables
    assert intervals([scored(10.0)])[0].seeds == "–"
    assert intervals([record()]) == []  # older records have no errors


def test_what_is_not_computed_is_a_column_and_a_sentence() -> None:
    absent = NotComputed(reason="weights x missing, get them by y", direction="lower")
    records = [record().model_copy(update={"not_computed": {"fid": absent}})]
    comparison = compare(records, "toy_shapes")
    assert "fid ↓" in comparison.columns
    assert "not computed" in [cell.text for cell in comparison.lines[0].cells]
    assert "fid not computed: weights x missing, get them by y." in footer(records)
    assert "not computed" in markdown(records)


def test_overlap_stands_beside_epsilon_where_it_is_recorded() -> None:
    old = [record()]
    assert "overlap" not in markdown(old)
    part = old[0].provenance.model_copy(update={"overlap": "unknown"})
    new = [old[0].model_copy(update={"provenance": part})]
    assert "| DP-Wavelet | ε = 1 | unknown |" in markdown(new)
    assert "nobody looked" in " ".join(footer(new))


def test_new_fields_are_optional_and_survive_a_round_trip() -> None:
    evaluated = Evaluated(
        protocol="quick", prompts=3, prompts_sha256="ab", reference="rest", preparation="none"
    )
    new = scored(math.pi).model_copy(update={"evaluated": evaluated})
    assert Record.model_validate_json(new.model_dump_json()) == new
    old = record().model_dump(mode="json")
    for key in ("not_computed", "evaluated"):
        old.pop(key)
    old["provenance"].pop("overlap")
    for score in old["metrics"].values():
        for key in ("reads", "standard_error", "weights"):
            score.pop(key)
    assert Record.model_validate(old).metrics["fd_toy"].reads is None


def test_random_networks_stay_where_they_are(random_weights: Path) -> None:
    """The names that tests give to random networks occur in no config."""
    for name in ("clip_score", "fd_clip"):
        assert load_choice("metric", name).model != fake_weights.CLIP


def test_directions_cover_all_parts(dataset: ToyFaces) -> None:
    found = Scorer.make(dataset, ["spectral"], 40)
    assert set(directions("spectral", found.metrics["spectral"])) == set(found.real)
