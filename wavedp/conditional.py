"""How networks that follow captions are trained: what priors over codes and denoisers share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wavedp.data.schema import Records
from wavedp.dp.clipping import Batch
from wavedp.dp.errors import UserError
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer
from wavedp.nn.lora import adapted
from wavedp.nn.schedule import cosine
from wavedp.nn.text import TextEncoder
from wavedp.nn.text.choice import draw_captions

CHUNK = 1000
"""Public images encoded at once."""

Loss = Callable[[nn.Module, Batch], Tensor]
"""A network and encoded records with ``text`` ``[b, captions, slots, width]`` to ``[b]``."""


@dataclass(frozen=True)
class ConditionalTraining:
    """Settings of training and sampling that do not depend on what is drawn.

    Attributes:
        text: the frozen text encoder.
        captions: captions kept per record, a public constant.
        pretraining_rate, finetuning_rate: AdamW learning rates.
        condition_dropout: chance that a record trains without its caption.
        guidance: w of classifier-free guidance, ``without + w (with - without)``.
        batch: images drawn at once.
        lora_rank: finetune adapters of this rank, and nothing else; 0 finetunes the weights
            themselves.

    Raises:
        UserError: a setting is out of its range.
    """

    text: TextEncoder
    captions: int = 5
    pretraining_rate: float = 1e-3
    finetuning_rate: float = 1e-3
    weight_decay: float = 1e-2
    condition_dropout: float = 0.1
    guidance: float = 1.0
    batch: int = 500
    lora_rank: int = 0

    def __post_init__(self) -> None:
        for name, (fits, wanted) in self._ranges().items():
            if not fits:
                raise UserError(
                    f"training.{name}={getattr(self, name)} is out of range: it must {wanted}."
                )

    def _ranges(self) -> dict[str, tuple[bool, str]]:
        """Whether each setting is in its range, and what that is."""
        return {
            "captions": (self.captions >= 1, "be at least 1"),
            "condition_dropout": (0 <= self.condition_dropout <= 1, "lie in [0, 1]"),
            "batch": (self.batch >= 1, "be at least 1"),
            "lora_rank": (self.lora_rank >= 0, "not be negative"),
        }

    def encoded(
        self,
        encode: Callable[[Mapping[str, Any]], Mapping[str, Tensor]],
        public: Records,
        trainer: Trainer,
    ) -> dict[str, Tensor]:
        """Columns of public images, encoded."""
        starts = trainer.progress(range(0, len(public), CHUNK), "encoding public images")
        parts = [encode({"images": public.images[i : i + CHUNK]}) for i in starts]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def fit_public(
        self,
        network: nn.Module,
        given: Loss,
        columns: Mapping[str, Tensor],
        public: Records,
        trainer: Trainer,
        label: str,
    ) -> None:
        """Train on public records, whose captions are encoded as they are drawn.

        Encoded at once, those of a large corpus would fit neither into memory nor onto most disks.
        """

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            images = {name: batch[name] for name in columns}
            drawn = draw_captions(public.captions, batch["record"], self.captions)
            text = self.text(drawn).to(batch["record"].device).unsqueeze(1)
            return given(model, {**images, "text": text})

        records = {**columns, "record": torch.arange(len(public))}
        self._fit(network, loss, records, trainer, self.pretraining_rate, label)

    def fit_private(
        self,
        network: nn.Module,
        loss: Loss,
        records: PrivateRecords,
        trainer: Trainer,
        adaptable: Collection[str],
        label: str,
    ) -> None:
        """DP-finetune what requires gradients; with ``lora_rank``, adapters that are merged.

        Args:
            adaptable: the layers that have adapters, see :func:`~wavedp.nn.lora.adapted`.
        """
        rank = self.lora_rank
        with adapted(network, adaptable, rank) if rank else nullcontext():
            self._fit(network, loss, records, trainer, self.finetuning_rate, label)

    def _fit(
        self,
        network: nn.Module,
        loss: Loss,
        records: PrivateRecords | Batch,
        trainer: Trainer,
        rate: float,
        label: str,
    ) -> None:
        parameters = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=rate, weight_decay=self.weight_decay, betas=(0.9, 0.99)
        )
        trainer.fit(network, loss, records, optimizer, cosine(), label)
