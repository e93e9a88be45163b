"""The encoder half of a Hugging Face T5, as LlamaGen and Imagen read captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor, nn

from wavedp.dp.errors import UserError
from wavedp.nn.text.batched import BatchedText, device_or_default, tokens_of
from wavedp.nn.untrained import drawn, wordless

XL: dict[str, Any] = {
    **{"d_model": 2048, "d_ff": 5120, "d_kv": 64, "num_layers": 24, "num_heads": 32},
    **{"vocab_size": 32128, "feed_forward_proj": "gated-gelu"},
}
"""``config.json`` of ``google/flan-t5-xl``, of the encoder."""

_in_use: WeakValueDictionary[tuple[str, ...], nn.Module] = WeakValueDictionary()
"""Encoders by what they were made of: parts that read captions alike hold one between them."""


class T5Text(BatchedText):
    """Last hidden states of a frozen T5 encoder, zeros behind the caption.

    Args:
        model: a name on the Hugging Face Hub or a folder, such as ``google/flan-t5-xl`` (2048).
        slots: tokens kept of a caption.
        batch: captions at once.
        device: where the encoder runs; None for a GPU where there is one.

    Raises:
        UserError: transformers or the weights are missing.
    """

    def __init__(
        self,
        model: str = "google/flan-t5-xl",
        slots: int = 120,
        batch: int = 32,
        device: str | None = None,
    ) -> None:
        try:
            from transformers import AutoTokenizer, T5Config, T5EncoderModel
        except ModuleNotFoundError as error:
            raise UserError(
                'T5 text needs transformers; install it with `pip install "wavedp[paper]"`.'
            ) from error
        self._device, sizes = device_or_default(device), drawn("t5", XL)
        made_of = model, str(sizes), str(self._device)
        encoder: Any = _in_use.get(made_of)
        try:
            if sizes is not None:
                self._tokenizer = wordless(slots)
                encoder = encoder or T5EncoderModel(T5Config(**sizes))
            else:
                self._tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
                encoder = encoder or T5EncoderModel.from_pretrained(model, local_files_only=True)
        except (OSError, ValueError) as error:
            raise UserError(
                f"The text encoder {model} is not on this machine; fetch it with "
                f"`hf download {model}` or set text.model to a folder."
            ) from error
        # In float32 whatever the file holds: T5 overflows in float16.
        encoder = encoder.float().eval().requires_grad_(False).to(self._device)
        self._encoder = _in_use[made_of] = encoder
        config = encoder.config
        settings = (
            config.num_heads,
            config.feed_forward_proj,
            config.relative_attention_max_distance,
            config.layer_norm_epsilon,
            sorted(self._tokenizer.get_vocab().items()),
        )
        super().__init__(encoder, slots, int(config.d_model), batch, *settings)

    def hidden(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """See :class:`BatchedText`."""
        read = tokens_of(self._tokenizer, captions, self.slots).to(self._device)
        states = self._encoder(**read).last_hidden_state.float().cpu()
        return states, read.attention_mask.cpu().bool()

    def length(self, caption: str) -> int:
        """See :class:`BatchedText`."""
        return len(self._tokenizer(caption).input_ids)
