"""Every method can be published: what is loaded draws what was finetuned, and needs no harness."""

import json

import pytest
import torch
from safetensors.torch import save
from test_methods import cell_of, finetuned, samples

from benchmarks.config import choices, plain
from benchmarks.finetuned import Finetuned
from benchmarks.paths import without_paths
from benchmarks.weights import state_of
from wavedp import published


@pytest.mark.parametrize("method", choices("method"))
def test_a_published_generator_draws_the_same(method, cache, tmp_path):
    """Of its settings and weights alone: whatever else a method remembers would be missed."""
    generator, _ = finetuned(method, cache, tmp_path)
    config = cell_of(method).config.method
    weights = dict(config.weights)
    kept = Finetuned(tmp_path, "cell")
    digest = kept.write(generator, weights)
    kept.keep()
    content = kept.open(digest)
    settings = without_paths(plain(config.generator))
    (tmp_path / "model").mkdir()
    public = {k: v for k, v in state_of(weights).items() if k in generator.state_dict()}
    published.write(
        tmp_path / "model", method, settings, {}, finetuned=content, public=save(public)
    )
    torch.manual_seed(987)  # nothing of a generator depends on it
    package = config.get("package")
    own = [config.generator["_target_"].partition(".")[0]] if package else []
    loaded = published.load(tmp_path / "model", packages=own)
    assert type(loaded).__name__ == type(generator).__name__
    assert torch.equal(samples(generator), samples(loaded))
    assert json.loads((tmp_path / "model" / published.CONFIG).read_text())["method"] == method
