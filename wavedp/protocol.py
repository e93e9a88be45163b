"""The contract that every method fulfils, and the harness relies on.

A method writes science: networks, losses, sampling. The harness owns the rest: configuration,
plans, ledgers, saving, scoring, devices. Methods are ``torch.nn.Module``s, so ``state_dict``,
``load_state_dict`` and ``to`` come with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor

from wavedp.data.schema import Records
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer


@runtime_checkable
class ImageGenerator(Protocol):
    """A private image generator.

    Attributes:
        stages: the parts that public pretraining makes, in the order in which they are trained,
            each with the names of those that must be there first. Each is a submodule, and its
            weights are one checkpoint file.
        conditioning: "text" if samples follow their captions, else "none".
        resolution: height and width of the images it makes.

    Parts of its ``state_dict`` that have no public weights, since finetuning makes them from
    nothing, are named in an attribute ``private_parts``, and nothing else is finetuned then. A
    method without that attribute has no such parts.
    """

    conditioning: ClassVar[Literal["text", "none"]]
    resolution: int

    @property
    def stages(self) -> Mapping[str, tuple[str, ...]]: ...

    def pretrain(self, stage: str, public: Records, trainer: Trainer) -> None:
        """Train one part on public records. What it needs is there."""

    def report(self, stage: str, held_out: Records) -> Mapping[str, float]:
        """What a trained part is worth, on public records that it has not seen."""

    def check(self, prompts: Sequence[str]) -> None:
        """Look at everything of loaded weights and prompts that can be wrong, before training.

        Raises:
            UserError: parts do not belong together, or a prompt cannot be read.
        """

    def finetune(self, private: PrivateRecords, trainer: Trainer) -> None:
        """Learn from the private records, through the trainer (or a mechanism) only."""

    def generate(self, captions: Sequence[str], seed: int) -> Iterator[Tensor]:
        """One image per caption, in order, as uint8 batches ``[b, 3, R, R]``."""

    def oracle(self, images: Tensor) -> Tensor:
        """The method's ceiling: what its public parts make of real images.

        Args:
            images: uint8 ``[b, 3, R, R]``, evaluation images.

        Returns:
            uint8 ``[b, 3, R, R]``, what the public parts keep of them: of DP-Wavelet the real low
            band, upsampled, not its tokens; of a method of tokens or latents these, decoded.
        """

    def state_dict(self) -> dict[str, Any]:
        """All weights; each key begins with its part's name."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Inverse of :meth:`state_dict`."""
