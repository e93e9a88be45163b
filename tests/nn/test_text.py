"""Text encoders behind their interface: shapes, null text, cuts, and what is missing."""

import gc
import json
import weakref

import pytest
import torch

from wavedp.dp import UserError
from wavedp.nn.text import HashedText, TextEncoder
from wavedp.nn.text.clip import ClipText
from wavedp.nn.text.t5 import T5Text
from wavedp.nn.untrained import untrained

WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "hat", "dog"]


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    """A tiny T5 with random weights and a tokenizer of words, saved as the Hub saves them."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    transformers.T5EncoderModel(config).save_pretrained(folder)
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return T5Text(str(folder), slots=5, batch=2)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny CLIP with random weights, under a name of its own."""
    open_clip = pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("clip")
    sizes = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 16,
            "head_width": 8,
            "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 12,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 2,
        },
    }
    (folder / "tiny-clip.json").write_text(json.dumps(sizes))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(0)
    torch.save(open_clip.create_model("tiny-clip").state_dict(), folder / "weights.pt")
    return ClipText("tiny-clip", str(folder / "weights.pt"), slots=12, batch=2)


@pytest.fixture(params=["hashed", "t5", "clip"])
def encoder(request):
    return HashedText(4, 8) if request.param == "hashed" else request.getfixturevalue(request.param)


def test_a_caption_becomes_slots_of_vectors_and_no_text_becomes_zeros(encoder):
    assert isinstance(encoder, TextEncoder)
    rows = encoder(["a red hat", "", "a blue dog"])
    assert rows.shape == (3, encoder.slots, encoder.width)
    assert rows.dtype == torch.float32
    assert not rows[1].any()
    assert rows[0].any()
    assert not torch.allclose(rows[0], rows[2])
    assert encoder([]).shape == (0, encoder.slots, encoder.width)


def test_a_caption_does_not_depend_on_its_company(encoder):
    alone = encoder(["a red hat"])
    torch.testing.assert_close(encoder(["a blue dog", "a red hat"])[1:], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "part", ["token_embedding.weight", "positional_embedding", "transformer", "ln_final.weight"]
)
def test_every_weight_that_a_clip_text_depends_on_is_in_its_key(clip, part, tmp_path):
    state = {name: value.clone() for name, value in clip._clip.state_dict().items()}
    name = next(n for n in state if n.startswith(part) and state[n].is_floating_point())
    state[name].flatten()[0] += 1
    torch.save(state, tmp_path / "other.pt")
    other = ClipText("tiny-clip", str(tmp_path / "other.pt"), slots=12)
    assert other.key != clip.key
    torch.save(clip._clip.state_dict(), tmp_path / "same.pt")
    assert ClipText("tiny-clip", str(tmp_path / "same.pt"), slots=12).key == clip.key
    assert ClipText("tiny-clip", str(tmp_path / "same.pt"), slots=11).key != clip.key


def test_a_t5_with_other_weights_or_another_vocabulary_has_another_key(t5, tmp_path):
    weights, words = tmp_path / "weights", tmp_path / "words"
    for folder in (weights, words):
        t5._tokenizer.save_pretrained(folder)
        t5._encoder.save_pretrained(folder)
    assert T5Text(str(weights), slots=5).key == t5.key
    moved = type(t5._encoder).from_pretrained(weights)
    moved.encoder.final_layer_norm.weight.data[0] += 1
    moved.save_pretrained(weights)
    assert T5Text(str(weights), slots=5).key != t5.key
    file = words / "tokenizer.json"
    file.write_text(file.read_text().replace('"dog"', '"cat"'))
    assert T5Text(str(words), slots=5).key != t5.key


def test_parts_that_read_alike_hold_one_t5_while_they_live(t5, tmp_path):
    t5._tokenizer.save_pretrained(tmp_path)
    t5._encoder.save_pretrained(tmp_path)
    one, other = T5Text(str(tmp_path), slots=5), T5Text(str(tmp_path), slots=4)
    assert one._encoder is other._encoder is not t5._encoder
    gone = weakref.ref(one._encoder)
    del one, other
    gc.collect()
    assert gone() is None
    with untrained({"t5": {"num_layers": 1, "d_model": 16, "d_ff": 16, "d_kv": 8}}):
        drawn = T5Text("a"), T5Text("a")
    with untrained({"t5": {"num_layers": 2, "d_model": 16, "d_ff": 16, "d_kv": 8}}):
        larger = T5Text("a")
    assert drawn[0]._encoder is drawn[1]._encoder is not larger._encoder


@pytest.mark.parametrize("name", ["t5", "clip"])
def test_what_is_cut_is_found_in_prompts(name, request):
    encoder = request.getfixturevalue(name)
    short, long = "a red hat", " ".join(["a red blue hat"] * 8)
    assert encoder.too_long([short, short]) is None
    assert encoder.too_long([short, long]) == 1
    rows = encoder([long])
    assert rows.shape == (1, encoder.slots, encoder.width)


def test_behind_the_end_of_a_caption_there_is_nothing(t5, clip):
    """Three words, an end; CLIP has a start, too."""
    assert t5(["a red hat"])[0].any(dim=1).tolist() == [True] * 4 + [False]
    assert clip(["a red hat"])[0].any(dim=1).tolist() == [True] * 5 + [False] * 7


def test_clip_text_is_what_its_own_text_embedding_is_made_of(clip):
    rows = clip(["a red hat", "a blue dog"])
    model = clip._clip
    with torch.no_grad():
        expected = model.encode_text(clip._tokenizer(["a red hat", "a blue dog"]))
        found = rows[:, 4] @ model.text_projection
    torch.testing.assert_close(found, expected)


def test_missing_weights_are_named_with_the_remedy(tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("open_clip")
    with pytest.raises(UserError, match="not on this machine"):
        T5Text(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"no CLIP weights at .*nothing\.pt"):
        ClipText("ViT-B-32", str(tmp_path / "nothing.pt"))


def test_slots_beyond_the_tower_are_refused(clip, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(clip._clip.state_dict(), path)
    with pytest.raises(UserError, match=r"1\.\.12 for tiny-clip, got 13"):
        ClipText("tiny-clip", str(path), slots=13)
