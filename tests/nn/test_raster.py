"""The raster tokenizer: shapes, locality, what it refuses, and that looking changes nothing."""

import pytest
import torch

from wavedp.dp import UserError
from wavedp.nn.raster import RasterTokenizer


def small(**changes):
    torch.manual_seed(0)
    sizes = {"resolution": 16, "codes": 2, "codebook_size": 12, "code_width": 4, "width": 8}
    return RasterTokenizer(**(sizes | changes))


@torch.no_grad()
def test_images_become_a_grid_of_codes_and_images_again():
    tokenizer = small().eval()
    images = torch.randn(3, 3, 16, 16)
    tokens = tokenizer.encode(images)
    assert tokens.shape == (3, 16, 2)
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < 12
    made, commitment = tokenizer(images)
    torch.testing.assert_close(tokenizer.decode(tokens), made[-1])
    assert (len(made), commitment.shape) == (1, (3,))
    assert (tokenizer.scales, tokenizer.tokens_per_scale, tokenizer.side(1)) == (1, 16, 16)


@torch.no_grad()
def test_tokens_are_row_by_row():
    tokenizer = small().eval()
    tokens = torch.zeros(1, 16, 2, dtype=torch.int64)
    before = tokenizer.decoder[0](tokenizer.codebook.lookup(tokens).mT.unflatten(2, (4, 4)))
    tokens[0, 4 + 3] = 1  # row 1, column 3
    after = tokenizer.decoder[0](tokenizer.codebook.lookup(tokens).mT.unflatten(2, (4, 4)))
    moved = (before != after).any(1)[0].nonzero()  # by one convolution of three by three
    assert moved.amin(0).tolist() == [0, 2]
    assert moved.amax(0).tolist() == [2, 3]


def test_only_training_moves_the_codebooks():
    tokenizer, images = small().train(), torch.randn(8, 3, 16, 16)
    tokenizer.fit_codebooks(images)
    before = tokenizer.codebook.codebooks.clone()
    tokenizer.encode(images)
    assert torch.equal(before, tokenizer.codebook.codebooks)
    made, _ = tokenizer(images)
    made[0].sum().backward()
    assert not torch.equal(before, tokenizer.codebook.codebooks)
    assert all(p.grad is not None for p in tokenizer.encoder.parameters())


def test_its_key_names_weights_and_size():
    tokenizer = small()
    key = tokenizer.key
    assert key == small().key
    assert key != small(resolution=32).key  # the same weights
    tokenizer.encoder[0].bias.data[0] += 1
    assert tokenizer.key != key


def test_what_does_not_fit_is_refused():
    tokenizer = small()
    with pytest.raises(UserError, match="16 px, got 8x8"):
        tokenizer.encode(torch.zeros(1, 3, 8, 8))
    with pytest.raises(UserError, match="one scale; 2"):
        tokenizer.encode(torch.zeros(1, 3, 16, 16), scales=2)
    with pytest.raises(UserError, match="16 tokens of 2 codes"):
        tokenizer.decode(torch.zeros(1, 15, 2, dtype=torch.int64))
    with pytest.raises(UserError, match="cannot be halved 2 times"):
        small(resolution=18)
    with pytest.raises(UserError, match="16-bit"):
        small(codebook_size=2**15 + 1)


def test_codes_that_there_are_not_are_refused():
    tokens = torch.zeros(2, 16, 2, dtype=torch.int64)
    for wrong in (-1, 12):
        tokens[1, 3, 1] = wrong
        with pytest.raises(UserError, match=r"0\.\.11"):
            small().decode(tokens)
