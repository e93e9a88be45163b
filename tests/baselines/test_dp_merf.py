"""DP-MERF: features of norm 1, a noisy mean by hand, and a generator that is matched to it."""

import math

import pytest
import torch

from baselines.dp_merf import DPMerf, FourierFeatures
from wavedp.dp import DPPlan, Ledger, NonPrivatePlan, PrivateRecords, Trainer, UserError
from wavedp.dp.accounting import Event
from wavedp.dp.checkpoint import Checkpoints
from wavedp.dp.noise import GaussianNoise

RECORDS = 40


def made(seed=0, **settings):
    torch.manual_seed(seed)
    small = {"resolution": 8, "side": 4, "frequencies": 60, "width": 16, "batch": 50}
    return DPMerf(**(small | {"noise": 4, "iterations": 3} | settings))


def images(count=RECORDS, colour=200, seed=0):
    """Of one colour, but for some pixels."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randint(-20, 20, (count, 3, 8, 8), generator=generator)
    return (spread + torch.tensor([colour, 60, 60]).view(3, 1, 1)).to(torch.uint8)


def plan_of(steps=1, epsilon=5.0):
    return DPPlan.calibrate(
        epsilon=epsilon, delta=1e-5, records=RECORDS, expected_batch=RECORDS, steps=steps
    )


def matched(folder, plan=None, rows=None, checkpoints=None, **settings):
    method, plan = made(**settings), plan or plan_of()
    folder.mkdir(exist_ok=True)
    # Of a run that is interrupted the next one takes up the ledger, too.
    name = "ledger" if checkpoints else str(len(list(folder.glob("*.jsonl"))))
    ledger = Ledger(folder / f"{name}.jsonl", plan.budget)
    trainer = Trainer(plan, ledger=ledger, noise_seed=1, checkpoints=checkpoints)
    rows = images() if rows is None else rows
    private = PrivateRecords({"images": rows.numpy()}, name="toy", records=RECORDS)
    method.finetune(private, trainer)
    ledger.close()
    return method, trainer


def released(folder, rows, plan=None, **settings):
    """The sums that a run releases."""
    folder = folder / f"run{len(list(folder.glob('run*')))}"
    kept = Checkpoints(folder / "kept")
    matched(folder, plan, rows, kept, **settings)
    return kept.load("mean embedding 1")["released"]


def test_features_by_hand():
    """W = ((pi), (2 pi)), x = 1/2: cosines 0 and -1, sines 1 and 0, over sqrt(2)."""
    features = FourierFeatures(torch.tensor([[math.pi], [2 * math.pi]]))
    expected = torch.tensor([[0.0, -1.0, 1.0, 0.0]]) / math.sqrt(2)
    torch.testing.assert_close(features(torch.tensor([[0.5]])), expected, atol=1e-6, rtol=0)
    assert features.size == 4


def test_features_have_norm_one_whatever_the_record():
    features = FourierFeatures.draw(12, 50, (0.2, 0.4), torch.Generator().manual_seed(0))
    rows = torch.cat([torch.zeros(1, 12), 1e3 * torch.randn(50, 12)])
    norms = features(rows).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(51), atol=1e-5, rtol=0)


def test_their_products_approximate_the_mean_of_the_kernels():
    """exp(-|x - y|^2 / (2 l^2 d)), averaged over lengthscales l."""
    scales, d = (0.3, 0.9), 27
    features = FourierFeatures.draw(d, 40_000, scales, torch.Generator().manual_seed(0))
    x, y = torch.randn(2, 20, d, generator=torch.Generator().manual_seed(1)) / 2
    square = (x - y).square().sum(1)
    kernel = torch.stack([(-square / (2 * s * s * d)).exp() for s in scales]).mean(0)
    found = (features(x) * features(y)).sum(1)
    torch.testing.assert_close(found, kernel, atol=0.02, rtol=0)


def test_the_gradient_by_hand_is_that_of_autograd():
    features = FourierFeatures.draw(6, 20, (0.2, 0.4), torch.Generator().manual_seed(0))
    rows, mean = torch.randn(5, 6, requires_grad=True), torch.randn(40)
    (features(rows).mean(0) - mean).square().sum().backward()
    found = features.gradient(rows.detach(), mean)
    torch.testing.assert_close(found, rows.grad)


def test_the_noisy_sum_by_hand(tmp_path):
    """All records alike: N times the features of one, and the noise of the plan."""
    rows = torch.full((RECORDS, 3, 8, 8), 255, dtype=torch.uint8)
    (exact,) = released(tmp_path, rows, NonPrivatePlan(RECORDS, 1), frequencies=2000)
    torch.manual_seed(0)
    made(frequencies=2000)  # takes from the same stream what the method has taken
    seed = int(torch.randint(2**62, ()))
    features = FourierFeatures.draw(48, 2000, (0.25, 0.5, 1.0), torch.Generator().manual_seed(seed))
    expected = RECORDS * features(torch.ones(1, 48))[0].double()
    torch.testing.assert_close(exact, expected, atol=1e-4, rtol=0)
    plan = plan_of()
    (noisy,) = released(tmp_path, rows, plan, frequencies=2000)
    noise = noisy - exact
    assert noise.std().item() == pytest.approx(plan.noise_multiplier, rel=0.06)
    assert abs(noise.mean().item()) < 4 * plan.noise_multiplier / math.sqrt(4000)


@pytest.mark.parametrize("steps", [1, 3])
def test_one_record_moves_each_sum_by_exactly_one(steps, tmp_path):
    rows = images()
    sums = [released(tmp_path, part, plan_of(steps)) for part in (rows, rows[1:])]
    assert len(sums[0]) == steps
    for one, other in zip(*sums, strict=True):
        assert (one - other).norm().item() == pytest.approx(1.0, abs=1e-5)


def test_one_query_is_charged_and_its_sensitivity_declared(tmp_path):
    _, trainer = matched(tmp_path)
    sigma = trainer.plan.noise_multiplier
    assert trainer.ledger.counts == {Event(1.0, sigma): 1}
    assert 4.9 < trainer.spent().epsilon <= 5
    assert trainer.sensitivity_used == 1


def test_without_noise_the_generator_takes_the_colour_of_the_records(tmp_path):
    before = next(iter(made().generate(["any"] * 50, 0))).float().mean((0, 2, 3))
    method, _ = matched(
        tmp_path, NonPrivatePlan(RECORDS, 1), iterations=150, lengthscales=(0.5, 1.0), rate=0.01
    )
    after = torch.cat(list(method.generate(["any"] * 50, 0))).float().mean((0, 2, 3))
    wanted = images().float().mean((0, 2, 3))
    assert (after - wanted).abs().max() < 25
    assert (before - wanted).abs().max() > 50


def test_the_generator_depends_on_records_through_the_released_sum_alone(tmp_path, monkeypatch):
    def drowns(self, sums, step):
        for total in sums.values():
            total.copy_(torch.linspace(0, 1, len(total)))

    monkeypatch.setattr(GaussianNoise, "add_to", drowns)
    found = [matched(tmp_path, rows=images(colour=c))[0].state_dict() for c in (90, 200)]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_the_average_of_several_releases_has_less_noise_and_the_same_mean(tmp_path, monkeypatch):
    """Without noise, three queries of all records match what one does."""
    found = [matched(tmp_path, NonPrivatePlan(RECORDS, steps))[0].state_dict() for steps in (1, 3)]
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=1e-4, rtol=0)


def test_what_was_released_is_matched_again_after_an_interruption(tmp_path):
    kept = Checkpoints(tmp_path / "checkpoints")
    expected = matched(tmp_path, checkpoints=kept)[0].state_dict()
    nobody = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)  # not looked at
    again, trainer = matched(tmp_path, rows=nobody, checkpoints=kept)
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())
    assert sum(trainer.ledger.counts.values()) == 1
    assert trainer.resumed


def test_images_are_low_bands_enlarged_one_per_caption():
    method = made()
    images = torch.cat(list(method.generate([""] * 7, 3)))
    assert (images.shape, images.dtype) == ((7, 3, 8, 8), torch.uint8)
    flat = torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(method.oracle(flat), flat)
    assert method.stages == {}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"side": 3}, "3 px"),
        ({"side": 16}, "16 px"),
        ({"side": 0}, "0 px"),
        ({"lengthscales": ()}, "lengthscales"),
        ({"lengthscales": (0.5, 0.0)}, "lengthscales"),
        ({"frequencies": 2}, "frequencies"),
        ({"iterations": 0}, "iterations"),
        ({"rate": 0.0}, "rate"),
    ],
)
def test_bad_settings_are_refused_by_name(change, named):
    with pytest.raises(UserError, match=named):
        made(**change)
