"""Every known trap is planted somewhere, and caught; see ``tests/mutants``."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import TRAPS, mutants

ROOT = Path(__file__).resolve().parent.parent


def test_every_trap_has_mutants_that_fit_the_code():
    assert {mutant.trap for mutant in mutants()} == set(TRAPS) == set(range(1, 34))
    for mutant in mutants():
        source = (ROOT / mutant.file).read_text()
        assert ast.dump(ast.parse(mutant.planted(source))) != ast.dump(ast.parse(source))
        for test in mutant.tests:
            file, _, name = test.partition("::")
            assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(), test


@pytest.mark.slow
def test_every_trap_is_caught():
    run = subprocess.run(
        [sys.executable, "-m", "tests.mutants"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.stdout.endswith("33 of 33 caught\n"), run.stdout + run.stderr
