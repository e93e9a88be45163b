"""The autoregressive prior over spectral tokens (AR-SIT): coarse to fine, text-conditional.

A decoder-only transformer over ``[text prefix][scale 0][scale 1]...``. Its hidden state at a
position predicts the next token; the C codes of a token are predicted one after the other by
a small head that sees the codes before (as the depth transformer of RQ-Transformer, Lee et
al., arXiv 2203.01941, in its least form). Because scales come coarse to fine, a model of the
first s scales is the same network stopped early, which is what lets DP-Wavelet finetune the
low band only.

Shapes: b rows, t tokens, C codes per token, K codebook entries, d width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.dp.errors import UserError
from wavedp.nn.transformer import Transformer


class SpectralPrior(nn.Module):
    """p(tokens | text), one transformer over all scales.

    Args:
        scales, tokens_per_scale, codes, codebook_size: as in the tokenizer.
        text_slots, text_width: shape of an encoded caption.
        width, depth, heads: of the transformer.
    """

    encoders: Tensor

    def __init__(
        self,
        scales: int = 3,
        tokens_per_scale: int = 16,
        codes: int = 4,
        codebook_size: int = 512,
        text_slots: int = 4,
        text_width: int = 96,
        width: int = 128,
        depth: int = 3,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.scales, self.tokens_per_scale = scales, tokens_per_scale
        self.text_slots, self.text_width = text_slots, text_width
        self.codes, self.codebook_size = codes, codebook_size
        self.text = nn.Linear(text_width, width)
        # As the tokenizer: one set of tables for the approximation, one for all details.
        self.embeddings = nn.ModuleList(
            nn.Embedding(codes * codebook_size, width) for _ in ("approximation", "detail")
        )
        self.transformer = Transformer(width, depth, heads, text_slots + scales * tokens_per_scale)
        self.code_norm = nn.LayerNorm(width)
        self.code_hidden = nn.Linear(width, width)
        self.outputs = nn.ModuleList(nn.Linear(width, codebook_size) for _ in range(2 * codes))
        for embedding in self.embeddings:
            nn.init.normal_(embedding.get_parameter("weight"), std=0.02)
        # Of the encoders whose codes and texts it knows, so that it is never used with others.
        self.register_buffer("encoders", torch.zeros(32, dtype=torch.uint8))

    def belong_to(self, *encoders: str) -> None:
        """Note the keys of the tokenizer and the text encoder that it is trained with."""
        self.encoders.copy_(_digest(encoders))

    def check_encoders(self, *encoders: str) -> None:
        """Refuse codes or texts that it was not trained on.

        Raises:
            UserError: it was trained with others.
        """
        known = self.encoders.cpu()
        if known.any() and not torch.equal(known, _digest(encoders)):
            raise UserError(
                "The prior was trained on the codes of another tokenizer or with another text "
                "encoder; use the checkpoints that were made together, or pretrain the prior again."
            )

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
                    f"The prior is made for {name}={own}, the parts beside it have {found}; set "
                    f"prior.{name}={found} and use a checkpoint of that size."
                )

    def freeze_above(self, scales: int) -> None:
        """Freeze the tables of details where none are trained."""
        if scales == 1:
            self.embeddings[1].requires_grad_(False)
            for output in self.outputs[self.codes :]:
                output.requires_grad_(False)

    def freeze_codes(self) -> None:
        """Freeze how codes are read and scored: the embedding and all output layers.

        They hold most of the parameters and what they know, which patch looks like which, is
        public; under DP their noise costs more than their gradients bring.
        """
        self.embeddings.requires_grad_(False)
        self.outputs.requires_grad_(False)

    def _embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        """``[b, t, C]`` from position ``start`` on to ``[b, t, C, d]``; each code has its table."""
        rows = tokens + self.codebook_size * torch.arange(self.codes, device=tokens.device)
        split = max(self.tokens_per_scale - start, 0)
        parts = [rows[:, :split], rows[:, split:]]
        done = [table(x) for table, x in zip(self.embeddings, parts, strict=True) if x.shape[1]]
        return torch.cat(done, dim=1)

    def _outputs(self, scale: int) -> list[nn.Module]:
        """The C output layers of a scale."""
        first = self.codes * min(scale, 1)
        return list(self.outputs[first : first + self.codes])

    def _code_states(self, hidden: Tensor, before: Tensor) -> Tensor:
        """Hidden states and the sums of earlier codes, both ``[..., d]``, to the same shape."""
        x = self.code_norm(hidden + before)
        return torch.as_tensor(x + F.gelu(self.code_hidden(x), approximate="tanh"))

    def forward(self, tokens: Tensor, text: Tensor) -> list[Tensor]:
        """Logits of every code given all tokens and codes before it.

        Args:
            tokens: int64 ``[b, t, C]``, whole scales from the first on.
            text: ``[b, slots, text_width]``, zeros for no text.

        Returns:
            For each scale and, within it, each code, ``[b, N, K]``.
        """
        embedded = self._embed(tokens)
        x = torch.cat([self.text(text), embedded[:, :-1].sum(2)], dim=1)
        hidden = self.transformer(x)[:, text.shape[1] - 1 :]
        states = self._code_states(hidden.unsqueeze(2), embedded.cumsum(2) - embedded)
        return [
            output(part)
            for scale, rows in enumerate(states.split(self.tokens_per_scale, dim=1))
            for output, part in zip(self._outputs(scale), rows.unbind(2), strict=True)
        ]

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
        """
        draw = Draw(generator, guidance, temperature, top_k, top_p)
        rows = len(text)
        copies = 1 if guidance == 1.0 else 2
        if copies == 2:
            text = torch.cat([text, torch.zeros_like(text)])
        length = text.shape[1] + scales * self.tokens_per_scale
        cache = self.transformer.cache(len(text), length, text.device)
        x = self.text(text)
        shape = (rows, scales * self.tokens_per_scale, self.codes)
        tokens = torch.zeros(shape, dtype=torch.int64, device=x.device)
        start = 0
        if given is not None:
            start = given.shape[1]
            tokens[:, :start] = given
            x = torch.cat([x, self._embed(given).sum(2).repeat(copies, 1, 1)], dim=1)
        for position in range(start, shape[1]):
            hidden = self.transformer(x, cache)[:, -1]
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


@dataclass(frozen=True)
class Draw:
    """A draw from logits ``[b, K]``, with guidance ``[2 b, K]``; see `SpectralPrior.sample`."""

    generator: torch.Generator
    guidance: float
    temperature: float
    top_k: int
    top_p: float = 1.0

    def __call__(self, logits: Tensor) -> Tensor:
        """Indices ``[b]``."""
        if self.guidance != 1.0:
            with_text, without = logits.chunk(2)
            logits = without + self.guidance * (with_text - without)
        if self.temperature == 0:
            return logits.argmax(-1)
        if 0 < self.top_k < logits.shape[-1]:
            threshold = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < threshold, -torch.inf)
        probabilities = (logits / self.temperature).softmax(-1)
        if self.top_p < 1:
            probabilities = nucleus(probabilities, self.top_p)
        return torch.multinomial(probabilities, 1, generator=self.generator).squeeze(1)


def nucleus(probabilities: Tensor, share: float) -> Tensor:
    """Zero all but the fewest most likely entries that hold ``share`` (Holtzman et al. 2020).

    Args:
        probabilities: ``[b, K]``.
    """
    ordered, order = probabilities.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(probabilities).scatter(-1, order, ordered * (before < share))


def _digest(keys: Sequence[str]) -> Tensor:
    digest = hashlib.sha256("\n".join(keys).encode()).digest()
    return torch.tensor(list(digest), dtype=torch.uint8)
