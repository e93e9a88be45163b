"""Text encoders behind their interface: shapes, null text, cuts, and what is missing."""

import json

import pytest
import torch

from wavedp.dp import UserError
from wavedp.nn.text import HashedText, TextEncoder
from wavedp.nn.text.clip import ClipText
from wavedp.nn.text.t5 import T5Text

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
    torch.testing.assert_close(encoder(["a blue dog", "a red hat"])[1:], alone, atol=1e-6, rtol=0)


def test_the_key_names_the_weights(encoder):
    assert str(encoder.slots) in encoder.key


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
