"""Shared fixtures. Tests compute on one thread: shared machines crawl with more."""

import os
import pickle
import tempfile
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

# Kept results of accounting: a folder of this run alone, or a test would see what older code
# computed. Set here, because test modules calibrate while they are imported.
_answers = tempfile.TemporaryDirectory(prefix="wavedp-answers-")
os.environ["WAVEDP_CACHE"] = _answers.name

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A folder for drawn pictures, shared by all tests of a session."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def in_root(monkeypatch):
    """Run in the project's folder, as the commands do."""
    monkeypatch.chdir(ROOT)
    return ROOT


class Trap:
    """Pickles into a call that leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def trap(tmp_path):
    """A trap that works where nothing stops it, and that must not have sprung at the end."""
    trace = tmp_path / "trace"
    pickle.loads(pickle.dumps(Trap(trace)))
    trace.rmdir()
    yield Trap(trace)
    assert not trace.exists()


os.environ.setdefault("COLUMNS", "80")
