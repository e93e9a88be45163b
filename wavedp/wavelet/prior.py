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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.data.schema import Records
from wavedp.dp.clipping import Batch
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer
from wavedp.nn.fingerprint import fingerprint
from wavedp.nn.images import to_float
from wavedp.nn.schedule import cosine
from wavedp.nn.text import HashedText
from wavedp.nn.transformer import Transformer
from wavedp.wavelet.tokenizer import SpectralTokenizer


class SpectralPrior(nn.Module):
    """p(tokens | text), one transformer over all scales.

    Args:
        scales, tokens_per_scale, codes, codebook_size: as in the tokenizer.
        text_slots, text_width: shape of an encoded caption.
        width, depth, heads: of the transformer.
    """

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
        self.tokens_per_scale = tokens_per_scale
        self.codes, self.codebook_size = codes, codebook_size
        self.text = nn.Linear(text_width, width)
        self.embedding = nn.Embedding(scales * codes * codebook_size, width)
        self.transformer = Transformer(width, depth, heads, text_slots + scales * tokens_per_scale)
        self.code_norm = nn.LayerNorm(width)
        self.code_hidden = nn.Linear(width, width)
        self.outputs = nn.ModuleList(nn.Linear(width, codebook_size) for _ in range(scales * codes))
        nn.init.normal_(self.embedding.weight, std=0.02)

    def freeze_above(self, scales: int) -> None:
        """Freeze the output layers of scales that are not trained, so they add no noise."""
        for index, output in enumerate(self.outputs):
            output.requires_grad_(index < scales * self.codes)

    def freeze_codes(self) -> None:
        """Freeze how codes are read and scored: the embedding and all output layers.

        They hold most of the parameters and what they know, which patch looks like which, is
        public; under DP their noise costs more than their gradients bring.
        """
        self.embedding.requires_grad_(False)
        self.outputs.requires_grad_(False)

    def _embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        """``[b, t, C]`` from position ``start`` on to ``[b, t, C, d]``; each code has its table."""
        position = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        scale = (position // self.tokens_per_scale).view(-1, 1)
        code = torch.arange(self.codes, device=tokens.device)
        table = (scale * self.codes + code) * self.codebook_size
        return torch.as_tensor(self.embedding(tokens + table))

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
        parts = [part for rows in states.split(self.tokens_per_scale, 1) for part in rows.unbind(2)]
        return [output(part) for output, part in zip(self.outputs, parts, strict=False)]

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
        given: Tensor | None = None,
    ) -> Tensor:
        """Draw tokens ``[b, scales N, C]`` for encoded captions ``[b, slots, text_width]``.

        Args:
            guidance: classifier-free guidance; 1 is none, and costs half.
            temperature: divides the logits; 0 takes the most likely code.
            top_k: keep only the k most likely codes; 0 keeps all.
            given: tokens to continue, ``[b, t, C]``.
        """
        draw = Draw(generator, guidance, temperature, top_k)
        rows = len(text)
        copies = 1 if guidance == 1.0 else 2
        if copies == 2:
            text = torch.cat([text, torch.zeros_like(text)])
        cache = self.transformer.cache(len(text), text.device)
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
        scale = position // self.tokens_per_scale
        for code in range(self.codes):
            output = self.outputs[scale * self.codes + code]
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

    def __call__(self, logits: Tensor) -> Tensor:
        """Indices ``[b]``."""
        if self.guidance != 1.0:
            with_text, without = logits.chunk(2)
            logits = without + self.guidance * (with_text - without)
        if self.temperature == 0:
            return logits.argmax(-1)
        if self.top_k:
            threshold = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < threshold, -torch.inf)
        probabilities = (logits / self.temperature).softmax(-1)
        return torch.multinomial(probabilities, 1, generator=self.generator).squeeze(1)


def next_token_loss(condition_dropout: float) -> Callable[[nn.Module, Batch], Tensor]:
    """Mean cross-entropy of a record's codes given one of its captions, ``[b]``.

    Batches have ``tokens`` ``[b, t, C]`` and ``text`` ``[b, captions, slots, width]``; one caption
    per record is drawn, and dropped with the given probability for guidance.
    """

    def loss(prior: nn.Module, batch: Batch) -> Tensor:
        tokens, texts = batch["tokens"].long(), batch["text"]
        rows = torch.arange(len(tokens), device=tokens.device)
        choice = torch.randint(texts.shape[1], (len(tokens),), device=tokens.device)
        keep = torch.rand(len(tokens), 1, 1, device=tokens.device) >= condition_dropout
        logits = prior(tokens, texts[rows, choice].float() * keep)
        parts = [
            part
            for scale in tokens.chunk(len(logits) // tokens.shape[2], 1)
            for part in scale.unbind(2)
        ]
        losses = [
            F.cross_entropy(logit.mT, part, reduction="none").mean(1)
            for logit, part in zip(logits, parts, strict=True)
        ]
        return torch.stack(losses).mean(0)

    return loss


@dataclass(frozen=True)
class TokenEncoder:
    """``images`` to ``tokens`` ``[b, t, C]`` of the first scales: frozen, public, per record.

    Attributes:
        tokenizer: public, in eval mode.
        scales: how many leading scales are kept. What is not encoded cannot leak.
    """

    tokenizer: SpectralTokenizer
    scales: int

    @property
    def key(self) -> str:
        """Names this function for a store; raise its number when the encoding changes."""
        return f"TokenEncoder 1 {fingerprint(self.tokenizer)} scales={self.scales}"

    def __call__(self, columns: Mapping[str, Any]) -> dict[str, Tensor]:
        images = to_float(torch.from_numpy(np.array(columns["images"])))
        return {"tokens": self.tokenizer.encode(images, self.scales).short()}


@dataclass(frozen=True)
class CaptionEncoder:
    """``captions`` to ``text`` ``[b, captions, slots, width]``: frozen, public, per record.

    Attributes:
        text: the frozen text encoder.
        captions: a public constant; records with fewer repeat theirs, more are cut.
    """

    text: HashedText
    captions: int

    @property
    def key(self) -> str:
        """Names this function for a store; raise its number when the encoding changes."""
        return f"CaptionEncoder 1 {self.text.slots}x{self.text.width} captions={self.captions}"

    def __call__(self, columns: Mapping[str, Any]) -> dict[str, Tensor]:
        lists = columns["captions"]
        flat = [own[i % len(own)] for own in lists for i in range(self.captions)]
        shape = len(lists), self.captions, self.text.slots, self.text.width
        return {"text": self.text(flat).view(shape).half()}


@dataclass(frozen=True)
class PriorTraining:
    """How a prior is trained and sampled, shared by every method that has one.

    Attributes:
        text: the frozen text encoder.
        captions: captions kept per record, a public constant.
        pretraining_rate, finetuning_rate: AdamW learning rates.
        condition_dropout: chance that a record trains without its caption.
        guidance, temperature, top_k: of sampling, see :meth:`SpectralPrior.sample`.
        batch: images drawn at once.
    """

    text: HashedText
    captions: int = 5
    pretraining_rate: float = 2e-3
    finetuning_rate: float = 1e-3
    weight_decay: float = 1e-2
    condition_dropout: float = 0.1
    guidance: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    batch: int = 500

    def pretrain(
        self, prior: SpectralPrior, tokenizer: SpectralTokenizer, public: Records, trainer: Trainer
    ) -> None:
        """All scales of the public records."""
        columns: dict[str, Tensor] = {}
        for encode in self._encoders(tokenizer, tokenizer.scales):
            parts = [
                encode({"images": r.images, "captions": r.captions}) for r in public.chunks(1000)
            ]
            columns |= {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        self._fit(prior, columns, trainer, self.pretraining_rate, "pretraining the prior")

    def finetune(
        self,
        prior: SpectralPrior,
        tokenizer: SpectralTokenizer,
        private: PrivateRecords,
        scales: int,
        trainer: Trainer,
        *,
        freeze_codes: bool = False,
    ) -> None:
        """The first ``scales`` scales of the private records, all weights of the prior.

        With ``freeze_codes``, all but the ones that :meth:`SpectralPrior.freeze_codes` names.
        """
        encoders = self._encoders(tokenizer, scales)
        tokens = private.map(*encoders, progress=trainer.progress)
        prior.freeze_above(scales)
        if freeze_codes:
            prior.freeze_codes()
        self._fit(prior, tokens, trainer, self.finetuning_rate, "finetuning the prior")

    def _fit(
        self,
        prior: SpectralPrior,
        records: PrivateRecords | Batch,
        trainer: Trainer,
        rate: float,
        label: str,
    ) -> None:
        parameters = [p for p in prior.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=rate, weight_decay=self.weight_decay, betas=(0.9, 0.99)
        )
        loss = next_token_loss(self.condition_dropout)
        trainer.fit(prior, loss, records, optimizer, cosine(), label)

    def _encoders(
        self, tokenizer: SpectralTokenizer, scales: int
    ) -> tuple[TokenEncoder, CaptionEncoder]:
        return TokenEncoder(tokenizer.eval(), scales), CaptionEncoder(self.text, self.captions)

    def sample(
        self, prior: SpectralPrior, captions: Sequence[str], scales: int, seed: int
    ) -> Iterator[Tensor]:
        """Batches of tokens ``[b, scales N, C]``, one row per caption, in order."""
        device = next(prior.parameters()).device
        generator = torch.Generator(device).manual_seed(seed)
        for start in range(0, len(captions), self.batch):
            text = self.text(captions[start : start + self.batch]).to(device)
            yield prior.eval().sample(
                text,
                scales,
                generator,
                guidance=self.guidance,
                temperature=self.temperature,
                top_k=self.top_k,
            )
