"""LlamaGen's tokenizer: its published size, and weights under their published names."""

import pytest
import torch
import torch.nn.functional as F

from wavedp.dp import UserError
from wavedp.nn.vqgan import VQGAN, load_vqgan, published_vqgan

SIZES = {
    "resolution": 8,
    "width": 4,
    "multipliers": (1, 2, 4),
    "rows": 6,
    "codebook_size": 10,
    "code_width": 3,
    "groups": 2,
}
WIDTHS = (4, 8, 16)


def published():
    """Names and shapes of ``vq_ds16_t2i.pt``, tiny: two halvings of widths 4, 8 and 16."""
    shapes = {}

    def conv(name, low, high, kernel=3):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (high, low, kernel, kernel), (high,)

    def norm(name, width):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    def block(name, low, high):
        norm(f"{name}.norm1", low)
        conv(f"{name}.conv1", low, high)
        norm(f"{name}.norm2", high)
        conv(f"{name}.conv2", high, high)
        if low != high:
            conv(f"{name}.nin_shortcut", low, high, 1)

    def attention(name, width):
        norm(f"{name}.norm", width)
        for layer in ("q", "k", "v", "proj_out"):
            conv(f"{name}.{layer}", width, width, 1)

    for side in ("encoder", "decoder"):
        block(f"{side}.mid.0", 16, 16)
        attention(f"{side}.mid.1", 16)
        block(f"{side}.mid.2", 16, 16)
    conv("encoder.conv_in", 3, 4)
    conv("decoder.conv_in", 6, 16)
    for level, (low, high) in enumerate([(4, 4), (4, 8), (8, 16)]):
        block(f"encoder.conv_blocks.{level}.res.0", low, high)
        block(f"encoder.conv_blocks.{level}.res.1", high, high)
    for level in (0, 1):
        conv(f"encoder.conv_blocks.{level}.downsample.conv", WIDTHS[level], WIDTHS[level])
    for index in (0, 1):
        attention(f"encoder.conv_blocks.2.attn.{index}", 16)
    for level, (low, high) in enumerate([(16, 16), (16, 8), (8, 4)]):
        block(f"decoder.conv_blocks.{level}.res.0", low, high)
        for index in (1, 2):
            block(f"decoder.conv_blocks.{level}.res.{index}", high, high)
        if level < 2:
            conv(f"decoder.conv_blocks.{level}.upsample.conv", high, high)
    for index in (0, 1, 2):
        attention(f"decoder.conv_blocks.0.attn.{index}", 16)
    norm("encoder.norm_out", 16)
    norm("decoder.norm_out", 4)
    conv("encoder.conv_out", 16, 6)
    conv("decoder.conv_out", 4, 3)
    conv("quant_conv", 6, 3, 1)
    conv("post_quant_conv", 3, 6, 1)
    shapes["quantize.embedding.weight"] = (10, 3)
    shapes["quantize.codebook_used"] = (65536,)
    generator = torch.Generator().manual_seed(0)
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_it_has_the_published_size():
    """72 million, with the codebook."""
    with torch.device("meta"):
        network = VQGAN()
    count = sum(p.numel() for p in network.parameters()) + network.codebook.codebooks.numel()
    assert round(count / 1e6) == 72
    assert (network.tokens_per_scale, network.codes, network.codebook_size) == (256, 1, 16384)


@torch.no_grad()
def test_published_weights_load_and_codes_are_nearest_unit_vectors(tmp_path):
    state = published()
    network = VQGAN(**SIZES).eval()
    load_vqgan(network, state)
    for name, ours in [
        ("encoder.conv_blocks.0.downsample.conv.weight", network.encoder[0].conv_blocks[0]),
        ("decoder.conv_blocks.1.upsample.conv.weight", network.decoder[1].conv_blocks[1]),
    ]:
        assert torch.equal(state[name], ours.get_parameter(name.split(".", 3)[3]))
    images = torch.randn(3, 3, 8, 8)
    codes = network.encode(images)
    assert codes.shape == (3, 4, 1)
    rows = F.normalize(network.encoder(images).flatten(2).mT, dim=-1)
    entries = F.normalize(state["quantize.embedding.weight"], dim=-1)
    assert torch.equal(codes[..., 0], (rows @ entries.mT).argmax(-1))
    assert network.decode(codes).shape == (3, 3, 8, 8)


@torch.no_grad()
def test_attention_and_downsampling_by_their_formulas():
    torch.manual_seed(0)
    network = VQGAN(**SIZES)
    attention, x = network.encoder[0].mid[1], torch.randn(2, 16, 2, 3)
    y = F.group_norm(x, 2, attention.norm.weight, attention.norm.bias, 1e-6).flatten(2)
    parts = [
        torch.einsum("oi,nip->nop", layer.weight[:, :, 0, 0], y) + layer.bias[:, None]
        for layer in (attention.q, attention.k, attention.v)
    ]
    weights = (torch.einsum("ncq,nck->nqk", parts[0], parts[1]) / 4).softmax(-1)
    taken = torch.einsum("nqk,nck->ncq", weights, parts[2]).view_as(x)
    torch.testing.assert_close(attention(x), x + attention.proj_out(taken))
    down, x = network.encoder[0].conv_blocks[0].downsample, torch.randn(1, 4, 4, 4)
    padded = torch.zeros(1, 4, 5, 5)
    padded[..., :4, :4] = x
    by_hand = (padded[..., 2:5, 0:3] * down.conv.weight[1]).sum() + down.conv.bias[1]
    torch.testing.assert_close(down(x)[0, 1, 1, 0], by_hand)


def test_weights_of_another_network_are_refused_in_one_sentence(tmp_path):
    missing = published()
    del missing["decoder.mid.1.q.weight"]
    misshapen = published() | {"quant_conv.bias": torch.zeros(7)}
    for state, named in [(missing, "mid.1.q.weight"), (misshapen, "size mismatch"), ({}, "quant")]:
        with pytest.raises(UserError, match="not the weights of LlamaGen's tokenizer") as found:
            load_vqgan(VQGAN(**SIZES), state)
        assert named in str(found.value)
        assert "\n" not in str(found.value)
    with pytest.raises(UserError, match="no weights at"):
        published_vqgan(str(tmp_path / "none.pt"))


def test_a_size_that_cannot_be_halved_is_refused():
    with pytest.raises(UserError, match="divides by 4"):
        VQGAN(**(SIZES | {"resolution": 10}))
