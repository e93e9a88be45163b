"""The search for hyper-parameters, the same for every method."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_records import grid_of_records

from benchmarks import tune
from benchmarks.config import cells, choices, compose
from wavedp.dp.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("method", choices("method"))
def test_every_search_tries_four_values_in_steps_of_two_and_the_config_has_one(method):
    config = compose([f"method={method}"]).method
    if not config.get("search"):
        pytest.skip("shares the settings of another method")
    for row in tune.searched_rows(config):
        setting, values = tune.search_of(config, row)
        assert len(values) == 4
        assert [b / a for a, b in itertools.pairwise(values)] == pytest.approx([2, 2, 2])
        assert tune.value_of(config, setting, row) in values


def test_stand_in_records_are_others_than_those_reported():
    standing_in, _ = cells(["suite=tuning", "method=dp_wavelet"])
    reported = cells(["suite=embedded", "dataset=toyfaces", "method=dp_wavelet"])[0]
    seeds = [cell.config.dataset.get("seed", 0) for cell in (standing_in, reported)]
    assert seeds[0] != seeds[1]
    del standing_in.config.dataset.seed
    assert standing_in.config.dataset == reported.config.dataset


def test_a_method_without_a_search_is_told_how_to_name_one():
    config = compose(["method=dp_wavelet", "~method.search"]).method
    with pytest.raises(UserError, match=r"names no search.*search: \{"):
        tune.search_of(config)


@pytest.mark.parametrize("other", ["dataset=toyscenes", "dataset.seed=0", "+dataset.start=1"])
def test_other_records_than_stand_ins_are_refused(other):
    with pytest.raises(UserError, match="stand-in records alone"):
        tune.main(["method=dp_merf", other])


def test_a_suite_whose_records_are_reported_is_refused():
    with pytest.raises(UserError, match="suite=embedded has records that are reported"):
        tune.main(["method=dp_merf", "suite=embedded"])


def test_photographs_have_stand_ins_of_their_own(tmp_path, monkeypatch):
    """As many as there are faces, at the same epsilon, judged by their metric."""
    ran = []
    monkeypatch.setattr(tune.run, "main", lambda overrides: ran.append(overrides) or 0)
    monkeypatch.setattr(tune, "load_folder", lambda folder: [])
    suite = ["suite=tuning64", "method=px64/dp_wavelet"]
    tune.main([*suite, f"results_dir={tmp_path}"])
    assert "fid_768" in pd.read_csv(tmp_path / "tuning64" / "search.csv").columns
    reported = cells(["suite=real64", "method=px64/dp_wavelet", "privacy.epsilon=[10]"])[0]
    standing_in = [cell for overrides in ran for cell in cells(overrides)]
    assert standing_in
    for cell in standing_in:
        assert cell.config.dataset.name == "toyfaces"
        assert cell.config.dataset.seed != compose([]).dataset.get("seed", 1)
        assert cell.config.dataset.private_records == 22000
        assert cell.config.dataset.resolution == 64
        if cell.row == "private":
            assert cell.config.privacy == reported.config.privacy
            own, theirs = (dict(c.config.method.finetuning) for c in (cell, reported))
            assert own.pop("steps") * 3 == pytest.approx(theirs.pop("steps"), rel=0.01)
            assert own == theirs


def with_score(record, method, value):
    score = record.metrics["fd_toy"].model_copy(update={"value": value})
    return record.model_copy(update={"config": {"method": method}, "metrics": {"fd_toy": score}})


def test_a_method_that_follows_gradients_is_tuned_without_noise_too(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(tune.run, "main", lambda overrides: ran.append(overrides) or 0)
    monkeypatch.setattr(tune, "load_folder", lambda folder: [])
    tune.main(["method=dp_vae", f"results_dir={tmp_path}"])
    values = compose(["method=dp_vae"]).method.search["generator.rate"]
    chosen = [cells(overrides) for overrides in ran[4:]]
    assert [[c.row for c in grid] for grid in chosen] == [["non_private"]] * 4
    assert [grid[0].method.generator.rate for grid in chosen] == values
    assert {grid[0].config.method.generator.rate for grid in chosen} == {2.5e-3}


def test_each_value_is_run_and_the_table_has_a_line_for_each(tmp_path, monkeypatch, capsys):
    """What is run is spied upon; the table is made from records alone."""
    ran = []
    [one] = [record for record in grid_of_records() if record.row == "private"][:1]

    def run(overrides):
        ran.append(overrides)
        return 0

    monkeypatch.setattr(tune.run, "main", run)
    method = {"search": {"finetuning.clip": [1.0, 2.0]}, "finetuning": {"clip": 2.0}}
    other = {**method, "generator": {"width": 8}}
    made = [
        with_score(one, how, score)
        for how, score in ((other, 90.0), (method, 30.0), (method, 33.01))
    ]
    monkeypatch.setattr(tune, "load_folder", lambda folder: made)
    assert tune.main(["method=dp_merf", f"results_dir={tmp_path}"]) == 0
    tried = compose(["method=dp_merf"]).method.search["generator.rate"]
    assert [run[-1] for run in ran] == [f"method.generator.rate={value}" for value in tried]
    table = pd.read_csv(tmp_path / "tuning" / "search.csv")
    assert table["value"].tolist() == [2.0, 2.0]
    assert table["attempt"].tolist() == [1, 2]  # what differs in another setting is one of its own
    _, line = table.to_dict("records")
    assert (line["fd_toy"], line["lowest"], line["highest"]) == (31.5, 30, 33.01)
    assert (line["seeds"], line["failed"]) == (2, 0)


@pytest.mark.parametrize(
    ("suite", "methods", "count", "seeds"),
    [
        ("tuning", choices("method"), 4, 2),
        ("tuning64", list(compose(["suite=real64"]).suite.grid.method), 3, 1),
    ],
)
def test_the_configs_have_what_the_committed_search_found(suite, methods, count, seeds):
    """The best value on stand-in records, for every method that is tuned."""
    search = ROOT / "results" / suite / "search.csv"
    if not search.exists():
        pytest.skip("no search is committed")
    table = pd.read_csv(search)
    assert (table["failed"] == 0).all()
    metric = table.columns[len(tune.KEYS)]
    tuned = {}
    for name in methods:
        config = compose([f"method={name}"]).method
        if config.get("search"):
            tuned |= {(config.name, row): config for row in tune.searched_rows(config)}
    table["row"] = np.where(table["epsilon"] == np.inf, "non_private", "private")
    assert set(table.groupby(["method", "row"]).groups) == set(tuned)
    for (method, row), tried in table.groupby(["method", "row"]):
        config = tuned[method, row]
        setting, values = tune.search_of(config, row)
        # An attempt that is given up needs no more values, but then another one was better.
        best = tried.loc[tried[metric].idxmin()]
        own = tried[tried["attempt"] == best["attempt"]]
        asked = own[own["value"].isin(values)]
        wanted = seeds if row == "private" else 1
        assert asked["seeds"].tolist() == [wanted] * count, (method, row)
        assert tune.value_of(config, setting, row) == best["value"], method
