"""What there is to choose from, a line each."""

import pytest

from benchmarks import list as listing
from benchmarks.config import CONFIGS, compose
from wavedp.dp import UserError

ALL = [(group, name, text) for group in listing.GROUPS for name, text in listing.entries(group)]


@pytest.mark.parametrize(("group", "name", "text"), ALL, ids=lambda value: str(value)[:40])
def test_every_choice_says_in_a_sentence_what_it_is(group, name, text):
    assert text.endswith("."), "its config begins with no comment"
    assert 10 < len(text) < 260
    assert (CONFIGS / group / f"{name}.yaml").is_file()


def test_names_are_what_an_override_takes():
    assert compose(["method=px64/dp_wavelet"]).method.name == "dp_wavelet"
    assert ("px64/dp_wavelet" in dict(listing.entries("method"))) is True


def test_one_group_is_printed_alone(capsys):
    assert listing.main(["suite"]) == 0
    out = capsys.readouterr().out
    assert "suite=embedded" in out
    assert "method=" not in out


def test_an_unknown_group_names_the_nearest():
    with pytest.raises(UserError, match=r"Unknown group 'metod'.*Did you mean method\?"):
        listing.main(["metod"])


def test_the_text_is_the_first_sentence_of_the_comment(tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text("# @package _global_\n# One at\n# 0.5 of it: all. Two.\nname: a\n# Three.\n")
    assert listing.first_sentence(config) == "One at 0.5 of it: all."
    config.write_text("name: a\n# Late.\n")
    assert listing.first_sentence(config) == ""
