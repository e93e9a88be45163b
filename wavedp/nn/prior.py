"""Autoregressive priors over codes, given a text: what those of all tokenizers share.

A decoder-only transformer over ``[text prefix][tokens]``. Its hidden state at a position predicts
the next token; the C codes of a token are predicted one after the other by a small head that sees
the codes before (as the depth transformer of RQ-Transformer, Lee et al., arXiv 2203.01941, in its
least form).

Shapes: b rows, t tokens in scales of N, C codes per token, K codebook entries, d width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.dp.errors import UserError
from wavedp.nn.belonging import Belonging
from wavedp.nn.draw import Draw
from wavedp.nn.tokenizer import check_codes
from wavedp.nn.transformer import Cache


class CodePrior(Belonging, ABC):
    """p(tokens | text). Each kind brings its tables, its transformer and its layers of the head.

    Args:
        scales, tokens_per_scale, codes, codebook_size: as in the tokenizer.
        text_slots, text_width: shape of an encoded caption.

    Attributes:
        embeddings, outputs: how codes are read and scored.
        code_norm, code_hidden: of the head, ``[..., d]`` to the same.
        adaptable: names of the linear layers in a block, which can have adapters (LoRA).
    """

    adaptable: ClassVar[tuple[str, ...]]

    embeddings: nn.Module
    outputs: nn.ModuleList
    code_norm: nn.Module
    code_hidden: nn.Module

    def __init__(
        self,
        scales: int,
        tokens_per_scale: int,
        codes: int,
        codebook_size: int,
        text_slots: int,
        text_width: int,
    ) -> None:
        super().__init__()
        self.scales, self.tokens_per_scale = scales, tokens_per_scale
        self.codes, self.codebook_size = codes, codebook_size
        self.text_slots, self.text_width = text_slots, text_width

    @abstractmethod
    def without_text(self, text: Tensor) -> Tensor:
        """What stands for no text, for guidance, in the shape of encoded captions."""

    @abstractmethod
    def _embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        """``[b, t, C]`` from position ``start`` on to ``[b, t, C, d]``; each code has its table."""

    @abstractmethod
    def _outputs(self, scale: int) -> list[nn.Module]:
        """The C output layers of a scale."""

    @abstractmethod
    def _read(self, text: Tensor) -> tuple[Tensor, Tensor | None]:
        """The prefix ``[b, slots, d]``, and which slots are seen ``[b, slots]``: None for all."""

    @abstractmethod
    def _cache(self, rows: int, length: int, device: torch.device) -> Cache:
        """An empty cache for ``rows`` sequences of at most ``length`` positions."""

    @abstractmethod
    def _hidden(self, x: Tensor, seen: Tensor | None, cache: Cache | None = None) -> Tensor:
        """The transformer, ``[b, t, d]`` to the same; with a cache, ``x`` goes on from there."""

    def check_sizes(self, *sizes: int) -> None:
        """Refuse a tokenizer or a text encoder of other sizes than the prior was made for.

        Args:
            sizes: their scales, tokens_per_scale, codes, codebook_size, text_slots, text_width.

        Raises:
            UserError: names the first that differs.
        """
        names = ("scales", "tokens_per_scale", "codes", "codebook_size", "text_slots", "text_width")
        for name, found in zip(names, sizes, strict=True):
            own = getattr(self, name)
            if own != found:
                raise UserError(
                    f"The prior is made for {name}={own}, the parts beside it have {found}; make "
                    "its settings those of the parts and use a checkpoint of that size."
                )

    def freeze_above(self, scales: int) -> None:
        """Freeze what only scales beyond the first ``scales`` use, if there is anything."""

    def freeze_codes(self) -> None:
        """Freeze how codes are read and scored: the embedding and all output layers.

        They hold most of the parameters and what they know, which patch looks like which, is
        public; under DP their noise costs more than their gradients bring.
        """
        self.embeddings.requires_grad_(False)
        self.outputs.requires_grad_(False)

    def _code_states(self, hidden: Tensor, before: Tensor) -> Tensor:
        """Hidden states and the sums of earlier codes, both ``[..., d]``, to the same shape."""
        x = self.code_norm(hidden + before)
        return torch.as_tensor(x + F.gelu(self.code_hidden(x), approximate="tanh"))

    def forward(self, tokens: Tensor, text: Tensor) -> list[Tensor]:
        """Logits of every code given all tokens and codes before it.

        Args:
            tokens: int64 ``[b, t, C]``, whole scales from the first on.
            text: ``[b, slots, text_width]``, see :meth:`without_text`.

        Returns:
            For each scale and, within it, each code, ``[b, N, K]``.
        """
        embedded = self._embed(tokens)
        hidden = self._hidden_before(embedded, text)
        states = self._code_states(hidden.unsqueeze(2), embedded.cumsum(2) - embedded)
        return [
            output(part)
            for scale, rows in enumerate(states.split(self.tokens_per_scale, dim=1))
            for output, part in zip(self._outputs(scale), rows.unbind(2), strict=True)
        ]

    def _hidden_before(self, embedded: Tensor, text: Tensor) -> Tensor:
        """What tokens, embedded ``[b, t, C, d]``, are predicted from: ``[b, t, d]``."""
        prefix, seen = self._read(text)
        x = torch.cat([prefix, embedded[:, :-1].sum(2)], dim=1)
        return self._hidden(x, seen)[:, text.shape[1] - 1 :]

    @torch.no_grad()
    def redraw(self, tokens: Tensor, chosen: Tensor, text: Tensor, draw: Draw) -> Tensor:
        """Draw chosen tokens anew, all at once: each after the old ones before it.

        Args:
            tokens: int64 ``[b, t, C]``, whole scales from the first on.
            chosen: bool ``[b, t]``.
            text: ``[b, slots, text_width]``, see :meth:`without_text`.
            draw: without guidance.

        Returns:
            int64 ``[b, t, C]``; tokens that are not chosen are as they were.
        """
        hidden, redrawn = self._hidden_before(self._embed(tokens), text), tokens.clone()
        for position, rows in enumerate(chosen.unbind(1)):
            part = tokens[rows]
            self._sample_token(hidden[rows, position], part, position, 1, draw)
            redrawn[rows, position] = part[:, position]
        return redrawn

    @torch.no_grad()
    def sample(
        self,
        text: Tensor,
        scales: int,
        generator: torch.Generator,
        *,
        guidance: float = 1.0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        given: Tensor | None = None,
    ) -> Tensor:
        """Draw tokens ``[b, scales N, C]`` for encoded captions ``[b, slots, text_width]``.

        Args:
            guidance: classifier-free guidance; 1 is none, and costs half.
            temperature: divides the logits; 0 takes the most likely code.
            top_k: keep only the k most likely codes; 0 keeps all.
            top_p: keep the most likely codes that hold this share of the probability.
            given: tokens to continue, ``[b, t, C]``.

        Raises:
            UserError: ``given`` holds more tokens than are drawn, or a code that is none.
        """
        draw = Draw(generator, guidance, temperature, top_k, top_p)
        rows = len(text)
        copies = 1 if guidance == 1.0 else 2
        if copies == 2:
            text = torch.cat([text, self.without_text(text)])
        length = text.shape[1] + scales * self.tokens_per_scale
        cache = self._cache(len(text), length, text.device)
        x, seen = self._read(text)
        shape = (rows, scales * self.tokens_per_scale, self.codes)
        tokens = torch.zeros(shape, dtype=torch.int64, device=x.device)
        start = 0
        if given is not None:
            start = given.shape[1]
            check_codes(given, self.codebook_size)
            if start > shape[1]:
                raise UserError(f"{start} tokens are given and {shape[1]} are to be drawn in all.")
            tokens[:, :start] = given
            x = torch.cat([x, self._embed(given).sum(2).repeat(copies, 1, 1)], dim=1)
        for position in range(start, shape[1]):
            hidden = self._hidden(x, seen, cache)[:, -1]
            x = self._sample_token(hidden, tokens, position, copies, draw)
        return tokens

    def _sample_token(
        self, hidden: Tensor, tokens: Tensor, position: int, copies: int, draw: Draw
    ) -> Tensor:
        """Draw the codes of one token into ``tokens``; returns its embedding ``[b, 1, d]``."""
        before = torch.zeros_like(hidden)
        for code, output in enumerate(self._outputs(position // self.tokens_per_scale)):
            logits = output(self._code_states(hidden, before))
            tokens[:, position, code] = draw(logits)
            embedded = self._embed(tokens[:, position : position + 1], position)
            before = before + embedded[:, 0, code].repeat(copies, 1)
        return before.unsqueeze(1)
