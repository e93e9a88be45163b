"""The command: plants traps in a copy of the code and runs the tests that must fail."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from . import TRAPS, Mutant, mutants

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ("wavedp", "baselines", "benchmarks")
SECONDS = 120
"""For the tests of one mutant, which take about one; a mutant may wait for ever."""

# Imported once, so that the processes forked from this one need not. None of them imports ours.
LIBRARIES = ("torch", "torch._dynamo", "pytest", "hypothesis", "hydra")
FORK = multiprocessing.get_context("fork")
FOREIGN = 70


class Copy:
    """A copy of the sources, where tests run on what is planted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in (*SOURCES, "configs", "tests"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", folder)

    def run(self, tests: Iterable[str], seconds: float = SECONDS) -> dict[str, str]:
        """What became of each test: "passed", "failure: why", or why it did not run."""
        tests, report = list(tests), self.folder / "report.xml"
        report.unlink(missing_ok=True)
        process = FORK.Process(target=_run_tests, args=(self.folder, tests, report))
        process.start()
        process.join(seconds)
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)  # and what the tests started
            process.join()
            return dict.fromkeys(tests, f"no answer within {seconds} s")
        if process.exitcode == FOREIGN:
            return dict.fromkeys(tests, "did not import the copy but what is installed")
        cases = ElementTree.parse(report).iter("testcase") if report.exists() else []
        found = {f"{case.attrib['classname']}::{case.attrib['name']}": case for case in cases}
        keys = {test: test.replace("/", ".").replace(".py::", "::") for test in tests}
        return {test: _outcome(found.get(key)) for test, key in keys.items()}

    def survives(self, mutant: Mutant) -> str:
        """Why the mutant is not caught; empty if it is."""
        file = self.folder / mutant.file
        source = file.read_text()
        file.write_text(mutant.planted(source))
        try:
            found = self.run(mutant.tests)
        finally:
            file.write_text(source)
        wanted = (mutant.error,) if mutant.error else ("assert", "AssertionError", "Failed")
        for test, outcome in found.items():
            if not outcome.startswith(tuple(f"failure: {kind}" for kind in wanted)):
                return f"{mutant.what}: {test}: {outcome}"
        return ""


def _run_tests(folder: Path, tests: list[str], report: Path) -> None:
    """In a process of its own: run pytest on the copy, and on nothing else."""
    import pytest

    os.setsid()
    os.chdir(folder)
    sys.path[:] = [str(folder), *(p for p in sys.path if Path(p).resolve() != ROOT)]
    # A file of bytecode of the same second and size would stand for a changed source.
    sys.dont_write_bytecode = True
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        options = ["-p", "no:cacheprovider", "--hypothesis-seed=0", f"--junitxml={report}"]
        pytest.main([*options, *tests])
    ours = [m for name, m in sys.modules.items() if name.partition(".")[0] in SOURCES]
    if not all(Path(m.__file__).is_relative_to(folder) for m in ours if m.__file__):
        sys.exit(FOREIGN)


def _outcome(case: ElementTree.Element | None) -> str:
    if case is None:
        return "did not run"
    for part in case:
        if part.tag in ("failure", "error", "skipped"):
            return f"{part.tag}: {part.attrib.get('message', '').partition(chr(10))[0]}"
    return "passed"


def _show(text: str) -> None:
    """How far it is, on a line that the next one replaces."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text:.79}", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Plant the traps of these numbers, or all; 0 if all are caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("traps", nargs="*", type=int, help="numbers of traps; all without")
    numbers = sorted(set(parser.parse_args().traps)) or list(TRAPS)
    if unknown := set(numbers) - TRAPS.keys():
        parser.error(f"there is no trap {min(unknown)}; traps are {min(TRAPS)} to {max(TRAPS)}")
    os.environ["OMP_NUM_THREADS"] = "1"
    for library in LIBRARIES:
        importlib.import_module(library)
    with tempfile.TemporaryDirectory(prefix="wavedp-mutants-") as folder:
        return _plant(numbers, Copy(Path(folder).resolve()))


def _plant(numbers: list[int], copy: Copy) -> int:
    chosen = [mutant for mutant in mutants() if mutant.trap in numbers]
    tests = sorted({test for mutant in chosen for test in mutant.tests})
    print(f"{len(chosen)} mutants of {len(numbers)} traps, {len(tests)} tests", flush=True)
    _show("the tests on the code as it is")
    clean = copy.run(tests, 10 * SECONDS)
    if failing := [f"{test}: {why}" for test, why in clean.items() if why != "passed"]:
        _show("")
        print(*failing, "These must pass before a trap is planted.", sep="\n")
        return 1
    caught = done = 0
    for number in numbers:
        began, reasons = time.perf_counter(), []
        for mutant in [mutant for mutant in chosen if mutant.trap == number]:
            _show(f"{done} of {len(chosen)} mutants; trap {number}: {mutant.what}")
            reasons.append(copy.survives(mutant))
            done += 1
        _show("")
        verdict, seconds = ("NOT CAUGHT" if any(reasons) else "caught"), time.perf_counter() - began
        print(f"{number:2d}  {TRAPS[number]:<58}{verdict:>10}{seconds:5.0f} s")
        print("".join(f"    {reason:.300}\n" for reason in reasons if reason), end="", flush=True)
        caught += not any(reasons)
    print(f"{caught} of {len(numbers)} caught")
    return 0 if caught == len(numbers) else 1


if __name__ == "__main__":
    sys.exit(main())
