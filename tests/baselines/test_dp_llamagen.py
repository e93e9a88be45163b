"""DP-LlamaGen: what is finetuned as a whole and through adapters, and what it refuses."""

import pytest
import torch

from baselines.dp_llamagen import DPLlamaGen
from benchmarks.config import compose, make
from wavedp.data.toyfaces import ToyFaces
from wavedp.dp import DPPlan, Ledger, Trainer, UserError
from wavedp.nn.llama import LlamaPrior
from wavedp.nn.raster import RasterTokenizer
from wavedp.nn.reconstruction import Judge
from wavedp.nn.text import HashedText
from wavedp.wavelet.training import PriorTraining, TokenizerTraining

RECORDS = 24
CODES = {"codes": 2, "codebook_size": 12}


def made(codebook_size=12, tokenizer_training=None, **settings):
    torch.manual_seed(0)
    tokenizer = RasterTokenizer(32, 3, 2, codebook_size, code_width=4, width=8).eval()
    sizes = {"text_slots": 2, "text_width": 8, "width": 16, "depth": 2, "heads": 2}
    prior = LlamaPrior(4, **CODES, **sizes, multiple_of=8).eval()
    for output in prior.outputs:  # zeros would hide the blocks from the first gradient
        torch.nn.init.normal_(output.weight, std=0.1)
    training = PriorTraining(
        HashedText(2, 8), finetuning_rate=0.05, guidance=2.0, batch=4, **settings
    )
    return DPLlamaGen(tokenizer, prior, training, tokenizer_training)


def finetuned(cache, folder, **settings):
    generator = made(**settings)
    plan = DPPlan.calibrate(
        epsilon=5, delta=1e-5, records=RECORDS, expected_batch=8, steps=2, clip=1.0
    )
    ledger = Ledger(folder / f"{len(list(folder.iterdir()))}.jsonl", plan.budget)
    trainer = Trainer(plan, ledger=ledger, micro_batch=8, noise_seed=1, sampling_seed=2)
    toy = ToyFaces(private_records=RECORDS, evaluation_records=8, cache_dir=cache)
    generator.finetune(toy.private(), trainer)
    return generator


@pytest.mark.parametrize("rank", [0, 2])
def test_adapters_move_the_blocks_alone_and_leave_the_names(rank, cache, tmp_path):
    before = made().prior.state_dict()
    generator = finetuned(cache, tmp_path, lora_rank=rank)
    after = generator.prior.state_dict()
    assert after.keys() == before.keys()
    same = {name for name in before if torch.equal(before[name], after[name])}
    if rank:
        moved = before.keys() - same
        assert {name.split(".")[-2] for name in moved} == {"qkv", "out", "gate", "up", "down"}
        assert all(name.startswith("llama.blocks.") for name in moved)
        assert len(moved) == 10
    else:
        assert same == {"encoders", "no_text"}
    assert all(p.requires_grad for p in generator.prior.parameters())
    tokens = generator.tokenizer.state_dict()
    assert all(
        torch.equal(value, tokens[name]) for name, value in made().tokenizer.state_dict().items()
    )


def test_samples_are_images_one_per_caption():
    images = torch.cat(list(made().generate(["a red hat", "a blue hat", ""] * 2, 0)))
    assert (images.shape, images.dtype) == ((6, 3, 32, 32), torch.uint8)
    assert len(images.flatten(1).unique(dim=0)) == 6


def test_published_parts_are_not_trained_here():
    assert made().stages == {}
    training = TokenizerTraining(Judge())
    assert made(tokenizer_training=training).stages == {"tokenizer": (), "prior": ("tokenizer",)}


def test_parts_that_do_not_belong_together_are_refused():
    made().check(["a red hat"])
    with pytest.raises(UserError, match="codebook_size=12, the parts beside it have 14"):
        made(codebook_size=14).check(["a red hat"])
    generator = made()
    generator.prior.belong_to("another tokenizer", "another text")
    with pytest.raises(UserError, match="another tokenizer"):
        generator.check(["a red hat"])
    with pytest.raises(UserError, match="lora_rank=-1"):
        made(lora_rank=-1)


def test_its_codes_are_as_many_as_the_spectral_ones(in_root):
    counts = []
    for method in ("dp_llamagen", "dp_full_finetune"):
        tokenizer = make(compose([f"method={method}"]).method.generator).tokenizer
        tokens = tokenizer.scales * tokenizer.tokens_per_scale
        counts.append((tokens * tokenizer.codes, tokenizer.codebook_size))
    assert counts == [(192, 256), (192, 256)]


def test_its_embedded_parts_fit_into_the_repository(in_root):
    """Three megabytes each."""
    generator = make(compose(["method=dp_llamagen"]).method.generator)
    for part in (generator.tokenizer, generator.prior):
        assert sum(v.numel() * v.element_size() for v in part.state_dict().values()) < 3e6


def test_the_published_parts_are_asked_for_by_their_paths(in_root):
    config = compose(["method=dp_llamagen", "parts/llamagen@method=xl_256"])
    with pytest.raises(UserError, match=r"no weights at vq_ds16_t2i\.pt; set tokenizer\.path"):
        make(config.method.generator)
