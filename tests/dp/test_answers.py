"""Kept results of accounting: found again by another process, and never able to mislead."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wavedp.dp import accounting, answers
from wavedp.dp.accounting import Budget, Event, calibrate, epsilon_of

QUESTION = {"of": "epsilon", "events": [[0.1, 1.0, 10]], "delta": 1e-5}
BUDGET = Budget(1.0, 1e-5)


def forget():
    """As a new process: nothing in memory."""
    accounting._kept.cache_clear()
    accounting._computed.cache_clear()
    calibrate.cache_clear()


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("WAVEDP_CACHE", str(tmp_path / "cache"))
    forget()
    yield tmp_path / "cache" / "accounting"
    forget()


def kept(place, of):
    """Path and content of the one answer of this kind."""
    found = [(path, json.loads(path.read_text())) for path in place.iterdir()]
    (one,) = [(path, content) for path, content in found if content["question"]["of"] == of]
    return one


@pytest.mark.parametrize("answer", [1.0, 0.1 + 0.2, 5e-324, 0.0, math.inf])
def test_an_answer_comes_back_exactly(answer):
    assert answers.recall(QUESTION) is None
    answers.keep(QUESTION, answer)
    assert answers.recall(QUESTION) == answer
    assert answers.recall(QUESTION | {"delta": 1e-6}) is None


def test_places(monkeypatch, tmp_path):
    assert answers.folder() == tmp_path / "cache" / "accounting"
    monkeypatch.setenv("WAVEDP_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert answers.folder() == tmp_path / "xdg" / "wavedp" / "accounting"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert answers.folder() == tmp_path / "home" / ".cache" / "wavedp" / "accounting"


def test_a_damaged_file_counts_as_missing(place):
    answers.keep(QUESTION, 0.5)
    (path,) = place.iterdir()
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert answers.recall(QUESTION) is None
    for position in range(len(whole)):
        for flip in (1, 4, 128):
            path.write_bytes(
                whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :]
            )
            assert answers.recall(QUESTION) is None
    for junk in (b"[" * 100_000, b"null", b"{}", b'{"answer": 0.5}'):
        path.write_bytes(junk)
        assert answers.recall(QUESTION) is None
    answers.keep(QUESTION, 0.5)
    assert answers.recall(QUESTION) == 0.5


def test_a_folder_in_the_place_of_a_file_is_no_answer(place):
    answers.keep(QUESTION, 0.5)
    (path,) = place.iterdir()
    path.unlink()
    path.mkdir()
    answers.keep(QUESTION, 0.5)
    assert answers.recall(QUESTION) is None
    assert [p.name for p in place.iterdir()] == [path.name]


def test_what_is_interrupted_leaves_nothing(place, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        answers.keep(QUESTION, 0.5)
    assert not list(place.iterdir())


def no_home():
    raise RuntimeError("Could not determine home directory.")


def test_without_a_place_results_are_the_same(place, monkeypatch, tmp_path):
    counts = {Event(0.1, 2.0): 10}
    expected, sigma = epsilon_of(counts, 1e-5), calibrate(BUDGET, 0.1, 10)
    forget()
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("WAVEDP_CACHE", str(blocked))
    assert (epsilon_of(counts, 1e-5), calibrate(BUDGET, 0.1, 10)) == (expected, sigma)
    forget()
    monkeypatch.delenv("WAVEDP_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert (epsilon_of(counts, 1e-5), calibrate(BUDGET, 0.1, 10)) == (expected, sigma)


def test_a_place_that_cannot_be_written_is_read(place, monkeypatch):
    counts = {Event(0.1, 2.0): 10}
    expected = epsilon_of(counts, 1e-5)
    forget()

    def refuse(*_, **__):
        raise PermissionError("read-only file system")

    monkeypatch.setattr(answers, "replacing", refuse)
    monkeypatch.setattr(accounting, "_computed", refuse)
    assert epsilon_of(counts, 1e-5) == expected
    monkeypatch.undo()  # before the fixture clears what this patched


def test_everything_that_matters_is_part_of_the_question(monkeypatch):
    asked = []
    monkeypatch.setattr(answers, "recall", lambda question: asked.append(question) or 0.5)
    event = Event(0.1, 2.0)
    epsilon_of({event: 10}, 1e-5)
    for counts in ({event: 11}, {Event(0.2, 2.0): 10}, {Event(0.1, 3.0): 10}):
        epsilon_of(counts, 1e-5)
    epsilon_of({event: 10, Event(1.0, 5.0): 1}, 1e-5)
    epsilon_of({event: 10}, 1e-6)
    epsilon_of({event: 10}, 1e-5, interval=1e-3)
    for accountant in ("prv", "rdp"):
        epsilon_of({event: 10}, 1e-5, accountant)
    for budget, q, steps in (
        (BUDGET, 0.1, 10),
        (Budget(2.0, 1e-5), 0.1, 10),
        (Budget(1.0, 1e-6), 0.1, 10),
        (Budget(1.0, 1e-5, accountant="prv"), 0.1, 10),
        (BUDGET, 0.2, 10),
        (BUDGET, 0.1, 11),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(accounting, "epsilon_of", lambda *_: 0.0)
            calibrate(budget, q, steps)
    for name, value in (("version", lambda _: "99"), ("RELATION", "other"), ("COMPUTATION", 99)):
        forget()
        with monkeypatch.context() as patch:
            patch.setattr(accounting, name, value)
            epsilon_of({event: 10}, 1e-5)
    assert len({answers._path(question) for question in asked}) == len(asked) == 18
    assert all("dp-accounting" in q["library"] or "opacus" in q["library"] for q in asked)


def test_the_order_of_queries_is_no_part_of_the_question(place):
    first, second = Event(0.1, 2.0), Event(1.0, 5.0)
    assert epsilon_of({first: 3, second: 1}, 1e-5) == epsilon_of({second: 1, first: 3}, 1e-5)
    assert len(list(place.iterdir())) == 1


def test_an_answer_to_another_question_is_not_used(place):
    right = epsilon_of({Event(0.1, 2.0): 10}, 1e-5)
    path, _ = kept(place, "epsilon")
    answers.keep(QUESTION, 0.001)
    (planted,) = set(place.iterdir()) - {path}
    planted.replace(path)
    forget()
    assert epsilon_of({Event(0.1, 2.0): 10}, 1e-5) == right


def test_a_kept_answer_is_used(place):
    """Otherwise the tests around this one would show nothing."""
    right = epsilon_of({Event(0.1, 2.0): 10}, 1e-5)
    _, content = kept(place, "epsilon")
    answers.keep(content["question"], right + 1)
    forget()
    assert epsilon_of({Event(0.1, 2.0): 10}, 1e-5) == right + 1


@pytest.mark.parametrize("factor", [0.9, -1.0, 0.0, math.nan])
def test_a_kept_sigma_that_breaks_the_budget_is_not_used(place, factor):
    sigma = calibrate(BUDGET, 0.1, 10)
    _, content = kept(place, "sigma")
    answers.keep(content["question"], sigma * factor)
    forget()
    assert calibrate(BUDGET, 0.1, 10) == sigma
    forget()
    assert kept(place, "sigma")[1]["answer"] == sigma


CHILD = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("dp_accounting", "opacus", "scipy"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
from wavedp.dp.accounting import Budget, Event, calibrate, epsilon_of
sigma = calibrate(Budget(1.0, 1e-5), 0.1, 10)
print(repr((sigma, epsilon_of({Event(0.1, sigma): 10}, 1e-5))))
"""


def test_another_process_does_not_compute_again():
    sigma = calibrate(BUDGET, 0.1, 10)
    epsilon = epsilon_of({Event(0.1, sigma): 10}, 1e-5)
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True)
    assert child.stdout.strip() == repr((sigma, epsilon)), child.stderr
