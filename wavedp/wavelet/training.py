"""How a tokenizer and a prior over its codes are trained, shared by every method with such."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.conditional import ConditionalTraining
from wavedp.data.schema import Records
from wavedp.dp.clipping import Batch
from wavedp.dp.errors import UserError
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer
from wavedp.nn.images import as_tensor, to_float
from wavedp.nn.prior import CodePrior
from wavedp.nn.reconstruction import Judge, Reconstruction, pyramid_error
from wavedp.nn.schedule import cosine
from wavedp.nn.text import TextEncoder
from wavedp.nn.text.choice import draw_text
from wavedp.nn.tokenizer import Tokenizer
from wavedp.wavelet.encoders import CaptionEncoder, TokenEncoder


@dataclass(frozen=True)
class TokenizerTraining:
    """How a tokenizer is trained on public images.

    The whole image is judged by everything there is, the partial decodings of one with several
    scales by their squared error, so that it serves all resolutions.

    Attributes:
        judge: rates and weights. SIT: adversarial 0.1, perceptual 0.1, absolute 0.
        commitment: weight of the encoder's distance to its codes.
        first_images: how many images the codebooks are fitted to at the start, by k-means.
    """

    judge: Judge
    commitment: float = 0.25
    first_images: int = 2000

    def pretrain(self, tokenizer: Tokenizer, public: Records, trainer: Trainer) -> None:
        """Train it on public images; it is left in eval mode, frozen."""
        images = as_tensor(public.images)
        tokenizer.train()
        tokenizer.fit_codebooks(to_float(images[: self.first_images].to(trainer.device)))
        whole = self.judge.over(tokenizer, trainer.device)
        label = "pretraining the tokenizer"
        trainer.fit(whole, self._loss, {"images": images}, whole.optimizer(), cosine(), label)
        tokenizer.eval().requires_grad_(False)

    def _loss(self, model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, Reconstruction)
        images = to_float(batch["images"])
        made, commitment = model.network(images)
        total = model.loss(made[-1], images) + pyramid_error(made[:-1], images)
        return torch.as_tensor(total + self.commitment * commitment)


def next_token_loss(
    condition_dropout: float, without_text: Callable[[Tensor], Tensor] = torch.zeros_like
) -> Callable[[nn.Module, Batch], Tensor]:
    """Mean cross-entropy of a record's codes given one of its captions, ``[b]``.

    Batches have ``tokens`` ``[b, t, C]`` and ``text`` ``[b, captions, slots, width]``; one caption
    per record is drawn, and dropped with the given probability for guidance.

    Args:
        without_text: what stands in the place of encoded captions that are dropped.
    """

    def loss(prior: nn.Module, batch: Batch) -> Tensor:
        tokens = batch["tokens"].long()
        logits = prior(tokens, draw_text(batch["text"], condition_dropout, without_text))
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
class PriorTraining(ConditionalTraining):
    """How a prior is trained and sampled.

    Attributes:
        temperature, top_k, top_p: of sampling, see :meth:`CodePrior.sample`.
    """

    pretraining_rate: float = 2e-3
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def _ranges(self) -> dict[str, tuple[bool, str]]:
        return super()._ranges() | {
            "temperature": (self.temperature >= 0, "not be negative"),
            "top_k": (self.top_k >= 0, "not be negative"),
            "top_p": (0 < self.top_p <= 1, "lie in (0, 1]"),
        }

    def pretrain(
        self, prior: CodePrior, tokenizer: Tokenizer, public: Records, trainer: Trainer
    ) -> None:
        """All scales of the public records."""
        columns = self.encoded(self._encoders(tokenizer, tokenizer.scales)[0], public, trainer)
        prior.belong_to(tokenizer.key, self.text.key)
        loss = next_token_loss(self.condition_dropout, prior.without_text)
        self.fit_public(prior, loss, columns, public, trainer, "pretraining the prior")

    def columns(self, tokenizer: Tokenizer, public: Records) -> dict[str, Tensor]:
        """A few public records as finetuning sees them: ``tokens`` of all scales, and ``text``."""
        given = {"images": public.images, "captions": public.captions}
        tokens, text = (encode(given) for encode in self._encoders(tokenizer, tokenizer.scales))
        return tokens | text

    def finetune(
        self,
        prior: CodePrior,
        tokenizer: Tokenizer,
        private: PrivateRecords,
        scales: int,
        trainer: Trainer,
        *,
        freeze_codes: bool = False,
    ) -> None:
        """DP-finetune on the first ``scales`` scales of the private records.

        Every weight that these scales use is trained; with ``freeze_codes``, all but those that
        :meth:`CodePrior.freeze_codes` names; with ``lora_rank``, adapters alone, which are part of
        the weights afterwards.
        """
        tokens = private.map(*self._encoders(tokenizer, scales), progress=trainer.progress)
        prior.freeze_above(scales)
        if freeze_codes:
            prior.freeze_codes()
        loss = next_token_loss(self.condition_dropout, prior.without_text)
        label = "finetuning the prior"
        self.fit_private(prior, loss, tokens, trainer, prior.adaptable, label)

    def _encoders(self, tokenizer: Tokenizer, scales: int) -> tuple[TokenEncoder, CaptionEncoder]:
        return TokenEncoder(tokenizer.eval(), scales), CaptionEncoder(self.text, self.captions)

    def sample(
        self,
        prior: CodePrior,
        captions: Sequence[str],
        scales: int,
        seed: int,
        given: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Batches of tokens ``[b, scales N, C]``, one row per caption, in order.

        Args:
            given: tokens to continue, ``[n, t, C]``, a row per caption.
        """
        device = next(prior.parameters()).device
        generator = torch.Generator(device).manual_seed(seed)
        for start in range(0, len(captions), self.batch):
            part = slice(start, start + self.batch)
            yield prior.eval().sample(
                self.text(captions[part]).to(device),
                scales,
                generator,
                guidance=self.guidance,
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                given=None if given is None else given[part],
            )


def check_together(prior: CodePrior, tokenizer: Tokenizer, text: TextEncoder) -> None:
    """Refuse a prior, a tokenizer and a text encoder that do not fit each other.

    Raises:
        UserError: their sizes differ, or the prior was trained with other weights.
    """
    shape = (tokenizer.scales, tokenizer.tokens_per_scale, tokenizer.codes, tokenizer.codebook_size)
    prior.check_sizes(*shape, text.slots, text.width)
    prior.check_encoders(tokenizer.key, text.key)


def check_prompts(text: TextEncoder, prompts: Sequence[str]) -> None:
    """Refuse prompts that the encoder would cut. (Private captions are cut: an error would tell.)

    Raises:
        UserError: names the first one.
    """
    index = text.too_long(prompts)
    if index is not None:
        raise UserError(
            f"Prompt {index + 1} is longer than the {text.slots} tokens that the text encoder "
            f"takes: {prompts[index][:60]!r}...; raise text.slots or use a protocol with shorter "
            "captions."
        )
