"""CLIP and its score, with random weights, against open-clip."""

from __future__ import annotations

from pathlib import Path

import fake_weights
import numpy as np
import pytest
import torch
from metric_tools import CPU, captions_of, metric_of, tensor
from safetensors.torch import load_file, save_file

from benchmarks.features.clip import Clip, build
from benchmarks.metrics.clip_score import ClipScore
from wavedp.data.schema import Records
from wavedp.dp.errors import UserError


def test_clip_score_agrees_with_open_clip_to_1e_4(random_weights: Path, faces: Records) -> None:
    """Image by image, without batches, from the file of weights."""
    import open_clip
    from PIL import Image

    metric = metric_of("clip_score")
    images, texts = tensor(faces)[:6], captions_of(faces)[:6]
    metric.update(images, texts)
    network, _, preprocess = open_clip.create_model_and_transforms(fake_weights.CLIP)
    network.load_state_dict(load_file(random_weights / "clip_vit_b_32_openai.safetensors"))
    tokenize, cosines = open_clip.get_tokenizer(fake_weights.CLIP), []
    with torch.no_grad():
        for image, text in zip(images, texts, strict=True):
            picture = preprocess(Image.fromarray(image.permute(1, 2, 0).numpy()))
            one = network.eval().encode_image(picture[None])
            other = network.encode_text(tokenize(f"A photo depicts {text}"))
            cosines.append(torch.cosine_similarity(one, other).item())
    assert metric.compute() == pytest.approx(100 * np.mean(cosines), abs=1e-4)


@pytest.mark.parametrize("template", ["A photo", "{} and {}"])
def test_the_template_of_clip_score_is_checked(template: str) -> None:
    with pytest.raises(UserError, match="template"):
        ClipScore(template=template)


def test_braces_in_captions_are_kept(
    random_weights: Path, faces: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric, read = metric_of("clip_score"), []
    real = Clip.embed_texts
    monkeypatch.setattr(Clip, "embed_texts", lambda self, x: read.extend(x) or real(self, x))
    metric.update(tensor(faces)[:2], ["{0} {name}", "a {} of {{braces}}"])
    assert read == ["A photo depicts {0} {name}", "A photo depicts a {} of {{braces}}"]


def test_only_the_false_alarm_of_open_clip_is_silenced(
    random_weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A network that is filled from a file is not random; one that is not filled is."""
    space = Clip(fake_weights.CLIP)
    space.load(CPU)
    assert "randomly" not in caplog.text
    build(fake_weights.CLIP)
    assert "initialized randomly" in caplog.text
    stored = load_file(random_weights / "clip_vit_b_32_openai.safetensors")
    state = space._network.state_dict()
    assert set(state) == set(stored)
    assert all(torch.equal(state[name], value) for name, value in stored.items())


@pytest.mark.parametrize("change", ["one missing", "one more", "one of another size"])
def test_weights_that_do_not_fit_are_refused(
    change: str, tmp_path: Path, random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "clip_vit_b_32_openai.safetensors"
    state = load_file(random_weights / name)
    if change == "one missing":
        del state["positional_embedding"]
    elif change == "one more":
        state["another"] = torch.zeros(1)
    else:
        state["positional_embedding"] = state["positional_embedding"][:-1].clone()
    save_file(state, tmp_path / name)
    monkeypatch.setattr("benchmarks.features.clip.find", lambda _: tmp_path / name)
    with pytest.raises(UserError, match="does not fit"):
        Clip(fake_weights.CLIP).load(CPU)
