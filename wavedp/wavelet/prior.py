"""The autoregressive prior over spectral tokens (AR-SIT): coarse to fine, text-conditional.

A decoder-only transformer over ``[text prefix][scale 0][scale 1]...`` that predicts the next
token; each scale has its own ids, and its own output layer. Because scales come coarse to
fine, a model of the first s scales is the same network stopped early, which is what lets
DP-Wavelet finetune the low band only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.data.schema import Records
from wavedp.dp.clipping import Batch
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer
from wavedp.nn.images import to_float
from wavedp.nn.schedule import cosine
from wavedp.nn.text import HashedText
from wavedp.nn.transformer import Transformer
from wavedp.wavelet.tokenizer import SpectralTokenizer


class SpectralPrior(nn.Module):
    """p(tokens | text), one transformer over all scales.

    Args:
        scales, tokens_per_scale, codebook_size: as in the tokenizer.
        text_slots, text_width: shape of an encoded caption.
        width, depth, heads: of the transformer.
    """

    def __init__(
        self,
        scales: int = 3,
        tokens_per_scale: int = 16,
        codebook_size: int = 512,
        text_slots: int = 4,
        text_width: int = 96,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.tokens_per_scale, self.codebook_size = tokens_per_scale, codebook_size
        self.text = nn.Linear(text_width, width)
        self.tokens = nn.Embedding(scales * codebook_size, width)
        self.transformer = Transformer(width, depth, heads, text_slots + scales * tokens_per_scale)
        self.heads = nn.ModuleList(nn.Linear(width, codebook_size) for _ in range(scales))
        nn.init.normal_(self.tokens.weight, std=0.02)

    def _embed(self, ids: Tensor, start: int = 0) -> Tensor:
        """Ids that begin at position ``start`` of the image tokens, to ``[b, t, d]``."""
        position = torch.arange(start, start + ids.shape[1], device=ids.device)
        return torch.as_tensor(
            self.tokens(ids + position // self.tokens_per_scale * self.codebook_size)
        )

    def freeze_above(self, scales: int) -> None:
        """Freeze the output layers of scales that are not trained, so they add no noise."""
        for scale, head in enumerate(self.heads):
            head.requires_grad_(scale < scales)

    def forward(self, ids: Tensor, text: Tensor) -> Tensor:
        """Logits ``[b, t, K]`` for every token of ``ids [b, t]`` from those before it.

        Args:
            ids: int64, the first t tokens, whole scales.
            text: ``[b, slots, text_width]``, zeros for no text.
        """
        x = torch.cat([self.text(text), self._embed(ids[:, :-1])], dim=1)
        hidden = self.transformer(x)[:, text.shape[1] - 1 :]
        parts = hidden.split(self.tokens_per_scale, dim=1)
        return torch.cat([head(h) for head, h in zip(self.heads, parts, strict=False)], dim=1)

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
        """Draw ids ``[b, scales * N]`` for encoded captions ``[b, slots, text_width]``.

        Args:
            guidance: classifier-free guidance; 1 is none, and costs half.
            temperature: divides the logits; 0 takes the most likely token.
            top_k: keep only the k most likely tokens; 0 keeps all.
            given: ids to continue, ``[b, t]``.
        """
        rows = len(text)
        if guidance != 1.0:
            text = torch.cat([text, torch.zeros_like(text)])
        cache = self.transformer.cache(len(text), text.device)
        x = self.text(text)
        start = 0 if given is None else given.shape[1]
        ids = torch.empty(rows, scales * self.tokens_per_scale, dtype=torch.int64, device=x.device)
        if given is not None:
            ids[:, :start] = given
            embedded = self._embed(given)
            x = torch.cat([x, embedded.repeat(len(text) // rows, 1, 1)], dim=1)
        for position in range(start, ids.shape[1]):
            hidden = self.transformer(x, cache)[:, -1]
            logits = self.heads[position // self.tokens_per_scale](hidden)
            if guidance != 1.0:
                with_text, without = logits.chunk(2)
                logits = without + guidance * (with_text - without)
            ids[:, position] = _draw(logits, generator, temperature, top_k)
            x = self._embed(ids[:, position : position + 1], position)
            x = x.repeat(len(text) // rows, 1, 1)
        return ids


def _draw(logits: Tensor, generator: torch.Generator, temperature: float, top_k: int) -> Tensor:
    if temperature == 0:
        return logits.argmax(-1)
    if top_k:
        threshold = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    probabilities = (logits / temperature).softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(1)


def next_token_loss(condition_dropout: float) -> Callable[[nn.Module, Batch], Tensor]:
    """Mean cross-entropy of a record's tokens given one of its captions, ``[b]``.

    Batches have ``ids`` ``[b, t]`` and ``text`` ``[b, captions, slots, width]``; one caption
    per record is drawn, and dropped with the given probability for guidance.
    """

    def loss(prior: nn.Module, batch: Batch) -> Tensor:
        ids, texts = batch["ids"], batch["text"]
        rows = torch.arange(len(ids), device=ids.device)
        choice = torch.randint(texts.shape[1], (len(ids),), device=ids.device)
        keep = torch.rand(len(ids), 1, 1, device=ids.device) >= condition_dropout
        logits = prior(ids, texts[rows, choice].float() * keep)
        return F.cross_entropy(logits.mT, ids, reduction="none").mean(1)

    return loss


def encode_records(
    tokenizer: SpectralTokenizer, text: HashedText, scales: int, captions: int
) -> Callable[[Mapping[str, Any]], dict[str, Tensor]]:
    """The frozen per-record function from images and captions to what the prior trains on.

    Args:
        scales: how many leading scales are kept. What is not encoded cannot leak.
        captions: a public constant; records with fewer repeat theirs, more are cut.
    """

    def encode(columns: Mapping[str, Any]) -> dict[str, Tensor]:
        images = torch.as_tensor(columns["images"])
        ids = tokenizer.encode(to_float(images), scales)
        flat = [own[i % len(own)] for own in columns["captions"] for i in range(captions)]
        texts = text(flat).view(len(ids), captions, text.slots, text.width)
        return {"ids": ids, "text": texts.half()}

    return encode


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
        encode = self._encoder(tokenizer, tokenizer.scales)
        parts = [encode({"images": r.images, "captions": r.captions}) for r in public.chunks(1000)]
        columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        self._fit(prior, columns, trainer, self.pretraining_rate, "pretraining the prior")

    def finetune(
        self,
        prior: SpectralPrior,
        tokenizer: SpectralTokenizer,
        private: PrivateRecords,
        scales: int,
        trainer: Trainer,
    ) -> None:
        """The first ``scales`` scales of the private records, all weights of the prior."""
        tokens = private.map(self._encoder(tokenizer, scales))
        prior.freeze_above(scales)
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

    def _encoder(
        self, tokenizer: SpectralTokenizer, scales: int
    ) -> Callable[[Mapping[str, Any]], dict[str, Tensor]]:
        return encode_records(tokenizer.eval(), self.text, scales, self.captions)

    def sample(
        self, prior: SpectralPrior, captions: Sequence[str], scales: int, seed: int
    ) -> Iterator[Tensor]:
        """Batches of ids ``[b, scales * N]``, one row per caption, in order."""
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
