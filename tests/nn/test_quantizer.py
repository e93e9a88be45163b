"""Codebooks: nearest entries, running means, revival, gradients, and rest in eval mode."""

import pytest
import torch

from wavedp.dp import UserError
from wavedp.nn.quantizer import Quantizer, kmeans, nearest


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def clusters(n=400, spread=0.05):
    """Rows around four corners of a square."""
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    which = torch.randint(4, (n,), generator=seeded())
    return corners[which] + spread * torch.randn(n, 2, generator=seeded(1))


def test_codes_are_the_nearest_entries_and_lookup_gives_the_rows_back():
    book = Quantizer(3, 7).eval()
    rows = torch.randn(5, 4, 3, generator=seeded())
    found = book(rows)
    distances = torch.cdist(rows.flatten(0, 1), book.codebooks[0])
    assert torch.equal(found.codes.flatten(), distances.argmin(1))
    torch.testing.assert_close(book.lookup(found.codes), found.rows)
    torch.testing.assert_close(found.commitment, (rows - found.rows).square().mean(-1))


def test_further_codes_quantise_what_is_left():
    rows = torch.randn(300, 4, generator=seeded())
    errors = []
    for codes in (1, 2, 3):
        book = Quantizer(4, 16, codes).eval()
        book.fit(rows)
        found = book(rows)
        assert found.codes.shape == (300, codes)
        errors.append(float(found.commitment.mean()))
    assert errors[0] > 1.5 * errors[1] > 1.5**2 * errors[2]


def test_gradients_go_straight_through():
    book = Quantizer(3, 5).eval()
    rows = torch.randn(6, 3, generator=seeded(), requires_grad=True)
    (book(rows).rows * torch.arange(18.0).view(6, 3)).sum().backward()
    assert torch.equal(rows.grad, torch.arange(18.0).view(6, 3))


def test_entries_become_the_means_of_what_chooses_them():
    rows = clusters()
    book = Quantizer(2, 4, decay=0.5).train()
    book.fit(rows[:50])
    for _ in range(30):
        book(rows)
    chosen = nearest(rows, book.codebooks[0])
    for entry in range(4):
        torch.testing.assert_close(book.codebooks[0, entry], rows[chosen == entry].mean(0))


def test_a_running_mean_by_hand():
    """Counts 1, sum (2, 0); a batch of two rows adding to (6, 0); decay 1/2: 4 / 1.5."""
    book = Quantizer(2, 1, decay=0.5).train()
    book.sums.copy_(torch.tensor([[[2.0, 0.0]]]))
    book(torch.tensor([[2.0, 0.0], [4.0, 0.0]]))
    torch.testing.assert_close(book.codebooks, torch.tensor([[[8 / 3, 0.0]]]))


def test_entries_that_nothing_chooses_are_revived_where_the_data_are():
    rows = clusters()
    book = Quantizer(2, 8, decay=0.5).train()
    book.codebooks.fill_(50.0)
    book.codebooks[0, 0] = 0.0
    book.sums.copy_(book.codebooks)
    torch.manual_seed(0)
    for _ in range(40):
        book(rows)
    assert book.codebooks.abs().max() < 2
    shares = book.counts / book.counts.sum()
    assert shares.min() > 0.01


def test_nothing_moves_in_eval_mode():
    book = Quantizer(3, 5, 2).eval()
    before = {name: value.clone() for name, value in book.named_buffers()}
    book(torch.randn(50, 3))
    assert all(torch.equal(value, before[name]) for name, value in book.named_buffers())


def test_under_autocast_codes_are_those_of_float32():
    book = Quantizer(16, 200).eval()
    rows = torch.randn(500, 16, generator=seeded())
    expected = book(rows)
    with torch.autocast("cpu", torch.bfloat16):
        found = book(rows)
    assert torch.equal(found.codes, expected.codes)
    assert book(rows.bfloat16()).rows.dtype == torch.float32


def test_many_rows_are_compared_in_parts():
    book = torch.randn(3, 2, generator=seeded())
    rows = torch.randn(2, 70_000, 2, generator=seeded(1))
    assert torch.equal(nearest(rows, book), torch.cdist(rows, book).argmin(-1))


def test_unit_vectors_are_compared_by_angle():
    book = Quantizer(3, 6, normalize=True).eval()
    rows = torch.randn(20, 3, generator=seeded())
    assert torch.equal(book(rows).codes, book(7 * rows).codes)
    torch.testing.assert_close(book(rows).rows.norm(dim=-1), torch.ones(20))
    with pytest.raises(UserError, match="codes=1"):
        Quantizer(3, 6, codes=2, normalize=True)


def test_kmeans_ends_where_every_centre_is_the_mean_of_its_rows():
    rows = torch.randn(300, 2, generator=seeded())
    found = kmeans(rows, 5, 100, seeded())
    assigned = nearest(rows, found)
    for cluster in range(5):
        torch.testing.assert_close(found[cluster], rows[assigned == cluster].mean(0))
    start = rows[torch.randperm(300, generator=seeded())[:5]]
    assert _error(rows, found) < 0.9 * _error(rows, start)


def test_kmeans_leaves_no_entry_unused_on_many_equal_rows():
    rows = torch.cat([torch.zeros(500, 2), torch.randn(20, 2, generator=seeded())])
    found = kmeans(rows, 8, 30, seeded())
    # One cluster takes all equal rows; every other one has a row of its own.
    assert nearest(rows, found).unique().numel() == 8


def test_kmeans_needs_enough_rows():
    with pytest.raises(UserError, match="at least"):
        kmeans(torch.zeros(3, 2), 4, 1, seeded())


def _error(rows, centres):
    return (rows - centres[nearest(rows, centres)]).square().sum()
