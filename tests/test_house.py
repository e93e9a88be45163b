"""Rules of the house that no linter knows."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [
    p for folder in ("wavedp", "baselines", "benchmarks") for p in (ROOT / folder).rglob("*.py")
]
OUTSIDE_THE_CORE = [p for p in SOURCES if "wavedp/dp" not in p.as_posix()]


@pytest.mark.parametrize("path", OUTSIDE_THE_CORE, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_nobody_but_the_core_opens_private_records(path):
    text = path.read_text()
    names = {
        alias.name
        for node in ast.walk(ast.parse(text))
        for alias in getattr(node, "names", [])
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert "open_columns" not in names
    assert "_PrivateRecords__" not in text
    assert "open_columns" not in text


def test_the_core_and_the_networks_need_torch_and_numpy_only():
    code = """
import sys
heavy = ("opacus", "dp_accounting", "pydantic", "rich", "hydra", "omegaconf", "pandas", "PIL",
         "safetensors", "pywt", "scipy", "torchvision", "transformers")
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in heavy:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import wavedp.dp, wavedp.nn.text, wavedp.nn.transformer, wavedp.nn.images, wavedp.nn.schedule
import wavedp.nn.llama, wavedp.nn.vqgan, wavedp.nn.lora
import wavedp.dp.clipping.bookkeeping, wavedp.dp.clipping.per_example, wavedp.dp.clipping.ordinary
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_seeds_of_noise_and_sampling_are_not_given_by_default():
    text = (ROOT / "configs" / "privacy" / "standard.yaml").read_text()
    assert "noise_seed: null" in text
    assert "sampling_seed: null" in text
