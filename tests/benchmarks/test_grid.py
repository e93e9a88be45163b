"""Configuration: which cells a suite has, and what tells them apart."""

import math

import pytest
from omegaconf.errors import ReadonlyConfigError

from benchmarks import config as configuration
from benchmarks.cell import make_plan
from benchmarks.config import cells, choices
from wavedp.dp import UserError


def test_a_suite_is_the_product_of_its_axes():
    grid = cells(["suite=quick"])
    rows = [(c.config.method.name, c.row, c.epsilon) for c in grid]
    assert len(rows) == 9 * 5 == len(set(rows))
    assert rows[:5] == [
        ("dp_wavelet", "pretrained", 0.0),
        ("dp_wavelet", "private", 1.0),
        ("dp_wavelet", "private", 10.0),
        ("dp_wavelet", "non_private", math.inf),
        ("dp_wavelet", "oracle", None),
    ]


def test_an_axis_fixed_on_the_command_line_is_fixed():
    grid = cells(["suite=embedded", "dataset=toyscenes", "seed=7", "privacy.epsilon=[0.5,2]"])
    assert {c.config.dataset.name for c in grid} == {"toyscenes"}
    assert {c.seed for c in grid} == {7}
    assert {c.epsilon for c in grid if c.row == "private"} == {0.5, 2.0}


def test_identity_changes_with_what_matters_and_not_with_where_it_runs():
    weights = {"prior": "abc"}

    def identity(*changes, weights=weights):
        return cells(["suite=quick", *changes])[1].identity(weights)

    same = identity()
    assert same == identity("results_dir=elsewhere", "hardware=cpu", "force=true")
    for change in (
        "method.finetuning.steps=3",
        "dataset.private_records=5000",
        "privacy.delta=1e-6",
    ):
        assert identity(change) != same
    assert identity(weights={"prior": "abd"}) != same


def test_what_else_the_grid_asks_for_is_no_part_of_a_cell():
    """Another name would run a recorded cell again: for a private row a second release."""

    def names(*changes):
        return {cell.label: cell.identity({}) for cell in cells(["suite=embedded", *changes])}

    everything = names()
    one_seed = names("seed=1")
    assert len(one_seed) == len(everything) // 3
    assert one_seed.items() <= everything.items()
    more = names("privacy.epsilon=[0.5,1,10]")
    assert everything.items() <= more.items()
    assert len(set(more.values())) == len(more)  # and budgets and seeds still tell cells apart
    alone = names("privacy.epsilon=1", "seed=2")
    assert alone.items() <= everything.items()


def test_only_the_row_without_noise_has_the_settings_that_are_its_own():
    asked = ["suite=quick", "method=dp_vae"]
    usual = {cell.row: cell for cell in cells(asked)}
    changed = {cell.row: cell for cell in cells([*asked, "method.non_private.generator.rate=0.5"])}
    assert {row for row in usual if usual[row].identity({}) != changed[row].identity({})} == {
        "non_private"
    }
    rates = {row: cell.method.generator.rate for row, cell in changed.items()}
    assert rates.pop("non_private") == 0.5
    assert set(rates.values()) == {usual["private"].config.method.generator.rate}


def test_a_setting_of_the_row_without_noise_that_the_method_has_not_is_refused():
    asked = ["suite=quick", "method=dp_vae", "+method.non_private.generator.rte=0.5"]
    [cell] = [cell for cell in cells(asked) if cell.row == "non_private"]
    with pytest.raises(UserError, match=r"non_private of method dp_vae does not fit: .*rte"):
        cell.method  # noqa: B018


def test_a_budget_that_is_named_twice_is_one_cell():
    grid = cells(["suite=quick", "privacy.epsilon=[1,1.0]", "method=dp_wavelet"])
    assert [cell.epsilon for cell in grid if cell.row == "private"] == [1.0]


def test_a_choice_is_composed_once_and_cannot_be_changed(monkeypatch):
    configuration.load_choice.cache_clear()
    real, composed = configuration.compose, []
    monkeypatch.setattr(configuration, "compose", lambda o: composed.append(o) or real(o))
    first = configuration.load_choice("metric", "kid")
    assert configuration.load_choice("metric", "kid") is first
    assert composed == [["+metric=kid"]]
    with pytest.raises(ReadonlyConfigError):
        first.mode = "legacy_tensorflow"  # it would be another metric for everyone after this
    with pytest.raises(UserError, match="Did you mean kid"):
        configuration.load_choice("metric", "kidd")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("metod=dp_ldm", "'metod'. Did you mean method?"),
        ("method.genertor.private_scales=1", "Did you mean method.generator?"),
        ("method.generator.private_scale=1", "Did you mean method.generator.private_scales?"),
        ("suite.grid.rows=[private]", "Did you mean suite.grid.row?"),
        ("seed.more=1", "seed has no settings of its own."),
        ("dataset.zebra=99", "'dataset.zebra'. A setting that no config has is added as +dataset"),
        ("~nothing", "'nothing' does not exist."),
    ],
)
def test_a_key_that_is_none_is_told_the_nearest(wrong, said):
    with pytest.raises(UserError) as caught:
        configuration.compose(["method=dp_wavelet", wrong])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_config_names_itself():
    for group in ("dataset", "method", "suite"):
        for name in choices(group):
            assert configuration.compose([f"{group}={name}"])[group].name == name


def test_plans_come_from_the_config_alone():
    grid = cells(["suite=quick", "dataset.private_records=4000"])
    plan = make_plan(grid[1])
    assert plan.sampling_probability == plan.expected_batch / 4000
    assert make_plan(grid[0]) is None
