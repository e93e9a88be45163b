"""Published networks in their published sizes with random weights, to try a way without its files.

    with untrained():
        generator = make(config)

Within, a part that reads published files draws its weights instead, by the settings that the files
are published with. It takes code to ask for it: no setting of a part, and no file, puts random
weights in the place of published ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Sizes = Mapping[str, Mapping[str, Any]]
"""Settings of published networks, by the networks' names."""

_sizes: ContextVar[Sizes | None] = ContextVar("untrained", default=None)


@contextmanager
def untrained(smaller: Sizes | None = None) -> Iterator[None]:
    """Within, published parts are drawn at random.

    Args:
        smaller: settings that take the place of the published ones, for machines with too little
            memory: ``{"t5": {"num_layers": 2}}``.
    """
    token = _sizes.set(smaller or {})
    try:
        yield
    finally:
        _sizes.reset(token)


def drawn(network: str, published: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings to draw a network by; None outside of :func:`untrained`, where files are read.

    Args:
        network: its name in ``smaller``.
        published: the settings that its weights are published with.
    """
    smaller = _sizes.get()
    return None if smaller is None else {**published, **smaller.get(network, {})}


def wordless(most: int) -> Any:
    """A tokenizer of transformers without a vocabulary: every word is one and the same token.

    Args:
        most: tokens of a text.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({"<pad>": 0, "<word>": 1}, unk_token="<word>"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<word>",
        model_max_length=most,
    )
