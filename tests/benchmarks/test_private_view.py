"""Who looks at private images: metrics that say so, through one door, and nobody else."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.config import choices, load_choice, make
from benchmarks.metrics import Metric
from benchmarks.private_view import for_evaluation
from wavedp.data.toyfaces import ToyFaces
from wavedp.dp.evaluation_door import look
from wavedp.dp.private import PrivateRecords

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [p for f in ("wavedp", "baselines", "benchmarks") for p in (ROOT / f).rglob("*.py")]


def importers(name: str) -> set[str]:
    """The modules that import a module of this name, in whatever form."""
    found = set()
    for path in SOURCES:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {alias.name for n in nodes for alias in getattr(n, "names", []) if _is_import(n)}
        names |= {str(n.module) for n in nodes if isinstance(n, ast.ImportFrom)}
        texts = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        if any(part.split(".")[-1] == name for part in names | texts):
            found.add(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return found


def _is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def test_the_door_is_opened_in_one_place() -> None:
    assert importers("evaluation_door") == {"benchmarks.private_view"}


def test_only_metrics_that_say_so_look_at_private_images() -> None:
    modules = importers("private_view") - {"benchmarks.neighbours"}  # a page for the owner alone
    assert modules == {"benchmarks.metrics.memorisation"}
    for name in modules:
        module = importlib.import_module(name)
        metrics = [
            kind
            for kind in vars(module).values()
            if inspect.isclass(kind) and issubclass(kind, Metric) and kind.__module__ == name
        ]
        assert metrics
        assert all(metric.reads == "private" for metric in metrics)


@pytest.mark.parametrize("name", choices("metric"))
def test_a_metric_declares_what_its_class_can_see(name: str) -> None:
    metric: Metric = make(load_choice("metric", name))
    sees = {base.__module__ for base in type(metric).__mro__} & importers("private_view")
    assert (metric.reads == "private") == bool(sees)


def test_all_private_images_are_seen_once_and_in_order(cache: str, tmp_path: Path) -> None:
    """More than one batch of them; and nothing is written."""
    dataset = ToyFaces(private_records=600, evaluation_records=4, cache_dir=cache)
    dataset.check()
    before = set(Path(cache).rglob("*"))
    seen: list[Tensor] = []
    for_evaluation(dataset.private(), seen.append)
    assert [len(batch) for batch in seen] == [512, 88]
    expected = torch.tensor(dataset.records(0, 600).images)
    assert torch.equal(torch.cat(seen), expected)
    assert set(Path(cache).rglob("*")) == before


def test_what_a_visit_returns_is_dropped() -> None:
    private = PrivateRecords({"x": torch.arange(5)}, name="five", records=5)
    parts: list[int] = []
    assert look(private, lambda columns: parts.append(len(columns["x"])) or columns, 2) is None  # type: ignore[func-returns-value]
    assert parts == [2, 2, 1]
