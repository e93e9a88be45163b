"""Every method, of this project and of installed packages, held to the contract.

New methods are found, not listed.
"""

import itertools
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from benchmarks.cell import make_generator, seed_everything
from benchmarks.config import cells, choices
from wavedp.data.toyfaces import ToyFaces
from wavedp.dp import DPPlan, Ledger, NonPrivatePlan, PrivateRecords, Trainer
from wavedp.dp.noise import GaussianNoise
from wavedp.dp.private import open_columns
from wavedp.protocol import ImageGenerator

RECORDS = 48
NEVER = ("tokenizer", "upsampler", "autoencoder")
"""Parts that no method finetunes."""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=choices("method"))
def method(request):
    return request.param


def build(method):
    """A fresh instance with its public weights; in the small where its config says what that is."""
    cell = cell_of(method)
    seed_everything(0)
    return make_generator(cell)


@cache  # composing takes longer than most tests
def cell_of(method):
    chosen = [f"method={method}", "dataset=toyfaces"]
    small = cells(chosen)[0].config.method.get("small", {})
    chosen += [f"method.generator.{name}={value}" for name, value in small.items()]
    return cells(chosen)[0]


def private_faces(cache, seed=0):
    toy = ToyFaces(private_records=RECORDS, evaluation_records=8, cache_dir=cache, seed=seed)
    return toy.private()


def tiny_plan(steps=2):
    return DPPlan.calibrate(
        epsilon=5, delta=1e-5, records=RECORDS, expected_batch=16, steps=steps, clip=1.0
    )


def finetuned(method, cache, folder, plan=None, seed=0):
    generator, plan = build(method), plan or tiny_plan()
    ledger = Ledger(folder / f"{method}-{next(_numbers)}.jsonl", plan.budget)
    trainer = Trainer(plan, ledger=ledger, micro_batch=16, noise_seed=1, sampling_seed=2)
    generator.finetune(private_faces(cache, seed), trainer)
    return generator, trainer


_numbers = itertools.count()


def samples(generator, count=5, seed=3):
    captions = ["a person with brown hair", "a smiling person with glasses"] * 3
    return torch.cat(list(generator.generate(captions[:count], seed)))


def test_fulfils_the_protocol(method):
    generator = build(method)
    assert isinstance(generator, ImageGenerator)
    assert generator.conditioning in ("text", "none")
    assert cell_of(method).config.method.name == method.rpartition("/")[2]
    assert all(isinstance(generator.get_submodule(s), torch.nn.Module) for s in generator.stages)
    # Nothing is left at random: each part has public weights, made by a stage or another method's,
    # unless it is declared to begin with the private records.
    parts = {key.partition(".")[0] for key in generator.state_dict()}
    weights = cells([f"method={method}"])[0].config.method.weights
    private = set(getattr(generator, "private_parts", ()))
    assert private <= parts
    assert parts - private == {name.partition(".")[0] for name in weights}
    assert set(generator.stages) <= parts - private


def test_makes_uint8_images_of_its_resolution_one_per_caption(method):
    generator = build(method)
    images = samples(generator)
    assert images.dtype == torch.uint8
    assert images.shape == (5, 3, generator.resolution, generator.resolution)
    assert images.float().std() > 5  # not one flat colour


def test_samples_depend_on_the_seed_and_on_nothing_else(method):
    generator = build(method)
    first = samples(generator)
    torch.manual_seed(99)
    assert torch.equal(first, samples(generator))
    assert not torch.equal(first, samples(generator, seed=4))


def test_captions_matter_where_text_is_declared(method):
    generator = build(method)
    red, blue = (
        torch.cat(list(generator.generate([f"a {colour} disc on a {colour} background"] * 40, 0)))
        for colour in ("red", "blue")
    )
    difference = (red[:, 0].float().mean() - red[:, 2].float().mean()) - (
        blue[:, 0].float().mean() - blue[:, 2].float().mean()
    )
    if generator.conditioning == "text":
        assert difference > 20
    else:
        assert torch.equal(red, blue)


def test_the_ledger_shows_the_plan(method, cache, tmp_path):
    plan = tiny_plan(steps=3)
    _, trainer = finetuned(method, cache, tmp_path, plan)
    assert trainer.ledger.counts == {plan.event: 3}
    assert 0 < trainer.spent().epsilon <= 5


def test_finetuning_changes_weights_and_is_reproducible_with_given_seeds(method, cache, tmp_path):
    before = build(method).state_dict()
    after = [finetuned(method, cache, tmp_path)[0].state_dict() for _ in range(2)]
    assert any(not torch.equal(before[key], after[0][key]) for key in before)
    assert all(torch.equal(after[0][key], after[1][key]) for key in before)


def test_saved_and_loaded_weights_give_the_same_samples(method, cache, tmp_path):
    generator, _ = finetuned(method, cache, tmp_path)
    torch.save(generator.state_dict(), tmp_path / "weights.pt")
    other = build(method)
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(samples(generator), samples(other))


def test_public_parts_that_are_not_finetuned_have_no_path_from_private_data(
    method, cache, tmp_path
):
    """What the trainer was not given stays bit for bit what it was."""
    before = build(method)
    private = getattr(before, "private_parts", None)
    after = finetuned(method, cache, tmp_path)[0].state_dict()
    for key, value in before.state_dict().items():
        part = key.partition(".")[0]
        # A method with private parts of its own has learnt nothing else.
        if part in NEVER if private is None else part not in private:
            assert torch.equal(value, after[key]), key


def test_sums_are_clipped(method, cache, tmp_path, monkeypatch):
    """What reaches the noise is at most the number of records times the clip, and not zero."""
    seen = []

    def spy(self, sums, step):
        seen.append(torch.sqrt(sum(total.square().sum() for total in sums.values())).item())

    monkeypatch.setattr(GaussianNoise, "add_to", spy)
    everyone = DPPlan.calibrate(
        epsilon=5, delta=1e-5, records=RECORDS, expected_batch=RECORDS, steps=2, clip=0.01
    )
    finetuned(method, cache, tmp_path, everyone)
    assert len(seen) == 2
    assert all(0 < norm <= RECORDS * 0.01 * 1.0001 for norm in seen)


def test_the_bound_is_below_the_gradients_that_it_clips(method, cache, tmp_path, monkeypatch):
    """Above them it bounds nothing, and the noise, which is scaled to it, drowns them."""
    settings, norms = cell_of(method).config.method.finetuning, []

    def spy(self, model, loss, records, *_):
        columns = {name: torch.as_tensor(values) for name, values in open_columns(records).items()}
        for row in range(16):
            model.zero_grad()
            record = {name: values[row : row + 1] for name, values in columns.items()}
            views = settings.get("views", 1)
            (sum(loss(model, record).sum() for _ in range(views)) / views).backward()
            given = [p.grad for p in model.parameters() if p.grad is not None]
            norms.append(torch.stack([gradient.norm() for gradient in given]).norm())

    monkeypatch.setattr(Trainer, "fit", spy)
    finetuned(method, cache, tmp_path)
    if norms:  # those that ask queries have none
        assert torch.stack(norms).quantile(0.1) >= settings.clip


def test_works_without_privacy_too(method, cache, tmp_path):
    _, trainer = finetuned(method, cache, tmp_path, NonPrivatePlan(16, 2))
    assert trainer.spent().epsilon == float("inf")


def test_neither_drawing_nor_the_oracle_changes_anything(method, cache):
    """Both see what no ledger knows of: captions, and real images of the evaluation side."""
    generator = build(method)
    before = {name: tensor.clone() for name, tensor in everything_in(generator).items()}
    records = ToyFaces(private_records=8, evaluation_records=40, cache_dir=cache).evaluation()
    generator.oracle(torch.tensor(records.images[:40]))
    samples(generator)
    after = everything_in(generator)
    assert before.keys() == after.keys()
    assert not [name for name in before if not torch.equal(before[name], after[name])]


def everything_in(generator):
    """Parameters and buffers, also those that no checkpoint holds."""
    return dict(itertools.chain(generator.named_parameters(), generator.named_buffers()))


def test_the_oracle_resembles_its_input(method, cache):
    generator = build(method)
    records = ToyFaces(private_records=8, evaluation_records=20, cache_dir=cache).evaluation()
    images = torch.tensor(records.images[:20])
    made = generator.oracle(images)
    assert made.shape == images.shape
    assert made.dtype == torch.uint8
    error = (made.float() - images.float()).square().mean()
    shuffled = (made.float() - images.flip(0).float()).square().mean()
    assert error < shuffled / 4


def test_refuses_training_without_a_ledger(method, cache):
    from wavedp.dp import UserError

    with pytest.raises(UserError, match="ledger"):
        build(method).finetune(private_faces(cache), Trainer(tiny_plan()))


def test_nothing_of_private_data_is_printed_or_left_in_files(method, cache, tmp_path, capfd):
    """The run folder holds the ledger alone; the ledger holds public numbers alone."""
    finetuned(method, cache, tmp_path)
    assert capfd.readouterr().out == ""
    files = sorted(tmp_path.rglob("*"))
    assert [f.suffix for f in files] == [".jsonl"]
    lines = [json.loads(line) for line in files[0].read_text().splitlines()[1:]]
    names = [line.pop("noise") for line in lines]
    assert all(line == lines[0] for line in lines)
    again = tmp_path / "again"
    again.mkdir()
    finetuned(method, cache, again, seed=7)
    others = [json.loads(x) for x in next(again.glob("*")).read_text().splitlines()[1:]]
    assert [line["noise"] for line in others] == names  # whatever the records are


def test_no_door_to_private_records_is_loaded_with_a_method(method):
    """In a fresh process: neither the one for evaluation nor the harness's view behind it."""
    target = cells([f"method={method}"])[0].config.method.generator["_target_"]
    doors = "{'wavedp.dp.evaluation_door', 'benchmarks.private_view', 'benchmarks'}"
    code = f"import sys, {target.rpartition('.')[0]}; print({doors} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("set()", 0)


def test_no_module_beside_the_method_breaks_the_seal_of_private_records(method):
    package = type(build(method)).__module__.rpartition(".")[0]
    beside = [m for name, m in sys.modules.items() if f"{name}.".startswith(f"{package}.")]
    files = {Path(m.__file__) for m in beside if getattr(m, "__file__", None)}
    assert files
    sealed = ("open_columns", "_PrivateRecords__")
    assert not [file for file in files if any(word in file.read_text() for word in sealed)]


def test_private_records_reach_a_method_sealed(cache):
    assert isinstance(private_faces(cache), PrivateRecords)
