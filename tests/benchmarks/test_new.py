"""A method that is begun by ``benchmarks.new``: whole, short, and never in the way of others."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks import new
from benchmarks.record import load_folder
from wavedp.dp import UserError

ROOT = Path(__file__).resolve().parents[2]
NAME = "a_method_of_my_own"


def test_file_and_config_are_under_eighty_lines_together():
    assert sum(text.count("\n") for text in new.skeleton(NAME).values()) < 80


def test_contributing_shows_the_example_as_it_is():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    for place in new.PLACES:
        text = (ROOT / place.format(new.EXAMPLE)).read_text()
        assert f"\n{text}```\n" in page, place


@pytest.mark.parametrize("name", ["a", "x2", NAME, "m" * 40])
def test_a_skeleton_bears_its_name_and_no_other(name):
    code, config = new.skeleton(name).values()
    compile(code, name, "exec")
    method = yaml.safe_load(config)
    target = f"baselines.{name}.{new.class_name(name)}"
    assert (method["name"], method["generator"]["_target_"]) == (name, target)
    assert not {"DPVae", "dp_vae"} & set(re.findall(r"\w+", code + config))


def test_a_skeleton_is_formatted_whatever_its_name():
    for name in ("a", "m" * 40):
        code = new.skeleton(name)[f"baselines/{name}.py"]
        ruff = [sys.executable, "-m", "ruff", "format", "--check", "--line-length", "100", "-"]
        assert subprocess.run(ruff, input=code, text=True, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("", "letters"),
        ("MyMethod", "letters"),
        ("2nd", "letters"),
        ("_mine", "letters"),
        ("my-method", "letters"),
        ("my method", "letters"),
        ("../mine", "letters"),
        ("méthode", "letters"),
        ("mine\n", "letters"),
        ("m" * 41, "letters"),
        ("class", "Python"),
        ("none", "Python"),
        ("null", "YAML"),
        ("on", "YAML"),
        ("tensor", "skeleton"),
        ("low_band_encoder", "skeleton"),
        ("dp_vae", "already"),
        ("dp_merf", "already"),
        ("dp_wavelet", "already"),  # a config alone
        ("dp_wavelet_ll32", "already"),  # in a folder of configs
        ("px64", "already"),  # such a folder
        ("dp_full_finetune", "already"),
    ],
)
def test_a_name_that_cannot_be_is_refused_before_anything_is_written(name, named, monkeypatch):
    monkeypatch.setattr(new, "write", lambda *_: pytest.fail("something was written"))
    with pytest.raises(UserError, match=named) as caught:
        new.main(["method", name])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", [[], ["method"], ["metric", "mine"], ["method", "a", "b"]])
def test_anything_else_is_refused_with_the_way_to_say_it(arguments, monkeypatch):
    monkeypatch.setattr(new, "write", lambda *_: pytest.fail("something was written"))
    with pytest.raises(UserError, match=r"benchmarks\.new method NAME"):
        new.main(arguments)


def test_a_module_without_a_config_is_not_written_over(tmp_path, monkeypatch):
    monkeypatch.setattr(new, "ROOT", tmp_path)
    file = tmp_path / "baselines" / "mine.py"
    file.parent.mkdir()
    file.write_text("precious")
    with pytest.raises(UserError, match="already"):
        new.main(["method", "mine"])
    assert file.read_text() == "precious"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the project in which a method was begun, and what was said of it."""
    folder = tmp_path_factory.mktemp("copy")
    for part in ("baselines", "benchmarks", "configs", "tests/contract"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / part, folder / part)
    (folder / "wavedp").symlink_to(ROOT / "wavedp")
    return folder, in_copy(folder, "benchmarks.new", "method", NAME).stderr


def in_copy(folder, *command):
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    command = [sys.executable, "-m", *command]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_what_is_said_to_do_next_are_commands_that_work(copy):
    _, said = copy
    assert f"python -m pytest tests/contract -k {NAME}\n" in said
    assert f"python -m benchmarks.run suite=smoke method={NAME}\n" in said


@pytest.mark.slow  # the same text under its first name is held to it by every run
def test_a_begun_method_keeps_the_contract_as_it_is(copy):
    folder, _ = copy
    done = in_copy(folder, "pytest", "-p", "no:cacheprovider", "tests/contract", "-k", NAME)
    assert "passed" in done.stdout


def test_a_begun_method_runs_as_it_is(copy):
    folder, _ = copy
    small = ["suite.samples=24", "dataset.private_records=64", "dataset.evaluation_records=300"]
    in_copy(folder, "benchmarks.run", "suite=smoke", f"method={NAME}", *small)
    records = load_folder(folder / "results" / "smoke" / "records")
    assert {(r.method, r.status) for r in records} == {(NAME, "ok")}
    assert {r.row for r in records} == {"pretrained", "private", "oracle"}
