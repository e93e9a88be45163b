"""The published latent diffusion model: its architecture alone, and files in its layout."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
    LDMBertConfig,
    LDMBertModel,
)
from safetensors.torch import load_file, save_file
from transformers import BertTokenizer

from baselines.dp_ldm import DPLDM
from benchmarks.cell import files_of
from benchmarks.config import cells
from benchmarks.registry import overlap
from wavedp.diffusion.autoencoder import Pixels
from wavedp.diffusion.denoiser import ADAPTABLE, Denoiser
from wavedp.diffusion.process import DDPM
from wavedp.diffusion.published import (
    UNET,
    BertReader,
    BertTokens,
    published_autoencoder,
    published_denoiser,
)
from wavedp.diffusion.training import DiffusionTraining
from wavedp.dp import DPPlan, Ledger, PrivateRecords, Trainer, UserError
from wavedp.nn.lora import adapted

PARTS = ("autoencoder", "unet", "bert")


def transformer(c, context):
    """Parameters of one SpatialTransformer of c channels, by hand."""
    projections = 2 * (c * c + c) + 2 * c  # 1 x 1 in and out, group norm
    own = 4 * c * c + c  # q, k, v, and out with a bias
    other = 2 * c * c + 2 * context * c + c
    feed = c * 8 * c + 8 * c + 4 * c * c + c  # GEGLU
    return projections + own + other + feed + 3 * 2 * c


@pytest.fixture(scope="module")
def published():
    """The architecture alone, in no memory."""
    with torch.device("meta"):
        bert = LDMBertModel(LDMBertConfig())
        return Denoiser(
            UNet2DConditionModel(**UNET), 32, 4, BertReader(bert, torch.zeros(77, 1).int())
        )


def chosen(denoiser):
    parts = {id(p) for module in denoiser.conditioned() for p in module.parameters()}
    return {name: p for name, p in denoiser.named_parameters() if id(p) in parts}


def test_the_unet_has_the_published_size(published):
    """ "DiffusionWrapper has 872.30 M params.", as latent diffusion prints."""
    count = sum(p.numel() for p in published.unet.parameters())
    assert round(count / 1e6, 2) == 872.30


def test_what_dp_ldm_trains_is_every_spatial_transformer_and_the_conditioning(published):
    names = {name for name in chosen(published) if name.startswith("unet.")}
    assert names == {n for n, _ in published.named_parameters() if ".attentions." in n}
    blocks = {name[: name.index(".", name.index("attentions.") + 11)] for name in names}
    places = [f"unet.down_blocks.{i}.attentions.{j}" for i in range(3) for j in range(2)]
    places += ["unet.mid_block.attentions.0"]
    places += [f"unet.up_blocks.{i}.attentions.{j}" for i in (1, 2, 3) for j in range(3)]
    assert blocks == set(places)
    others = {name for name in chosen(published) if not name.startswith("unet.")}
    assert others == {f"reader.{n}" for n, _ in published.reader.named_parameters()}


def test_what_dp_ldm_trains_has_the_published_count(published):
    count = sum(p.numel() for name, p in chosen(published).items() if name.startswith("unet."))
    widths = [320] * 5 + [640] * 5 + [1280] * 6
    assert count == sum(transformer(c, 1280) for c in widths)
    # Embeddings of 30,522 words and 77 places, 32 layers of width 1280 with heads of 8 x 64.
    layer = 3 * 1280 * 512 + 512 * 1280 + 1280 + 2 * 1280 * 5120 + 5120 + 1280 + 4 * 1280
    bert = (30_522 + 77) * 1280 + 32 * layer + 2 * 1280
    read = sum(p.numel() for p in published.reader.parameters())
    assert read == bert


def test_dp_lora_adapts_q_k_v_and_out_of_every_attention(published):
    frozen = {name for name, _ in published.named_parameters()}
    with torch.device("meta"), adapted(published, ADAPTABLE, 8):
        trained = {name for name, p in published.named_parameters() if p.requires_grad}
        count = sum(p.numel() for p in published.parameters() if p.requires_grad)
    assert not trained & frozen
    layers = {name.rpartition(".")[0].rpartition(".")[0] for name in trained}
    assert len(layers) == 16 * 2 * 4  # blocks, attentions in each, layers in each
    # Six layers are c to c; the keys and values of the text are 1280 to c.
    one = {c: 8 * (6 * 2 * c + 2 * (1280 + c)) for c in (320, 640, 1280)}
    assert count == 5 * one[320] + 5 * one[640] + 6 * one[1280]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model in the published layout, with the published names and small numbers."""
    root = tmp_path_factory.mktemp("ldm")
    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        scaling_factor=0.18215,
    ).save_pretrained(root / "vqvae")
    UNet2DConditionModel(
        **UNET | {"block_out_channels": (8,) * 4, "sample_size": 8, "cross_attention_dim": 16},
        norm_num_groups=4,
    ).save_pretrained(root / "unet")
    config = LDMBertConfig(
        vocab_size=12, max_position_embeddings=9, encoder_layers=2, encoder_ffn_dim=20,
        encoder_attention_heads=2, head_dim=4, d_model=16,
    )  # fmt: skip
    LDMBertModel(config).save_pretrained(root / "bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "face", "smiling"]
    (root / "words.txt").write_text("\n".join(words))
    BertTokenizer(vocab_file=str(root / "words.txt")).save_pretrained(root / "tokenizer")
    parts = {"autoencoder": "vqvae/diffusion_pytorch_model", "unet": "unet/diffusion_pytorch_model"}
    files = {name: str(root / f"{file}.safetensors") for name, file in parts.items()}
    bert, tokenizer = root / "bert" / "model.safetensors", root / "tokenizer"
    return {**files, "bert": str(bert), "tokenizer": str(tokenizer)}


def denoiser_of(folder, slots=9):
    return published_denoiser(folder["unet"], folder["bert"], folder["tokenizer"], slots)


def test_files_in_the_published_layout_are_loaded_and_finetuned(folder, tmp_path):
    autoencoder = published_autoencoder(folder["autoencoder"], resolution=16)
    denoiser = denoiser_of(folder)
    text = BertTokens(folder["tokenizer"], slots=9)
    training = DiffusionTraining(process=DDPM(), text=text, steps=2, guidance=3.0, lora_rank=0)
    method = DPLDM(autoencoder, denoiser, training, published=True).eval()
    assert method.stages == {}
    before = {name: p.clone() for name, p in method.named_parameters()}

    plan = DPPlan.calibrate(epsilon=5, delta=1e-5, records=20, expected_batch=8, steps=2, clip=1.0)
    trainer = Trainer(plan, ledger=Ledger(tmp_path / "ledger.jsonl", plan.budget), micro_batch=4)
    columns = {
        "images": torch.randint(256, (20, 3, 16, 16), dtype=torch.uint8),
        "captions": [["a smiling face"]] * 20,
    }
    method.finetune(PrivateRecords(columns, name="faces", records=20), trainer)
    moved = {name for name, p in method.named_parameters() if not torch.equal(p, before[name])}
    trained = {f"denoiser.{name}" for name in chosen(denoiser)}
    # Words that no caption has get noise alone, and that is a change as well.
    assert moved == trained
    images = torch.cat(list(method.generate(["a face", "smiling"], 0)))
    assert images.shape == (2, 3, 16, 16)
    assert images.dtype == torch.uint8


def test_the_scale_of_latents_is_the_published_one(folder):
    autoencoder = published_autoencoder(folder["autoencoder"], resolution=16)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    theirs = autoencoder.network.encode(images).latent_dist.mean * 0.18215
    denoiser = denoiser_of(folder)
    ours = (autoencoder.encode(images) - denoiser.shift) / denoiser.scale
    torch.testing.assert_close(ours, theirs)


def test_no_text_is_the_empty_caption(folder):
    denoiser, text = denoiser_of(folder), BertTokens(folder["tokenizer"], slots=9)
    given = text(["a smiling face", "face"])
    assert torch.equal(denoiser.without_text(given), text(["", ""]))


def test_prompts_that_would_be_cut_are_found(folder):
    text = BertTokens(folder["tokenizer"], slots=5)
    assert text.too_long(["a face", "a smiling face a face"]) == 1
    assert text.too_long(["a smiling face"]) is None


@pytest.mark.parametrize("part", ["autoencoder", "unet", "bert", "tokenizer"])
def test_missing_weights_are_named_with_size_licence_and_command(folder, part):
    gone = {**folder, part: "/nowhere/vqvae/weights.bin"}
    with pytest.raises(UserError, match=r"no vqvae/weights.bin.*GB.*Apache.*hf download"):
        published_autoencoder(gone["autoencoder"]), denoiser_of(gone)


def test_weights_that_are_missing_or_too_many_are_listed(folder, tmp_path):
    shutil.copytree(Path(folder["unet"]).parent, tmp_path / "unet")
    file = tmp_path / "unet" / Path(folder["unet"]).name
    state = load_file(file)
    save_file({k: v for k, v in state.items() if k != "conv_in.bias"}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"missing keys: conv_in.bias"):
        denoiser_of({**folder, "unet": str(file)})
    save_file(state | {"head.weight": torch.zeros(2)}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"unexpected keys: head.weight"):
        denoiser_of({**folder, "unet": str(file)})


def test_more_tokens_than_the_bert_takes_are_refused(folder):
    with pytest.raises(UserError, match=r"slots=12 is more than the 9"):
        denoiser_of(folder, slots=12)


def test_the_configs_name_what_they_load(folder):
    """Under ``published``, so that digests are in a cell's identity and overlap is not "none"."""
    for method in ("paper/dp_ldm", "paper/dp_lora"):
        chosen = [f"method.published.{part}={folder[part]}" for part in PARTS]
        cell = cells([f"method={method}", *chosen])[0]
        assert set(files_of(cell)) == set(PARTS)
        assert overlap(files_of(cell), "mmcelebahq") == "unknown"


def test_a_denoiser_that_does_not_fit_the_latents_is_refused(folder):
    with pytest.raises(UserError, match="given 3 of 16 px"):
        DPLDM(
            Pixels(16),
            denoiser_of(folder),
            DiffusionTraining(process=DDPM(), text=BertTokens(folder["tokenizer"], 9)),
        )
