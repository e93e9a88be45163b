"""Caption agreement: known where images show what captions state, half where they do not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from metric_tools import CPU
from torch import Tensor

from benchmarks.config import choices, compose, load_choice, make
from benchmarks.evaluation import QUICK, make_evaluation
from benchmarks.features import FeatureSpace
from benchmarks.metrics.caption_agreement import Attributes, CaptionAgreement, Classifiers
from benchmarks.protocol import Protocol, load_protocol
from benchmarks.scorer import Scorer
from wavedp.data.schema import Records
from wavedp.data.toyfaces import ToyFaces
from wavedp.dp import UserError

PHRASES = {
    "woman": {"stated": ["woman", "she"], "denied": ["man", "he"]},
    "hat": {"stated": ["hat"]},
    "blond hair": {"stated": ["blond hair", "blonde hair"]},
}


class Channels(FeatureSpace):
    """The mean of each channel: no network, and no weights."""

    label = "mean of each channel"
    keep = False

    def load(self, device: torch.device) -> None:
        """Nothing to load."""

    def extract(self, images: Tensor) -> Tensor:
        """See the class."""
        return images.float().mean((2, 3))


def agreement(**settings) -> CaptionAgreement:
    metric = CaptionAgreement(Channels(), PHRASES, **settings)
    metric.open(CPU)
    return metric


def drawn(count: int, seed: int) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Images whose channels show woman, hat and blond hair, and captions that state them."""
    draws = np.random.default_rng(seed)
    shown = draws.integers(0, 2, (count, 3))
    images = np.repeat((60 + 100 * shown)[:, :, None], 64, 2) + draws.integers(
        0, 60, (count, 3, 64)
    )
    captions = [
        (f"A {'woman' if w else 'man'}{' in a hat' * h}.", f"Somebody{' with blond hair' * b}.")
        for w, h, b in shown
    ]
    return images.reshape(count, 3, 8, 8).astype(np.uint8), captions


def records(count: int, seed: int) -> Records:
    return Records(*drawn(count, seed), "drawn")


def whole(captions: list[tuple[str, ...]]) -> list[str]:
    return [" ".join(own) for own in captions]


# What captions state ------------------------------------------------------------------------------


def test_attributes_are_found_as_whole_words_in_any_case():
    found = Attributes(PHRASES)([
        ("She wears a HAT.",),
        ("A man, in a chat about blond, hairy dogs",),
        ("A human with blonde  hair.", "The other caption: he is tall."),
        ("Somebody",),
    ])  # fmt: skip
    nan = math.nan
    np.testing.assert_array_equal(found, [[1, 1, 0], [0, 0, 0], [0, 0, 1], [nan, 0, 0]])


def test_of_captions_that_state_both_sides_the_attribute_is_stated():
    assert Attributes(PHRASES)([("a man and a woman",)])[0, 0] == 1


@pytest.mark.parametrize(
    "lists", [{}, {"stated": []}, {"denied": ["x"]}, {"stated": ["x"], "y": 1}]
)
def test_lists_that_are_none_are_one_sentence(lists):
    with pytest.raises(UserError, match=r"Attribute hat .* needs a list `stated`"):
        Attributes({"hat": lists})


def test_the_configs_lists_know_the_words_of_faces():
    metric = make(load_choice("metric", "caption_agreement"))
    text = "This young woman is smiling. She has wavy hair, blond hair and is wearing lipstick."
    (said,) = metric._attributes([(text,)])
    stated = {n for n, s in zip(metric._attributes.names, said, strict=True) if s == 1}
    assert stated == {"young", "smiling", "wavy hair", "blond hair", "lipstick"}
    assert said[metric._attributes.names.index("man")] == 0


# The classifiers ----------------------------------------------------------------------------------


def test_classifiers_agree_with_the_optimum_of_a_line_worked_out_otherwise():
    """At the optimum the gradient of the mean loss, both classes alike, is the penalty's."""
    draws = np.random.default_rng(0)
    x = draws.standard_normal((60, 4)).astype(np.float32) * 3 + 1
    y = (x[:, :1] + draws.standard_normal((60, 1)) > 2).astype(np.float32)
    y[:10] = np.nan  # and these say nothing
    found = Classifiers(x, y, 0.2)
    z = ((x - x.mean(0)) / x.std(0, ddof=1)).astype(np.float64)
    weights, bias = found._weights.numpy()[:, 0], float(found._bias[0])
    errors = 1 / (1 + np.exp(-(z @ weights + bias))) - y[:, 0]
    share = np.where(y[:, 0] == 1, 0.5 / (y == 1).sum(), 0.5 / (y == 0).sum())
    pull = np.nan_to_num(errors * share)
    np.testing.assert_allclose(z.T @ pull, -0.2 * weights, atol=1e-5)
    assert abs(pull.sum()) < 1e-5


# The score ----------------------------------------------------------------------------------------


def test_images_that_show_what_is_stated_score_1_and_shuffled_ones_a_half():
    metric = agreement()
    metric.prepare(records(100, 0))
    images, captions = drawn(400, 1)
    asked = whole(captions)
    samples = torch.from_numpy(images)
    metric.update(samples, asked)
    assert metric.compute() == 1
    metric.update(samples[torch.randperm(400, generator=torch.Generator().manual_seed(0))], asked)
    shuffled = metric.compute()
    assert abs(shuffled - 0.5) < 0.05
    metric.update(samples, whole([(a.replace("woman", "man"), b) for a, b in captions]))
    assert metric.compute() == 1  # of an attribute without two sides nothing is known


def test_one_image_for_all_scores_exactly_a_half():
    """The mean of two shares, of which one is all and the other nothing."""
    metric = agreement()
    metric.prepare(records(100, 0))
    images, captions = drawn(50, 1)
    metric.update(torch.from_numpy(images[:1]).repeat(50, 1, 1, 1), whole(captions))
    assert metric.compute() == 0.5


def test_the_score_worked_by_hand():
    """Stated: one of two shown; not stated: two of three without. What says nothing is left out."""
    nan = math.nan
    stated = np.array([[1], [1], [0], [0], [0], [nan]])
    seen = np.array([[1], [0], [0], [0], [1], [1]])
    rows = np.concatenate([stated, seen], 1)
    assert agreement().score(rows) == pytest.approx((1 / 2 + 2 / 3) / 2)
    one_sided = np.array([[1, 1, 0, 1], [1, 0, 0, 0]], dtype=float)  # the first is stated by all
    assert agreement().score(one_sided) == 1
    assert math.isnan(agreement().score(rows[:1]))


def test_an_attribute_that_few_reference_images_tell_is_left_out():
    """Its classifier would be noise, and the score with it."""
    images, captions = drawn(100, 0)
    bare = [(a.replace(" in a hat", ""), b) for a, b in captions]
    rare = [("A hat.", *bare[0]), *bare[1:]]
    metric = agreement(records=2)
    metric.prepare(Records(images, rare, "drawn"))
    images, captions = drawn(100, 1)
    metric.update(torch.from_numpy(images), whole(captions))
    rows = metric.take()
    assert rows.shape[1] == 2 * 2
    assert metric.score(rows) == 1


# The sides ----------------------------------------------------------------------------------------


class Drawn:
    """A data set with an evaluation side alone."""

    name, private_records, resolution = "drawn", 8, 8

    def __init__(self, evaluation: Records) -> None:
        self._evaluation = evaluation

    def evaluation(self) -> Records:
        return self._evaluation


@pytest.fixture
def named(monkeypatch):
    """The scorer finds the metric without a network under its name."""
    monkeypatch.setattr("benchmarks.scorer.load_choice", lambda group, name: name)
    monkeypatch.setattr(
        "benchmarks.scorer.make", lambda name: CaptionAgreement(Channels(), PHRASES)
    )


def test_it_is_fitted_to_other_records_than_prompts_come_from(named, monkeypatch):
    given = []

    def prepare(self, reference):
        given.append(reference)
        real(self, reference)

    real = CaptionAgreement.prepare
    monkeypatch.setattr(CaptionAgreement, "prepare", prepare)
    images, captions = drawn(120, 0)
    captions = [(a, b, f"Record {i}.") for i, (a, b) in enumerate(captions)]
    scorer = Scorer.make(Drawn(Records(images, captions, "drawn")), ["caption_agreement"], 40)
    (reference,) = given
    fitted = {text for own in reference.captions for text in own if text.startswith("Record")}
    asked = {captions[row][2] for row in scorer.evaluation.rows}
    assert len(fitted) == 80
    assert not fitted & asked
    # Beside the score stands what real images get; their first captions say nothing of blond hair.
    assert scorer.real == {"caption_agreement": 1.0}
    values = scorer.values(scorer.evaluation.held_images, scorer.evaluation.prompts, "text")
    value = values["caption_agreement"]
    assert (value.value, value.floor, value.reads, value.n_reference) == (1, 1, "evaluation", 80)
    assert value.standard_error == 0
    assert "of other records than the prompts" in value.protocol
    assert scorer.values(scorer.evaluation.held_images, scorer.evaluation.prompts, "none") == {}


def reason(captions: list[tuple[str, ...]], protocol: Protocol = QUICK) -> str:
    dataset = Drawn(Records(drawn(len(captions), 0)[0], captions, "drawn"))
    found = make_evaluation(dataset, 40, protocol)
    return agreement().lacks(found)


def test_captions_of_another_kind_are_a_reason_and_no_number(named):
    photographs = [(f"Photograph {i}.",) for i in range(120)]
    assert "of no attribute do captions tell 10 reference images" in reason(photographs)
    assert reason(drawn(120, 0)[1]) == ""
    assert reason(drawn(30, 0)[1]) != ""  # 15 are the reference
    told_late = [*[("Nothing.",)] * 60, *drawn(120, 0)[1][60:]]
    assert reason(told_late) != ""  # no prompt states any
    dataset = Drawn(Records(drawn(120, 0)[0], photographs, "drawn"))
    scorer = Scorer.make(dataset, ["caption_agreement"], 40)
    assert scorer.metrics == {}
    assert "give lists for these captions" in scorer.missing("text")["caption_agreement"].reason
    assert scorer.missing("none") == {}


def test_a_reference_that_holds_the_prompts_images_is_a_reason():
    everything = QUICK.model_copy(update={"reference": "all"})
    for protocol in (everything, load_protocol("mmceleba")):
        assert "keeps them apart" in reason(drawn(120, 0)[1], protocol)


def test_only_real_faces_ask_for_it():
    """No record of another suite lacks it."""
    for name in choices("protocol"):
        assert "caption_agreement" not in load_protocol(name).metrics
    suites = {name: compose([f"suite={name}"]).suite.metrics or [] for name in choices("suite")}
    assert [name for name, asked in suites.items() if "caption_agreement" in asked] == ["real64"]


def test_captions_of_the_embedded_faces_are_of_that_kind(cache):
    dataset = ToyFaces(private_records=8, evaluation_records=200, cache_dir=cache)
    metric = make(load_choice("metric", "caption_agreement"))
    assert metric.lacks(make_evaluation(dataset, 100)) == ""
