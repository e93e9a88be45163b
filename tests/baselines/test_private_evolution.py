"""Private Evolution: votes, survivors and variations by hand; it moves towards the records."""

import gc
import math

import pytest
import torch

from baselines.private_evolution import Nearest, PrivateEvolution, survivors
from wavedp.dp import Budget, DPPlan, Ledger, NonPrivatePlan, PrivateRecords, Trainer, UserError
from wavedp.dp.checkpoint import Checkpoints
from wavedp.dp.noise import GaussianNoise
from wavedp.nn.images import to_uint8
from wavedp.nn.reconstruction import Judge
from wavedp.nn.text import HashedText
from wavedp.wavelet.encoders import LowBandEncoder
from wavedp.wavelet.prior import SpectralPrior
from wavedp.wavelet.tokenizer import SpectralTokenizer
from wavedp.wavelet.training import PriorTraining, TokenizerTraining

RECORDS, MEMBERS = 30, 12
PUBLIC = ("a red box", "a blue disc")


def made(captions=PUBLIC, members=MEMBERS, slots=2, seed=0, **settings):
    torch.manual_seed(seed)
    tokenizer = SpectralTokenizer(
        16, 1, 2, codes=2, codebook_size=16, code_width=4, width=16, heads=2, decoder_depth=1
    )
    prior = SpectralPrior(2, 4, 2, 16, text_slots=2, text_width=8, width=16, depth=1, heads=2)
    training = PriorTraining(HashedText(slots, 8), batch=5)
    return PrivateEvolution(
        tokenizer.eval(),
        prior.eval(),
        TokenizerTraining(Judge()),
        training,
        captions,
        members,
        **settings,
    )


def images(count=RECORDS, seed=0):
    """What the method could draw itself: decoded random tokens, dark ones alone."""
    generator = torch.Generator().manual_seed(seed)
    method = made()
    tokens = torch.randint(16, (40 * count, 8, 2), generator=generator)
    with torch.no_grad():
        drawn = method.tokenizer.decode(tokens)
    return to_uint8(drawn[drawn.mean((1, 2, 3)).argsort()[:count]])


def sealed(rows=None):
    rows = images() if rows is None else rows
    return PrivateRecords({"images": rows.numpy()}, name="toy", records=RECORDS)


def evolved(folder, plan=None, rows=None, checkpoints=None, **settings):
    method = made(**settings)
    plan = plan or DPPlan.calibrate(
        epsilon=5, delta=1e-5, records=RECORDS, expected_batch=RECORDS, steps=3
    )
    ledger = Ledger(folder / f"{len(list(folder.glob('*.jsonl')))}.jsonl", plan.budget)
    trainer = Trainer(plan, ledger=ledger, noise_seed=1, checkpoints=checkpoints)
    method.finetune(sealed(rows), trainer)
    ledger.close()
    return method, trainer


def test_a_record_votes_for_the_nearest_candidate_and_the_first_of_equals():
    """On a line: 0.4 is nearest to 0, 0.6 and 1.4 to 1, and 2 is as near to the last two."""
    votes = Nearest(torch.tensor([[0.0], [1.0], [3.0], [3.0]]))
    low = torch.tensor([[0.4], [0.6], [1.4], [2.0], [9.0]])
    assert votes({"low": low}).tolist() == [0, 1, 1, 1, 2]


def test_the_nearest_is_the_least_distance_whatever_the_candidates():
    generator = torch.Generator().manual_seed(0)
    candidates = torch.randn(20, 12, generator=generator)
    low = torch.randn(200, 12, generator=generator)
    expected = torch.cdist(low, candidates).argmin(1)
    assert torch.equal(Nearest(candidates)({"low": low}), expected)


def test_a_vote_histogram_by_hand(tmp_path):
    """Five records and three candidates, as the mechanism counts them."""
    low = torch.tensor([[0.1, 0.0], [0.9, 1.2], [1.0, 1.0], [5.0, 5.0], [0.0, 0.2]])
    private = PrivateRecords({"low": low}, name="toy", records=5)
    plan = NonPrivatePlan(5, 1)
    trainer = Trainer(plan, ledger=Ledger(tmp_path / "l.jsonl", plan.budget))
    votes = Nearest(torch.tensor([[0.0, 0.0], [1.0, 1.0], [5.0, 4.0]]))
    with trainer.queries(private, "votes") as queries:
        assert queries.histogram(votes, bins=3).tolist() == [2, 2, 1]


def test_survivors_by_hand():
    """(7, 2, 2.5, -3) above H = 2: (5, 0, 0.5, 0); and all alike where none is above."""
    votes = torch.tensor([7.0, 2.0, 2.5, -3.0], dtype=torch.float64)
    assert survivors(votes, 2.0).tolist() == [5, 0, 0.5, 0]
    assert survivors(votes, 8.0).tolist() == [1, 1, 1, 1]


def test_the_threshold_by_hand():
    """30 records, C = 1/2: 1.25 votes for each of 12, times 3; among 20, 2 sigma C = 3."""
    method = made(noise_threshold=2.0, vote_threshold=3.0)
    plan = DPPlan(Budget(5.0, 1e-5), RECORDS, RECORDS, 1, 0.5, 3.0)
    assert method._threshold(plan, 12) == 3.75
    assert method._threshold(plan, 20) == 3.0
    assert method._threshold(NonPrivatePlan(RECORDS, 1), 12) == 7.5


def test_one_record_moves_each_histogram_by_at_most_one(tmp_path, monkeypatch):
    """With the same noise and candidates: the first answers of two neighbours."""
    rows, moved = images(), []
    without = torch.cat([rows[:7], rows[8:]])
    one = DPPlan.calibrate(epsilon=5, delta=1e-5, records=RECORDS, expected_batch=RECORDS, steps=1)
    for part in (rows, without):
        kept = Checkpoints(tmp_path / f"checkpoints{len(part)}")
        evolved(tmp_path, one, part, kept)
        moved.append(kept.load("private evolution 1")["released"][0])
    difference = moved[0] - moved[1]
    assert difference.norm().item() == pytest.approx(1.0, abs=1e-6)
    assert difference.abs().max().item() == pytest.approx(1.0, abs=1e-6)


def test_the_budget_is_that_of_as_many_gaussians_as_generations(tmp_path):
    _, trainer = evolved(tmp_path)
    assert trainer.ledger.counts == {trainer.plan.event: 3}
    assert trainer.plan.event.sampling_probability == 1
    assert 4.9 < trainer.spent().epsilon <= 5
    assert trainer.sensitivity_used == 1


def test_without_noise_the_population_moves_towards_the_records(tmp_path):
    """The mean distance of a record to its nearest member falls, and keeps falling."""
    rows = images()
    encoder = LowBandEncoder(16, 8)
    low = encoder({"images": rows.numpy()})["low"]

    def distance(method):
        members = method._low_bands(method.population.long())
        return torch.cdist(low, members).min(1).values.mean().item()

    ends = [
        distance(evolved(tmp_path, NonPrivatePlan(RECORDS, steps), rows, vote_threshold=0.0)[0])
        for steps in (1, 16)
    ]
    random = made()
    random.population.copy_(random._random(MEMBERS, 0))
    assert ends[0] < distance(random)
    assert ends[1] < 0.92 * ends[0]


def test_noise_alone_says_nothing_of_the_records(tmp_path, monkeypatch):
    """What survives depends on records through the released histogram alone."""

    def drowns(self, sums, step):
        for total in sums.values():
            total.copy_(torch.arange(len(total)))

    monkeypatch.setattr(GaussianNoise, "add_to", drowns)
    found = [evolved(tmp_path, rows=images(seed=seed))[0].population for seed in (0, 1)]
    assert torch.equal(*found)


@pytest.mark.parametrize("degree", [0.0, 0.4, 1.0])
def test_variations_keep_what_is_not_redrawn(degree):
    method = made()
    tokens = torch.randint(16, (200, 4, 2), generator=torch.Generator().manual_seed(1))
    before = tokens.clone()
    varied = method.vary(tokens, degree, torch.Generator().manual_seed(2))
    assert torch.equal(tokens, before)
    share = (varied != tokens).any(2).float().mean().item()
    # A redrawn token of two codes out of 16 may be what it was, rarely.
    assert 0.85 * degree <= share <= degree + 3 * math.sqrt(degree * (1 - degree) / 800)
    again = method.vary(tokens, degree, torch.Generator().manual_seed(2))
    assert torch.equal(varied, again)


def test_every_member_is_drawn_before_any_is_drawn_again(tmp_path):
    method, _ = evolved(tmp_path, voted_scales=2)
    method.population.copy_(method._random(MEMBERS, 7))
    whole = to_uint8(method.tokenizer.decode(method.population.long()))
    drawn = torch.cat(list(method.generate(["any"] * (2 * MEMBERS + 3), 0)))

    def counted(part):
        return sorted(image.tobytes() for image in part.numpy())

    assert counted(drawn[:MEMBERS]) == counted(whole)
    assert counted(drawn[MEMBERS : 2 * MEMBERS]) == counted(whole)
    assert not torch.equal(drawn[:MEMBERS], drawn[MEMBERS : 2 * MEMBERS])
    assert list(method.generate([], 0)) == []


def test_before_any_private_record_it_draws_from_the_prior_for_public_captions():
    drawn = torch.cat(list(made().generate(["a", "b", "c"], 4)))
    method = made()
    tokens = torch.cat(list(method._training.sample(method.prior, [*PUBLIC, PUBLIC[0]], 2, 4)))
    assert torch.equal(drawn, to_uint8(method.tokenizer.decode(tokens)))


def test_an_interrupted_evolution_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    expected = evolved(tmp_path)[0].population
    real = GaussianNoise.add_to

    def dies(self, sums, step):
        if step == 2:
            raise KeyboardInterrupt
        real(self, sums, step)

    kept, folder = Checkpoints(tmp_path / "checkpoints"), tmp_path / "own"
    folder.mkdir()
    monkeypatch.setattr(GaussianNoise, "add_to", dies)
    with pytest.raises(KeyboardInterrupt):
        evolved(folder, checkpoints=kept)
    monkeypatch.setattr(GaussianNoise, "add_to", real)
    plan = DPPlan.calibrate(epsilon=5, delta=1e-5, records=RECORDS, expected_batch=RECORDS, steps=3)
    method = made()
    gc.collect()  # the ledger that the interrupted run has left open
    ledger = Ledger(folder / "0.jsonl", plan.budget)
    method.finetune(sealed(), Trainer(plan, ledger=ledger, noise_seed=1, checkpoints=kept))
    assert torch.equal(method.population, expected)
    assert sum(ledger.counts.values()) == 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"captions": ()}, "captions"),
        ({"members": 0}, "members"),
        ({"voted_scales": 3}, "voted_scales=3 must lie in 1..2"),
        ({"degrees": (0.5, 1.5)}, "degrees"),
        ({"degrees": (0.5,)}, "degrees"),
        ({"noise_threshold": -1.0}, "noise_threshold=-1"),
        ({"vote_threshold": -1.0}, "vote_threshold=-1"),
    ],
)
def test_bad_settings_are_refused_by_name(change, named):
    with pytest.raises(UserError, match=named):
        made(**change)


def test_parts_that_do_not_belong_together_and_long_public_captions_are_refused():
    made().check(["whatever a prompt says, it is not read " * 50])
    with pytest.raises(UserError, match="text_slots=2, the parts beside it have 3"):
        made(slots=3).check([])
