"""Reference, held-out images and prompts; scores that are the same however they are taken."""

import pytest
import torch

from benchmarks.evaluation import make_evaluation
from benchmarks.metrics.clip_toy import ClipToy
from benchmarks.metrics.fd_toy import FDToy
from benchmarks.scorer import Scorer
from wavedp.data.schema import Records
from wavedp.data.toyfaces import ToyFaces


def test_reference_held_out_and_prompts_never_meet(cache):
    dataset = ToyFaces(private_records=8, evaluation_records=30, cache_dir=cache)
    evaluation = make_evaluation(dataset, 20)
    assert len(evaluation.held) == 15
    assert len(evaluation.reference) == 15
    assert len(evaluation.prompts) == 20
    held = {image.numpy().tobytes() for batch in evaluation.held_images for image in batch}
    assert held.isdisjoint(image.tobytes() for image in evaluation.reference.images)
    for index, prompt in enumerate(evaluation.prompts):
        assert prompt in evaluation.records.captions[index % 15]


def test_scores_do_not_depend_on_batches_or_order(cache):
    dataset = ToyFaces(private_records=8, evaluation_records=600, cache_dir=cache)
    scorer = Scorer.make(dataset, ["fd_toy", "clip_toy"], 200)
    images = torch.tensor(dataset.evaluation().images[:200])
    prompts = scorer.evaluation.prompts
    whole = scorer.score([images], prompts)
    parts = scorer.score(list(images.split(37)), prompts)
    order = torch.randperm(200)
    shuffled = scorer.score([images[order]], tuple(prompts[i] for i in order))
    for name, value in whole.items():
        assert parts[name] == pytest.approx(value, rel=1e-4)
        assert shuffled[name] == pytest.approx(value, rel=1e-4)
    assert whole["fd_toy"] == pytest.approx(scorer.real["fd_toy"], rel=1e-4)


def test_identical_sets_score_zero_and_shuffled_captions_agree_less(cache):
    records = ToyFaces(private_records=8, evaluation_records=300, cache_dir=cache).evaluation()
    images, captions = torch.tensor(records.images[:]), [own[0] for own in records.captions]
    distance, agreement = FDToy(), ClipToy()
    distance.prepare(Records(records.images, records.captions, "same"))
    distance.update(images, captions)
    assert distance.compute() == pytest.approx(0, abs=1e-3)
    agreement.update(images, captions)
    right = agreement.compute()
    agreement.update(images, captions[1:] + captions[:1])
    assert right > agreement.compute() + 10
