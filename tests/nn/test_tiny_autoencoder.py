"""The published tiny autoencoder: names, shapes, and what it keeps of real faces."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms.functional import pil_to_tensor

from wavedp.dp import UserError
from wavedp.nn.images import to_float
from wavedp.nn.tiny_autoencoder import TinyAutoencoder, _decoder, _encoder

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"


@pytest.fixture
def files(tmp_path):
    """Untrained weights under the published names."""
    torch.manual_seed(0)
    for name, part in (("encoder", _encoder()), ("decoder", _decoder())):
        save_file(part.state_dict(), tmp_path / f"{name}.safetensors")
    return [str(tmp_path / f"{name}.safetensors") for name in ("encoder", "decoder")]


def test_it_has_the_published_names_and_counts(files):
    """As ``taef2_{encoder,decoder}.safetensors`` have them."""
    network = TinyAutoencoder(*files, resolution=16)
    counts = [sum(p.numel() for p in part.parameters()) for part in network.children()]
    assert counts == [1_338_528, 1_338_499]
    names = network.state_dict().keys()
    assert {"encoder.14.weight", "encoder.11.pool.3.weight", "decoder.19.bias"} <= names
    assert len(names) == 79 * 2
    assert network.decode(network.encode(torch.zeros(2, 3, 16, 16))).shape == (2, 3, 16, 16)


def test_wrong_files_and_sizes_are_named(files):
    with pytest.raises(UserError, match="not the weights of a TAEF2 encoder"):
        TinyAutoencoder(files[1], files[0], 16)
    with pytest.raises(UserError, match=r"set autoencoder\.decoder"):
        TinyAutoencoder(files[0], "missing.safetensors", 16)
    with pytest.raises(UserError, match="multiples of 8 px, not 20 px"):
        TinyAutoencoder(*files, resolution=20)


@pytest.mark.skipif(not REAL.exists(), reason="needs the folder of real photographs and weights")
def test_real_faces_come_back_as_the_published_weights_promise():
    """35.2 dB at 256 px; small images have more detail per pixel."""
    paths = [str(REAL / "weights" / f"taef2_{part}.safetensors") for part in ("encoder", "decoder")]
    network = TinyAutoencoder(*paths, resolution=64)
    faces = sorted((REAL / "mmcelebahq64" / "image" / "images").glob("*.jpg"))[:32]
    images = torch.stack([to_float(pil_to_tensor(Image.open(face))) for face in faces])
    latents = network.encode(images)
    error = (network.decode(latents).clamp(-1, 1) - images).square().mean() / 4
    assert -10 * error.log10() > 28.5
    assert latents.std().item() == pytest.approx(1, abs=0.1)
