"""The Llama over raster tokens: layers by their formulas, causality, cache, published weights."""

import argparse
import math

import pytest
import torch
import torch.nn.functional as F

from wavedp.dp import UserError
from wavedp.dp.clipping import make_engine
from wavedp.nn.llama import (
    Llama,
    LlamaBlock,
    LlamaPrior,
    hidden_width,
    load_llama,
    published_llama,
    visible,
)
from wavedp.nn.rotary import grid_rotation, rotate
from wavedp.nn.transformer import attend_causally
from wavedp.wavelet.training import next_token_loss

SIZES = {
    "grid": 3,
    "codebook_size": 10,
    "text_slots": 4,
    "text_width": 6,
    "width": 16,
    "depth": 2,
    "heads": 2,
    "multiple_of": 8,
}


def small(codes=2, **changes):
    """With wide logits, so that greedy choices are clear."""
    torch.manual_seed(0)
    prior = LlamaPrior(codes=codes, **(SIZES | changes))
    for name, parameter in prior.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return prior.eval()


def captions(rows=5, slots=4):
    """Of one slot, two, ... so that some are padded; the encoders leave zeros behind the text."""
    text = torch.randn(rows, slots, 6, generator=torch.Generator().manual_seed(1))
    lengths = torch.arange(rows) % slots + 1
    return text * (torch.arange(slots) < lengths[:, None]).unsqueeze(2)


def stacked(prior, tokens, text):
    """All logits as one tensor ``[b, t, C, K]``."""
    return torch.stack(prior(tokens, text), dim=2)


# Rotary positions ---------------------------------------------------------------------------


def test_attention_depends_on_the_offset_on_the_grid_alone():
    """Scores of one query and one key at all pairs of places, by (rows, columns) apart."""
    grid, torch_seed = 5, torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 8, generator=torch_seed).double()
    rotation = grid_rotation(grid, 8, prefix=0)
    places = grid**2
    scores = rotate(q.expand(places, 8), rotation) @ rotate(k.expand(places, 8), rotation).mT
    found = {}
    for i in range(places):
        for j in range(places):
            apart = (i // grid - j // grid, i % grid - j % grid)
            found.setdefault(apart, []).append(float(scores[i, j]))
    for values in found.values():
        assert max(values) - min(values) < 1e-5
    assert len({round(values[0], 4) for values in found.values()}) == (2 * grid - 1) ** 2
    assert found[0, 0][0] == pytest.approx(float(q @ k), abs=1e-5)


def test_rotation_by_hand():
    """The token of row 2 and column 3, behind a prefix of one: pairs turn by 2, .02 and 3, .03."""
    rotation = grid_rotation(4, 8, prefix=1)
    x = torch.tensor([[1.0, 0, 1, 0, 1, 0, 0, 1]])
    turned = rotate(x, rotation[1 + 2 * 4 + 3 : 1 + 2 * 4 + 4])
    angles = torch.tensor([2.0, 0.02, 3.0, 0.03])
    expected = torch.stack([angles.cos(), angles.sin()], 1).flatten()
    expected[-2:] = torch.tensor([-math.sin(0.03), math.cos(0.03)])
    torch.testing.assert_close(turned[0], expected)
    assert not rotate(x, rotation[:1]).any()  # the prefix has no place
    keyed = grid_rotation(4, 8, prefix=1, keyed=True)
    assert torch.equal(rotate(x, keyed[:1]), x.expand_as(rotate(x, keyed[:1])))
    assert torch.equal(keyed[1:], rotation[1:])


def test_a_head_too_narrow_for_two_directions_is_refused():
    with pytest.raises(UserError, match="divides by 4"):
        grid_rotation(3, 6, prefix=0)


# Blocks ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_block_is_what_its_formula_says():
    torch.manual_seed(0)
    block = LlamaBlock(8, 2, 12)
    x = torch.randn(3, 5, 8)

    def norm(y, weight):
        return y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight

    for layer in (block.norm1, block.norm2):
        layer.weight.copy_(torch.rand(8) + 0.5)
    q, k, v = (norm(x, block.norm1.weight) @ block.qkv.weight.mT).split(8, dim=2)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        scores = q[..., part] @ k[..., part].mT / 2
        scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
        heads.append(scores.softmax(-1) @ v[..., part])
    y = x + torch.cat(heads, 2) @ block.out.weight.mT
    z = norm(y, block.norm2.weight)
    gate, up = z @ block.gate.weight.mT, z @ block.up.weight.mT
    expected = y + (gate / (1 + (-gate).exp()) * up) @ block.down.weight.mT
    torch.testing.assert_close(block(x, attend_causally), expected)


@pytest.mark.parametrize(("width", "hidden"), [(768, 2048), (1024, 2816), (1280, 3584), (96, 256)])
def test_hidden_widths_are_the_published_ones(width, hidden):
    assert hidden_width(width) == hidden


def test_positions_see_themselves_and_what_is_filled_before_them():
    seen = torch.tensor([[False, True], [True, True]])
    whole = visible(seen, 0, 4)
    assert whole[0, 0].int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]]
    assert torch.equal(whole[1, 0], torch.ones(4, 4).tril().bool())
    assert torch.equal(visible(seen, 3, 4), whole[:, :, 3:])


# The prior ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "depth", "heads", "published"),
    [(768, 12, 12, 111), (1024, 24, 16, 343), (1280, 36, 20, 775)],
)
def test_the_published_sizes(width, depth, heads, published):
    """In millions, which the paper states with 1001 embedded classes in the place of text."""
    with torch.device("meta"):
        prior = LlamaPrior(width=width, depth=depth, heads=heads)
    count = sum(p.numel() for p in prior.parameters())
    text = sum(p.numel() for p in prior.text.parameters())
    assert text == 2048 * width + width**2
    assert round((count - text + 1001 * width) / 1e6) == published
    assert count / 1e6 == pytest.approx(published, rel=0.02)


@torch.no_grad()
@pytest.mark.parametrize("codes", [1, 3])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_cached_greedy_sampling_equals_the_plain_forward(codes, guidance):
    prior, text = small(codes), captions()
    tokens = prior.sample(text, 1, torch.Generator(), guidance=guidance, temperature=0)
    slow = torch.zeros(5, 9, codes, dtype=torch.int64)
    for position in range(9):
        for code in range(codes):
            logits = stacked(prior, slow, text)[:, position, code]
            if guidance != 1:
                without = stacked(prior, slow, prior.without_text(text))[:, position, code]
                logits = without + guidance * (logits - without)
            slow[:, position, code] = logits.argmax(-1)
    assert torch.equal(tokens, slow)
    assert tokens.unique().numel() > 3


@torch.no_grad()
def test_a_code_sees_only_those_before_it():
    prior, text, tokens = small(), captions(1), torch.randint(0, 10, (1, 9, 2))
    before = stacked(prior, tokens, text)
    tokens[0, 4, 0] = (tokens[0, 4, 0] + 1) % 10
    after = stacked(prior, tokens, text)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    torch.testing.assert_close(before[:, 4, 0], after[:, 4, 0])
    assert not torch.allclose(before[:, 4, 1], after[:, 4, 1])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


@torch.no_grad()
def test_a_caption_counts_wherever_it_lies_and_its_padding_does_not():
    prior, tokens = small(), torch.randint(0, 10, (5, 9, 2))
    text = captions()
    padded_left = text.clone()
    for row in range(5):
        filled = row % 4 + 1
        padded_left[row] = torch.cat([torch.zeros(4 - filled, 6), text[row, :filled]])
    torch.testing.assert_close(stacked(prior, tokens, text), stacked(prior, tokens, padded_left))
    assert not torch.allclose(stacked(prior, tokens, text), stacked(prior, tokens, text.roll(1, 0)))


@torch.no_grad()
def test_no_text_is_the_null_embedding_in_the_slots_of_the_caption():
    prior, text = small(), captions(2)  # of one slot and of two
    null = prior.without_text(text)
    assert torch.equal(null[0], torch.cat([torch.zeros(3, 6), prior.no_text[3:]]))
    assert torch.equal(null[1], torch.cat([torch.zeros(2, 6), prior.no_text[2:]]))
    empty, tokens = torch.zeros(2, 4, 6), torch.randint(0, 10, (2, 9, 2))
    assert torch.equal(prior.without_text(empty), prior.no_text.expand(2, 4, 6))
    whole = prior.no_text.expand(2, 4, 6)
    torch.testing.assert_close(stacked(prior, tokens, empty), stacked(prior, tokens, whole))
    assert "no_text" not in dict(prior.named_parameters())


def test_training_starts_from_the_uniform_distribution():
    batch = {"tokens": torch.randint(0, 10, (6, 9, 2)), "text": torch.randn(6, 3, 4, 6)}
    prior = LlamaPrior(codes=2, **SIZES)
    losses = next_token_loss(0.5, prior.without_text)(prior, batch)
    torch.testing.assert_close(losses, torch.full((6,), math.log(10)))


@pytest.mark.parametrize("codes", [1, 2])
@pytest.mark.parametrize("engine", ["bookkeeping", "two_pass"])
def test_clipped_sums_are_those_of_the_reference_engine(engine, codes):
    prior = small(codes)
    loss = next_token_loss(0.0, prior.without_text)
    batch = {"tokens": torch.randint(0, 10, (5, 9, codes)), "text": captions().unsqueeze(1)}
    mask = torch.tensor([True, True, False, True, True])
    sums = []
    for name in ("per_example", engine):
        made = make_engine(name, prior, loss, 0.1)
        made.add(batch, mask)
        sums.append(made.sums)
    assert sums[0].keys() == dict(prior.named_parameters()).keys()
    for name, expected in sums[0].items():
        torch.testing.assert_close(sums[1][name], expected, rtol=1e-4, atol=1e-6)
    total = torch.cat([value.flatten() for value in sums[1].values()])
    assert 0.1 < total.norm() <= 0.4 * (1 + 1e-5)


# Published weights ----------------------------------------------------------------------------


def published(seed=0, width=16, depth=2, hidden=256, entries=12, slots=5, text_width=6):
    """Names and shapes of ``peizesun/llamagen_t2i``, tiny."""
    shapes = {
        "cls_embedding.uncond_embedding": (slots, text_width),
        "cls_embedding.cap_proj.fc1.weight": (width, text_width),
        "cls_embedding.cap_proj.fc2.weight": (width, width),
        "tok_embeddings.weight": (entries, width),
        "norm.weight": (width,),
        "output.weight": (entries, width),
    }
    for layer in range(depth):
        shapes |= {
            f"layers.{layer}.attention.wqkv.weight": (3 * width, width),
            f"layers.{layer}.attention.wo.weight": (width, width),
            f"layers.{layer}.feed_forward.w1.weight": (hidden, width),
            f"layers.{layer}.feed_forward.w3.weight": (hidden, width),
            f"layers.{layer}.feed_forward.w2.weight": (width, hidden),
            f"layers.{layer}.attention_norm.weight": (width,),
            f"layers.{layer}.ffn_norm.weight": (width,),
        }
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def by_the_published_formula(state, tokens, text, given, grid=3, head=8):
    """LlamaGen's forward pass, written from its description: one row at a time, no modules.

    Args:
        text: left-padded ``[slots, width]``, ``given`` the number of slots that hold text.
    """

    def norm(x, name):
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * state[name]

    def turn(x, position):
        if position < slots:
            return torch.zeros_like(x)
        row, column = divmod(position - slots, grid)
        rates = [10000 ** (-2 * i / (head // 2)) for i in range(head // 4)]
        angles = torch.tensor([row * r for r in rates] + [column * r for r in rates])
        turned = torch.view_as_complex(x.view(-1, 2)) * torch.polar(torch.ones(head // 2), angles)
        return torch.view_as_real(turned).flatten()

    slots = len(text)
    hidden = text @ state["cls_embedding.cap_proj.fc1.weight"].mT
    prefix = F.gelu(hidden, approximate="tanh") @ state["cls_embedding.cap_proj.fc2.weight"].mT
    x = torch.cat([prefix, state["tok_embeddings.weight"][tokens[:-1]]])
    count = len(x)
    mask = torch.ones(count, count).tril()
    mask[:, : slots - given] = 0
    mask = (mask + torch.eye(count)).clamp(max=1).bool()
    for layer in range(2):
        name = f"layers.{layer}."
        qkv = norm(x, name + "attention_norm.weight") @ state[name + "attention.wqkv.weight"].mT
        q, k, v = (part.view(count, -1, head) for part in qkv.chunk(3, dim=1))
        outputs = []
        for h in range(q.shape[1]):
            turned = [torch.stack([turn(y[i, h], i) for i in range(count)]) for y in (q, k)]
            scores = turned[0] @ turned[1].mT / head**0.5
            outputs.append(scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v[:, h])
        x = x + torch.cat(outputs, 1) @ state[name + "attention.wo.weight"].mT
        y = norm(x, name + "ffn_norm.weight")
        inner = F.silu(y @ state[name + "feed_forward.w1.weight"].mT)
        inner = inner * (y @ state[name + "feed_forward.w3.weight"].mT)
        x = x + inner @ state[name + "feed_forward.w2.weight"].mT
    return (norm(x, "norm.weight") @ state["output.weight"].mT)[slots - 1 :]


@torch.no_grad()
@pytest.mark.parametrize("wrapper", ["model", "module", "state_dict"])
def test_published_weights_give_what_the_published_formula_gives(tmp_path, wrapper):
    state, path = published(), tmp_path / "t2i_tiny.pt"
    torch.save({wrapper: state, "steps": 3, "args": argparse.Namespace(lr=1e-4)}, path)
    prior = published_llama(str(path), grid=3, head_width=8)
    sizes = (prior.codes, prior.codebook_size, prior.text_slots, prior.text_width)
    assert sizes == (1, 12, 5, 6)
    tokens = torch.randint(0, 12, (2, 9, 1))
    text = torch.randn(2, 5, 6)
    text[1, 2:] = 0
    logits = stacked(prior, tokens, text)[:, :, 0]
    left = torch.cat([torch.zeros(3, 6), text[1, :2]])
    for row, (own, given) in enumerate([(text[0], 5), (left, 2)]):
        expected = by_the_published_formula(state, tokens[row, :, 0], own, given)
        torch.testing.assert_close(logits[row], expected, rtol=1e-4, atol=1e-5)


def test_weights_of_another_network_are_refused_in_one_sentence(tmp_path):
    missing = published()
    del missing["layers.1.ffn_norm.weight"]
    unexpected = published() | {"head.weight": torch.zeros(3)}
    classes = published()
    del classes["cls_embedding.uncond_embedding"]
    misshapen = published() | {"norm.weight": torch.zeros(3)}
    for state, named in [
        (missing, "blocks.1.norm2.weight"),
        (unexpected, "head.weight"),
        (classes, "uncond_embedding"),
        (misshapen, "size mismatch"),
        ({}, "tok_embeddings"),
    ]:
        with pytest.raises(UserError, match="not the weights of a text-to-image LlamaGen") as found:
            load_llama(state, 3, 8)
        assert named in str(found.value)
        assert "\n" not in str(found.value)
    with pytest.raises(UserError, match=r"no weights at .*none.pt; set prior.path"):
        published_llama(str(tmp_path / "none.pt"))


def test_files_run_nothing(tmp_path, trap):
    torch.save({"model": trap}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="cannot be read as weights"):
        published_llama(str(tmp_path / "evil.pt"))


def test_a_stack_has_no_bias_and_ties_nothing():
    with torch.device("meta"):
        llama = Llama(64, 2, 4, 4, 8)
    assert not [name for name, _ in llama.named_parameters() if "bias" in name]
    prior = LlamaPrior(codes=1, **SIZES)
    assert prior.embeddings.weight is not prior.outputs[0].weight
