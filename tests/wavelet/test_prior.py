"""The prior: causality, cached sampling, and the loss."""

import math

import pytest
import torch

from wavedp.dp import UserError
from wavedp.nn.draw import Draw
from wavedp.nn.text import HashedText
from wavedp.wavelet.prior import SpectralPrior
from wavedp.wavelet.tokenizer import SpectralTokenizer
from wavedp.wavelet.training import PriorTraining, check_prompts, check_together, next_token_loss


def stacked(prior, tokens, text):
    """All logits as one tensor ``[b, t, C, K]``."""
    parts = prior(tokens, text)
    scales = [torch.stack(parts[i : i + 2], dim=2) for i in range(0, len(parts), 2)]
    return torch.cat(scales, dim=1)


def small(**changes):
    sizes = {
        "scales": 3,
        "tokens_per_scale": 4,
        "codes": 2,
        "codebook_size": 10,
        "text_slots": 2,
        "text_width": 8,
        "width": 16,
        "depth": 2,
        "heads": 2,
    }
    return SpectralPrior(**(sizes | changes))


@pytest.fixture(scope="module")
def prior():
    torch.manual_seed(0)
    made = small()
    for parameter in made.parameters():  # wide logits, so that greedy choices are clear
        parameter.data.mul_(3)
    return made.eval()


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_cached_greedy_sampling_equals_the_plain_forward(prior, guidance):
    text = torch.randn(5, 2, 8)
    tokens = prior.sample(text, 3, torch.Generator(), guidance=guidance, temperature=0)
    slow = torch.zeros(5, 12, 2, dtype=torch.int64)
    for position in range(12):
        for code in range(2):
            logits = stacked(prior, slow, text)[:, position, code]
            if guidance != 1:
                without = stacked(prior, slow, torch.zeros_like(text))[:, position, code]
                logits = without + guidance * (logits - without)
            slow[:, position, code] = logits.argmax(-1)
    assert torch.equal(tokens, slow)
    assert tokens.unique().numel() > 3


@torch.no_grad()
def test_continuing_given_tokens_equals_sampling_them(prior):
    text = torch.randn(4, 2, 8)
    whole = prior.sample(text, 3, torch.Generator(), temperature=0)
    rest = prior.sample(text, 3, torch.Generator(), temperature=0, given=whole[:, :4])
    assert torch.equal(whole, rest)


@torch.no_grad()
def test_tokens_drawn_anew_follow_the_old_ones_before_them(prior):
    text, tokens = torch.randn(5, 2, 8), torch.randint(10, (5, 8, 2))
    before, chosen = tokens.clone(), torch.rand(5, 8) < 0.5
    chosen[:, 0] = False
    expected = tokens.clone()
    for row, position in chosen.nonzero().tolist():
        alone = tokens.clone()  # as if no other token of the row were drawn
        for code in range(2):
            alone[row, position, code] = stacked(prior, alone, text)[row, position, code].argmax()
        expected[row, position] = alone[row, position]
    greedy = Draw(torch.Generator(), 1.0, 0.0, 0)
    drawn = prior.redraw(tokens, chosen, text, greedy)
    assert torch.equal(drawn, expected)
    assert torch.equal(tokens, before)
    assert not torch.equal(drawn, before)
    usual = Draw(torch.Generator().manual_seed(0), 1.0, 1.0, 0)
    nothing = torch.zeros_like(chosen)
    assert torch.equal(prior.redraw(tokens, nothing, text, usual), before)


@torch.no_grad()
def test_a_code_sees_only_those_before_it(prior):
    text, tokens = torch.randn(1, 2, 8), torch.randint(0, 10, (1, 12, 2))
    before = stacked(prior, tokens, text)
    changed = tokens.clone()
    changed[0, 6, 0] = (changed[0, 6, 0] + 1) % 10
    after = stacked(prior, changed, text)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    torch.testing.assert_close(before[:, 6, 0], after[:, 6, 0])
    assert not torch.allclose(before[:, 6, 1], after[:, 6, 1])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


@torch.no_grad()
def test_fewer_scales_are_a_prefix_of_more(prior):
    text, tokens = torch.randn(3, 2, 8), torch.randint(0, 10, (3, 12, 2))
    torch.testing.assert_close(
        stacked(prior, tokens[:, :8], text), stacked(prior, tokens, text)[:, :8]
    )


@torch.no_grad()
def test_top_k_of_one_is_greedy_and_sampling_follows_the_probabilities(prior):
    text = torch.randn(1, 2, 8).expand(4000, -1, -1)
    greedy = prior.sample(text[:1], 1, torch.Generator(), temperature=0)
    top = prior.sample(text[:50], 1, torch.Generator().manual_seed(0), top_k=1)
    assert torch.equal(top, greedy.expand(50, -1, -1))
    drawn = prior.sample(text, 1, torch.Generator().manual_seed(0))[:, 0, 0]
    empty = torch.zeros(1, 4, 2, dtype=torch.int64)
    expected = stacked(prior, empty, text[:1])[0, 0, 0].softmax(-1)
    observed = torch.bincount(drawn, minlength=10) / 4000
    assert (observed - expected).abs().max() < 0.03


def test_loss_of_a_uniform_model_is_the_log_of_the_codebook():
    model = small()
    for output in model.outputs:
        torch.nn.init.zeros_(output.weight)
        torch.nn.init.zeros_(output.bias)
    batch = {"tokens": torch.randint(0, 10, (6, 12, 2)), "text": torch.randn(6, 3, 2, 8)}
    losses = next_token_loss(0.0)(model, batch)
    torch.testing.assert_close(losses, torch.full((6,), math.log(10)))


def test_text_is_frozen_the_same_everywhere_and_tells_word_pairs_apart():
    text = HashedText(2, 16)
    a, b, empty = text(["a red hat on blue hair", "a blue hat on red hair", ""])
    assert torch.equal(text(["A RED hat, on blue hair!"])[0], a)
    assert not torch.allclose(a, b)
    assert not empty.any()
    assert a.flatten()[0].item() == pytest.approx(text(["a red hat on blue hair"])[0, 0, 0].item())


@torch.no_grad()
def test_a_small_share_is_greedy(prior):
    text = torch.randn(3, 2, 8)
    greedy = prior.sample(text, 2, torch.Generator(), temperature=0)
    assert torch.equal(prior.sample(text, 2, torch.Generator(), top_p=1e-6), greedy)


def test_a_prior_knows_whose_codes_and_texts_it_was_trained_on():
    sizes = {"codes": 2, "codebook_size": 10, "width": 16, "heads": 2, "code_width": 4}
    one, other = SpectralTokenizer(**sizes), SpectralTokenizer(**sizes)
    text = HashedText(2, 8)
    model = small()
    model.check_encoders(one.key, text.key)  # trained on nothing yet
    model.belong_to(one.key, text.key)
    again = small()
    again.load_state_dict(model.state_dict())
    again.check_encoders(one.key, text.key)
    for keys in [(other.key, text.key), (one.key, HashedText(2, 12).key)]:
        with pytest.raises(UserError, match="SpectralPrior was trained with another tokenizer"):
            again.check_encoders(*keys)


def test_parts_of_other_sizes_are_refused_by_name():
    sizes = {"grid": 2, "codes": 2, "width": 16, "heads": 2, "code_width": 4}
    fitting = SpectralTokenizer(codebook_size=10, **sizes)
    check_together(small(), fitting, HashedText(2, 8))
    with pytest.raises(UserError, match=r"codebook_size=10, the parts beside it have 12"):
        check_together(small(), SpectralTokenizer(codebook_size=12, **sizes), HashedText(2, 8))
    with pytest.raises(UserError, match="text_width=8"):
        check_together(small(), fitting, HashedText(2, 12))


@pytest.mark.parametrize(
    "setting", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"captions": 0}]
)
def test_settings_of_sampling_out_of_range_are_named(setting):
    with pytest.raises(UserError, match=f"training.{next(iter(setting))}=.*out of range"):
        PriorTraining(HashedText(2, 8), **setting)


@torch.no_grad()
def test_more_likely_codes_than_there_are_is_all_of_them(prior):
    text = torch.randn(3, 2, 8)
    drawn = [
        prior.sample(text, 2, torch.Generator().manual_seed(0), top_k=k) for k in (0, 10, 1000)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


def test_given_tokens_are_looked_at(prior):
    text, given = torch.randn(2, 2, 8), torch.zeros(2, 4, 2, dtype=torch.int64)
    given[1, 2, 0] = 15
    with pytest.raises(UserError, match=r"0\.\.9"):
        prior.sample(text, 2, torch.Generator(), given=given)
    with pytest.raises(UserError, match="12 tokens are given and 8 are to be drawn"):
        prior.sample(text, 2, torch.Generator(), given=torch.zeros(2, 12, 2, dtype=torch.int64))


def test_heads_must_divide_the_width():
    with pytest.raises(UserError, match="width=16 must divide by heads=3"):
        small(heads=3)


def test_the_tables_of_details_are_frozen_where_only_the_approximation_is_trained():
    model = small()
    model.freeze_above(1)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert "embeddings.1.weight" in frozen
    assert {n.partition(".")[0] for n in frozen} == {"embeddings", "outputs"}
    loss = next_token_loss(0.0)(
        model,
        {"tokens": torch.randint(0, 10, (2, 4, 2)), "text": torch.randn(2, 1, 2, 8)},
    )
    loss.sum().backward()
    used = {name for name, p in model.named_parameters() if p.grad is not None}
    assert used == {n for n, _ in model.named_parameters()} - frozen


def test_prompts_that_the_text_encoder_would_cut_are_refused():
    class Short(HashedText):
        def too_long(self, captions):
            return next((i for i, c in enumerate(captions) if len(c.split()) > 3), None)

    check_prompts(Short(), ["a red hat"])
    with pytest.raises(UserError, match="Prompt 2 is longer than the 4 tokens"):
        check_prompts(Short(), ["a red hat", "a red hat on a head"])
