"""Two processes over gloo release what one process releases: the same sum, the noise once."""

import multiprocessing

import pytest
import torch
import torch.distributed
from torch import nn

from wavedp.dp import (
    DPPlan,
    Ledger,
    NonPrivatePlan,
    PrivateRecords,
    Trainer,
    UserError,
    noisy_sum,
)
from wavedp.dp.accounting import Budget
from wavedp.dp.checkpoint import Checkpoints
from wavedp.dp.distributed import World
from wavedp.dp.noise import GaussianNoise
from wavedp.dp.randomness import Stream

FORK = multiprocessing.get_context("fork")
WIDTH = 250
CLIP, SIGMA, BATCH = 0.7, 3.0, 16


def plan(steps=1, sigma=SIGMA, records=64, batch=BATCH):
    return DPPlan(Budget(float("inf"), 1e-5), records, batch, steps, CLIP, sigma)


def loss(model, batch):
    return (model(batch["x"]) - batch["y"]).square().mean(1)


def train(folder, a_plan, records=64, **settings):
    """One SGD step of rate E[batch] moves the weights by minus the released sum."""
    leads = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    torch.manual_seed(0)
    model = nn.Linear(WIDTH, WIDTH)
    start = [p.detach().clone() for p in model.parameters()]
    draw = torch.Generator().manual_seed(1)
    data = {name: torch.randn(64, WIDTH, generator=draw) for name in "xy"}
    folder.mkdir(exist_ok=True)
    ledger = Ledger(folder / "ledger.jsonl", a_plan.budget, writes=leads)
    trainer = Trainer(a_plan, ledger=ledger, micro_batch=4, **settings)
    sealed = PrivateRecords(data, name="toy", records=records)
    trainer.fit(model, loss, sealed, torch.optim.SGD(model.parameters(), lr=a_plan.expected_batch))
    moved = [a - p.detach() for a, p in zip(start, model.parameters(), strict=True)]
    return torch.cat([x.flatten() for x in moved]), sum(ledger.counts.values())


def _rank(rank, size, folder, work):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size
    )
    try:
        result = work(folder)
    except UserError as error:
        result = str(error)
    torch.save(result, folder / f"{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def on_two_ranks(folder, work):
    """What ``work(folder)`` returns on each of two ranks."""
    folder.mkdir(exist_ok=True)
    ranks = [FORK.Process(target=_rank, args=(r, 2, folder, work)) for r in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
        assert rank.exitcode == 0
    return tuple(torch.load(folder / f"{r}.pt", weights_only=True) for r in range(2))


def lines(folder):
    return len((folder / "ledger.jsonl").read_text().splitlines()) - 1


def test_the_sum_is_that_of_one_rank_and_all_ranks_agree(tmp_path):
    quiet = plan(sigma=1e-9)
    first, second = on_two_ranks(
        tmp_path / "two", lambda folder: train(folder, quiet, sampling_seed=3)
    )
    alone, _ = train(tmp_path / "one", quiet, sampling_seed=3)
    assert alone.norm() > CLIP
    torch.testing.assert_close(first[0], alone, rtol=1e-5, atol=1e-6)
    assert torch.equal(first[0], second[0])


def test_the_noise_is_there_once_whatever_the_number_of_ranks(tmp_path):
    """62,750 coordinates: the variance is known to 0.6 %, so half or twice as much would show."""

    def noise(folder):
        return train(folder, plan(), sampling_seed=3)[0]

    first, second = on_two_ranks(tmp_path / "two", noise)
    quiet = train(tmp_path / "one", plan(sigma=1e-9), sampling_seed=3)[0]
    drawn = first - quiet
    assert drawn.var().item() == pytest.approx((SIGMA * CLIP) ** 2, rel=0.03)
    assert drawn.mean().item() == pytest.approx(0, abs=5 * SIGMA * CLIP / 62_750**0.5)
    assert torch.equal(first, second)


def test_given_seeds_make_two_ranks_repeat_one(tmp_path):
    def seeded(folder):
        return train(folder, plan(steps=3), noise_seed=1, sampling_seed=2)[0]

    first, _ = on_two_ranks(tmp_path / "two", seeded)
    torch.testing.assert_close(first, seeded(tmp_path / "one"), rtol=1e-4, atol=1e-5)


def test_every_rank_takes_every_step_with_empty_and_unequal_parts(tmp_path):
    """Batches of no or one record: a rank, or both, have nothing in most steps."""
    sparse = plan(steps=12, records=100_000, batch=600)  # 0.4 of 64 true records a step
    first, second = on_two_ranks(
        tmp_path / "two", lambda folder: train(folder, sparse, 100_000, sampling_seed=4)
    )
    assert torch.equal(first[0], second[0])
    assert (first[1], second[1]) == (12, 12)
    assert lines(tmp_path / "two") == 12
    # Noise of every step, also of those without any record.
    assert first[0].var().item() == pytest.approx(12 * (SIGMA * CLIP) ** 2, rel=0.1)


def test_all_ranks_stop_after_the_step_that_the_first_one_was_asked_to(tmp_path):
    """The first one alone hears of it, and after a restart all go on from there."""
    settings = {"noise_seed": 1, "sampling_seed": 2}

    def work(_):
        asked, steps = [], []

        def wanted():
            asked.append(len(asked))
            return World.current().leads and len(asked) == 2

        def seen(planned, label):
            for step in planned:
                steps.append(step)
                yield step

        kept = Checkpoints(tmp_path / "kept", 100, wanted)
        try:
            moved = train(
                tmp_path / "run", plan(steps=3), checkpoints=kept, progress=seen, **settings
            )[0]
        except KeyboardInterrupt:
            return steps, None
        return steps, moved

    assert on_two_ranks(tmp_path / "one", work) == (([0, 1], None),) * 2
    assert lines(tmp_path / "run") == 2
    first, second = on_two_ranks(tmp_path / "two", work)
    assert first[0] == second[0] == [2]
    assert torch.equal(first[1], second[1])
    assert lines(tmp_path / "run") == 3


def test_only_the_first_rank_adds_noise(tmp_path, monkeypatch):
    def counted(folder):
        added = []
        monkeypatch.setattr(GaussianNoise, "add_to", lambda self, sums, step: added.append(step))
        train(folder, plan(steps=2))
        return added

    assert on_two_ranks(tmp_path / "two", counted) == ([0, 1], [])


def test_the_last_bits_do_not_tell_what_another_rank_held(tmp_path):
    """Rank 1 has the record; its sum must not meet the noise in float32 (Mironov 2012)."""

    def low_bits(folder):
        sums = {"w": torch.full((20_000,), 0.0)}
        world = World.current()
        if world.rank == 1:
            sums["w"] += -0.3
        world.add_up(sums)
        if world.leads:
            GaussianNoise(1.0, Stream.fresh(0, "test")).add_to(sums, 0)
        world.spread(sums.values())
        inside = sums["w"][(sums["w"] > 0.72) & (sums["w"] < 0.98)]
        return (inside.view(torch.int32) & 1).float().mean().item()

    for share in on_two_ranks(tmp_path / "two", low_bits):
        assert 0.4 < share < 0.6


def test_a_mechanism_releases_once_and_gives_all_ranks_the_same(tmp_path):
    def released(folder):
        ledger = Ledger(folder / "sum.jsonl", plan().budget)
        World.current().all(None)  # a rank that opens it later would count the query twice
        private = PrivateRecords({"x": torch.ones(8, 5)}, name="toy", records=8)
        total = noisy_sum(
            private, lambda c: c["x"], size=5, clip=9.0, noise_multiplier=1.0, ledger=ledger
        )
        return total, sum(ledger.counts.values())

    first, second = on_two_ranks(tmp_path / "two", released)
    assert torch.equal(first[0], second[0])
    assert (first[1], second[1]) == (1, 1)
    assert len((tmp_path / "two" / "sum.jsonl").read_text().splitlines()) == 2


def test_an_error_on_one_rank_reaches_all(tmp_path):
    def fails(folder):
        def picky(model, batch):
            losses = loss(model, batch)
            return losses.mean() if torch.distributed.get_rank() == 1 else losses

        torch.manual_seed(0)
        model = nn.Linear(WIDTH, WIDTH)
        data = {name: torch.randn(64, WIDTH) for name in "xy"}
        trainer = Trainer(plan(), ledger=Ledger(folder / "l.jsonl", plan().budget))
        sealed = PrivateRecords(data, name="toy", records=64)
        trainer.fit(model, picky, sealed, torch.optim.SGD(model.parameters(), lr=0.1))

    for said in on_two_ranks(tmp_path / "two", fails):
        assert "one value per record" in said


def test_ranks_start_from_the_weights_of_the_first(tmp_path):
    def fit(folder):
        torch.manual_seed(torch.distributed.get_rank())
        model = nn.Linear(WIDTH, WIDTH)
        public = {name: torch.zeros(8, WIDTH) for name in "xy"}
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        Trainer(NonPrivatePlan(4, 1), sampling_seed=0).fit(model, loss, public, sgd)
        return model.weight.detach()

    assert torch.equal(*on_two_ranks(tmp_path / "two", fit))


def test_ranks_resume_together_or_say_why_not(tmp_path):
    """Checkpoints that only the first rank can read are refused; shared ones continue."""

    def first_half(folder):
        return train(folder, plan(steps=4), checkpoints=Checkpoints(folder / "kept", 2))[1]

    shared = tmp_path / "two"
    on_two_ranks(shared, first_half)
    again, _ = on_two_ranks(shared, first_half)
    assert again == 4  # nothing left to do, nothing charged again

    def apart(folder):
        rank = torch.distributed.get_rank()
        kept = Checkpoints(shared / "kept" if rank == 0 else tmp_path / "empty", 2)
        return train(shared, plan(steps=4), checkpoints=kept)[1]

    for said in on_two_ranks(tmp_path / "apart", apart):
        assert "where every rank can read them" in said
