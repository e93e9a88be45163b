"""Feature spaces: against independent networks, and the same for an image in any batch."""

from __future__ import annotations

from pathlib import Path

import fake_weights
import numpy as np
import pytest
import torch
import torchvision
from cleanfid.inception_pytorch import FIDInceptionA, FIDInceptionC
from cleanfid.resize import build_resizer
from torch import Tensor, nn

from benchmarks import features
from benchmarks.features import FeatureSpace, per_image, shared
from benchmarks.features.inception import Inception
from benchmarks.features.inception_768 import Inception768, Network, for_inference
from benchmarks.features.pixels import Pixels
from benchmarks.features.toy import Toy
from wavedp.dp.errors import UserError

CPU = torch.device("cpu")


def some_images(n: int = 5, size: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(n, 3, 6, 6, generator=generator)
    smooth = nn.functional.interpolate(coarse, size, mode="bilinear")
    return (255 * smooth).to(torch.uint8)


def reference_network() -> nn.Module:
    """pytorch-fid's network up to ``Mixed_6e``, from torchvision's blocks and its patches."""
    inception = torchvision.models.inception_v3(
        weights=None, init_weights=False, aux_logits=False, num_classes=1008
    )
    inception.Mixed_5b = FIDInceptionA(192, pool_features=32)
    inception.Mixed_5c = FIDInceptionA(256, pool_features=64)
    inception.Mixed_5d = FIDInceptionA(288, pool_features=64)
    for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        setattr(inception, f"Mixed_{name}", FIDInceptionC(768, channels_7x7=width))
    return inception.eval()


def run_reference(inception: nn.Module, x: Tensor) -> Tensor:
    for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"):
        x = getattr(inception, name)(x)
    x = nn.functional.max_pool2d(x, 3, 2)
    x = inception.Conv2d_4a_3x3(inception.Conv2d_3b_1x1(x))
    x = nn.functional.max_pool2d(x, 3, 2)
    for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e"):
        x = getattr(inception, f"Mixed_{name}")(x)
    return x.mean((2, 3))


def test_the_768_network_agrees_with_torchvisions_blocks_to_1e_5() -> None:
    torch.manual_seed(0)
    mine = fake_weights.calibrated(Network()).eval()
    other = reference_network()
    missing, unexpected = other.load_state_dict(mine.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith(("Mixed_7", "fc")) for name in missing)
    with torch.no_grad():
        x = torch.rand(2, 3, 299, 299) * 2 - 1
        found, expected = mine(x), run_reference(other, x)
        quick = for_inference(mine)(x)
    assert found.shape == (2, 768)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(quick, expected, rtol=1e-4, atol=1e-5)


def test_inception_768_resizes_as_clean_fid_and_scales_as_the_fid_network(
    random_weights: Path,
) -> None:
    space = shared(Inception768(), CPU)
    images = some_images(1)
    resized = build_resizer("clean")(images[0].permute(1, 2, 0).numpy())
    x = torch.from_numpy(resized.transpose(2, 0, 1))[None]
    with torch.no_grad():
        expected = space._network((x - 128) / 128)  # type: ignore[attr-defined]
    torch.testing.assert_close(torch.from_numpy(space(images)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["clean", "legacy_tensorflow"])
def test_inception_takes_clean_fids_way(mode: str, random_weights: Path) -> None:
    """The same numbers as clean-fid's own loop over a generator, to 1e-5."""
    from cleanfid import fid
    from cleanfid.inception_torchscript import InceptionV3W

    images = some_images(4, 64)
    network = InceptionV3W(
        str(random_weights), download=False, resize_inside=mode != "clean"
    ).eval()
    expected = fid.get_model_features(
        lambda _: images, network, mode=mode, num_gen=4, batch_size=4, device=CPU, verbose=False
    )
    found = shared(Inception(mode), CPU)(images)
    assert found.shape == (4, 2048)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_an_unknown_mode_and_a_wrong_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="legacy_tensorflow"):
        Inception("dirty")
    (tmp_path / "inception-2015-12-05.pt").write_bytes(b"not a program")
    fake_weights.use(tmp_path, monkeypatch)
    with pytest.raises(UserError, match="not the Inception of clean-fid"):
        shared(Inception(), CPU)
    (tmp_path / "inception_fid_768_fp16.safetensors").write_bytes(b"nor tensors")
    fake_weights.use(tmp_path, monkeypatch)
    with pytest.raises(UserError, match="does not fit"):
        shared(Inception768(), CPU)


def test_pixels_measure_root_mean_squares() -> None:
    black, grey = torch.zeros(1, 3, 64, 64), torch.full((1, 3, 64, 64), 51)
    one, other = (Pixels()(x.to(torch.uint8)) for x in (black, grey))
    assert one.shape == (1, 3 * 32 * 32)
    assert np.linalg.norm(one - other) == pytest.approx(0.2, rel=1e-6)


@pytest.mark.parametrize("space", [Pixels(), Toy()], ids=["pixels", "toy"])
def test_features_do_not_depend_on_the_batch(space: FeatureSpace) -> None:
    images = some_images(7)
    whole = space(images)
    parts = np.concatenate([space(part) for part in images.split(3)])
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-5)


def test_resizing_does_not_depend_on_workers() -> None:
    resize = build_resizer("clean")
    alone, together = (per_image(resize, some_images(6), workers) for workers in (1, 3))
    assert torch.equal(alone, together)
    assert alone.shape == (6, 3, 299, 299)


def test_a_space_is_opened_once_and_sees_each_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_opened", {})
    first, second = shared(Pixels(), CPU), shared(Pixels(), CPU)
    assert first is second
    calls = []
    monkeypatch.setattr(first, "extract", lambda x: calls.append(1) or x.flatten(1).float())
    images = some_images(2)
    first(images)
    second(images)
    assert len(calls) == 1
    before = first(images).copy()
    images += 1  # in place: the same tensor with other pixels
    assert not np.array_equal(first(images), before)
