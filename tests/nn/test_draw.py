"""Drawing a code from its logits."""

import torch

from wavedp.nn.draw import Draw, nucleus


def seeded():
    return torch.Generator().manual_seed(0)


def test_a_nucleus_is_the_fewest_codes_that_hold_the_share():
    rows = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.05, 0.05, 0.1, 0.8]])
    kept = nucleus(rows, 0.7) > 0
    assert kept.tolist() == [[True, True, False, False], [False, False, False, True]]
    assert (nucleus(rows, 0.81) > 0).sum(1).tolist() == [3, 2]


def test_guidance_moves_away_from_the_logits_without_text():
    """At 2, twice the way from (0, 1, 0) to (0, 0, 0.9): (0, -1, 1.8)."""
    logits = torch.tensor([[0.0, 0.0, 0.9], [0.0, 1.0, 0.0]])
    assert Draw(seeded(), 2.0, 0.0, 0)(logits).tolist() == [2]
    assert Draw(seeded(), 0.0, 0.0, 0)(logits).tolist() == [1]  # as if there were no text
    assert Draw(seeded(), 1.0, 0.0, 0)(logits[1:]).tolist() == [1]


def test_draws_follow_tempered_probabilities_of_the_most_likely():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).expand(20000, 4)
    drawn = Draw(seeded(), 1.0, 2.0, 3)(logits).bincount(minlength=4) / 20000
    expected = torch.tensor([1.0, 0.5, 0.0]).softmax(0)
    assert drawn[3] == 0
    assert (drawn[:3] - expected).abs().max() < 0.02
