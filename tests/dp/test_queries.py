"""The queries of a plan as sums and histograms: charged, bounded, noised once, and resumed."""

import json
import math

import pytest
import torch

from wavedp.dp import DPPlan, Ledger, NonPrivatePlan, PrivateRecords, Trainer, UserError
from wavedp.dp.accounting import Budget, Event
from wavedp.dp.checkpoint import Checkpoints
from wavedp.dp.noise import GaussianNoise

RECORDS, STEPS = 30, 4
PLAN = DPPlan(Budget(math.inf, 1e-5), RECORDS, RECORDS, STEPS, 1.0, 2.0)


def sealed(rows=None, name="toy"):
    rows = torch.arange(RECORDS) % 3 if rows is None else rows
    return PrivateRecords({"x": rows}, name=name, records=RECORDS)


def asking(folder, plan=PLAN, checkpoints=True, **settings):
    settings = {"noise_seed": 1, "sampling_seed": 2} | settings
    kept = Checkpoints(folder / "checkpoints") if checkpoints else None
    ledger = Ledger(folder / "ledger.jsonl", plan.budget)
    return Trainer(plan, ledger=ledger, checkpoints=kept, **settings)


def ask(trainer, private=None, count=None, bins=3):
    """Histograms of the records: the answers."""
    private = sealed() if private is None else private
    with trainer.queries(private, "votes") as queries:
        found = [
            queries.histogram(lambda rows: rows["x"], bins=bins)
            for _ in range(trainer.plan.steps if count is None else count)
        ]
    trainer.ledger.close()
    return found


def interrupted(trainer, answered):
    """The answers of a run that ends after so many."""
    found = []
    try:
        with trainer.queries(sealed(), "votes") as queries:
            for _ in range(answered):
                found.append(queries.histogram(lambda rows: rows["x"], bins=3))
            raise InterruptedError
    except InterruptedError:
        trainer.ledger.close()
    return found


def lines(folder):
    return [json.loads(x) for x in (folder / "ledger.jsonl").read_text().splitlines()[1:]]


@pytest.mark.parametrize("epsilon", [1.0, 10.0])
def test_a_plan_of_queries_over_all_records_costs_what_one_gaussian_mechanism_does(epsilon):
    """T of sigma are one of sigma / sqrt(T); delta in closed form by Balle and Wang (2018)."""

    def delta(sigma):
        def below(x):
            return 0.5 * math.erfc(-x / math.sqrt(2))

        a, b = 1 / (2 * sigma), epsilon * sigma
        return below(a - b) - math.exp(epsilon) * below(-a - b)

    for steps in (1, 15):
        plan = DPPlan.calibrate(
            epsilon=epsilon, delta=1e-5, records=1000, expected_batch=1000, steps=steps
        )
        assert plan.event == Event(1.0, plan.noise_multiplier)
        as_one = plan.noise_multiplier / math.sqrt(steps)
        assert delta(as_one) <= 1e-5
        assert delta(as_one * 0.995) > 1e-5


def test_answers_by_hand_without_noise(tmp_path):
    trainer = asking(tmp_path, NonPrivatePlan(RECORDS, 2))
    rows = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    with trainer.queries(sealed(rows), "q") as queries:
        assert queries.histogram(lambda r: r["x"][:, 0].long(), bins=4).tolist() == [1, 0, 0, 1]
        assert queries.sum(lambda r: r["x"], size=2).tolist() == [3, 6]  # nothing is clipped
    assert trainer.ledger.counts == {Event(1.0, 0.0): 2}
    assert trainer.spent().epsilon == math.inf


def test_every_query_has_noise_of_its_own_of_the_plans_deviation(tmp_path):
    plan = DPPlan(Budget(math.inf, 1e-5), RECORDS, RECORDS, 2, 0.5, 3.0)
    nobody = sealed(torch.full((RECORDS,), -1))
    first, second = ask(asking(tmp_path, plan), nobody, bins=20_000)
    for noise in (first, second, (first - second) / math.sqrt(2)):
        assert noise.std().item() == pytest.approx(1.5, rel=0.02)
        assert abs(noise.mean()) < 0.05


def test_one_record_moves_an_answer_by_at_most_the_sensitivity(tmp_path):
    plan = DPPlan(Budget(math.inf, 1e-5), RECORDS, RECORDS, 1, 0.7, 2.0)
    generator = torch.Generator().manual_seed(0)
    rows = 5 * torch.randn(RECORDS, 6, generator=generator)
    answers = []
    for part, folder in ((rows, tmp_path / "with"), (rows[1:], tmp_path / "without")):
        trainer = asking(folder, plan)
        with trainer.queries(sealed(part), "q") as queries:
            answers.append(queries.sum(lambda r: r["x"], size=6))
    moved = (answers[0] - answers[1]).norm().item()
    assert trainer.sensitivity_used == 0.7
    assert moved == pytest.approx(0.7, rel=1e-6)


def test_the_trainer_tells_what_ran(tmp_path):
    trainer = asking(tmp_path)
    ask(trainer)
    assert trainer.examples == STEPS * RECORDS
    assert trainer.train_seconds > 0
    assert not trainer.resumed
    assert trainer.ledger.counts == {PLAN.event: STEPS}


@pytest.mark.parametrize("seeds", [True, False])
@pytest.mark.parametrize("answered", [0, 2, STEPS])
def test_an_interrupted_run_gets_the_answers_that_it_had_and_pays_once(seeds, answered, tmp_path):
    settings = {} if seeds else {"noise_seed": None, "sampling_seed": None}

    before = interrupted(asking(tmp_path, **settings), answered)
    assert len(lines(tmp_path)) == answered
    again = asking(tmp_path, **settings)
    after = ask(again)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=False))
    assert len(lines(tmp_path)) == STEPS
    assert again.resumed == (answered > 0)
    assert again.examples == (STEPS - answered) * RECORDS  # what this process saw
    assert not list((tmp_path / "checkpoints").glob("*.key"))
    # Once it has ended, it needs no keys to give them again.
    assert all(torch.equal(*pair) for pair in zip(after, ask(asking(tmp_path)), strict=True))
    assert len(lines(tmp_path)) == STEPS


def test_answers_whose_ledger_is_gone_are_refused(tmp_path):
    """Who went on from them would tell of fewer queries than were asked."""
    interrupted(asking(tmp_path), 2)
    (tmp_path / "ledger.jsonl").unlink()
    with pytest.raises(UserError, match="has 0 queries and a checkpoint goes on from 2"):
        ask(asking(tmp_path))
    assert lines(tmp_path) == []


def test_a_query_that_was_paid_for_and_lost_is_asked_again_with_its_noise(tmp_path, monkeypatch):
    """Killed between the ledger and the checkpoint: the same release, charged once."""
    undisturbed = tmp_path / "undisturbed"
    expected = ask(asking(undisturbed))
    real = GaussianNoise.add_to

    def dies(self, sums, step):
        if step == 2:
            raise KeyboardInterrupt
        real(self, sums, step)

    monkeypatch.setattr(GaussianNoise, "add_to", dies)
    trainer = asking(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        ask(trainer)
    trainer.ledger.close()
    monkeypatch.setattr(GaussianNoise, "add_to", real)
    assert len(lines(tmp_path)) == 3
    assert all(torch.equal(*pair) for pair in zip(expected, ask(asking(tmp_path)), strict=True))
    assert len(lines(tmp_path)) == STEPS


def test_who_wants_to_stop_is_asked_after_an_answer_which_is_kept(tmp_path):
    asked = []

    def wanted():
        asked.append(len(asked))
        return len(asked) == 2

    trainer = asking(tmp_path, checkpoints=False)
    trainer.checkpoints = Checkpoints(tmp_path / "checkpoints", wanted=wanted)
    with pytest.raises(KeyboardInterrupt):
        ask(trainer)
    trainer.ledger.close()
    assert len(Checkpoints(tmp_path / "checkpoints").load("votes 1")["released"]) == 2
    assert len(ask(asking(tmp_path))) == STEPS
    assert len(lines(tmp_path)) == STEPS


def test_without_the_keys_what_is_not_answered_is_charged_anew_or_refused(tmp_path):
    plan = DPPlan.calibrate(
        epsilon=2, delta=1e-5, records=RECORDS, expected_batch=RECORDS, steps=STEPS
    )
    interrupted(asking(tmp_path, plan), 1)
    for key in (tmp_path / "checkpoints").glob("*.key"):
        key.unlink()
    ask(asking(tmp_path, plan))
    assert len(lines(tmp_path)) == STEPS
    with pytest.raises(UserError, match="past the target"):  # another release, another budget
        ask(asking(tmp_path, plan, checkpoints=False))


def test_keys_are_for_their_owner_only_and_answers_hold_nothing_else(tmp_path):
    trainer = asking(tmp_path)
    with trainer.queries(sealed(), "votes") as queries:
        answer = queries.histogram(lambda rows: rows["x"], bins=3)
        (key,) = (tmp_path / "checkpoints").glob("*.key")
        assert key.stat().st_mode & 0o077 == 0
    state = Checkpoints(tmp_path / "checkpoints").load("votes 1")
    assert state.keys() == {"identity", "released"}
    assert len(state["released"]) == 1
    assert torch.equal(state["released"][0], answer)


@pytest.mark.parametrize(
    ("change", "named"), [("plan", "another plan"), ("records", "another records"), ("bins", "4")]
)
def test_a_checkpoint_of_other_queries_is_refused(change, named, tmp_path):
    ask(asking(tmp_path))
    plan = DPPlan(Budget(math.inf, 1e-5), RECORDS, RECORDS, STEPS, 1.0, 5.0)
    with pytest.raises(UserError, match=named):
        ask(
            asking(tmp_path, plan if change == "plan" else PLAN),
            sealed(name="other" if change == "records" else "toy"),
            bins=4 if change == "bins" else 3,
        )


def test_more_queries_than_planned_are_refused(tmp_path):
    trainer = asking(tmp_path)
    with pytest.raises(UserError, match="plan is for 4 queries"):
        ask(trainer, count=STEPS + 1)
    assert len(lines(tmp_path)) == STEPS


def test_queries_that_cannot_be_are_refused_before_they_start(tmp_path):
    with pytest.raises(UserError, match="needs a ledger"):
        Trainer(PLAN).queries(sealed(), "votes").__enter__()
    trainer = asking(tmp_path)
    with pytest.raises(UserError, match="PrivateRecords"):
        trainer.queries({"x": torch.zeros(3)}, "votes").__enter__()
    other = PrivateRecords({"x": [1]}, name="toy", records=99)
    with pytest.raises(UserError, match="declares 99"):
        trainer.queries(other, "votes").__enter__()
    assert not lines(tmp_path)
