"""Protocols of evaluation: which prompts, how many, against which reference images.

One file each in ``configs/protocol``. Most disagreements between published numbers come from
here, so the protocol has a name, and the prompts a hash, in every record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from omegaconf import DictConfig
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmarks.config import load_choice, plain
from wavedp.dp.errors import UserError, one_line

DEFAULT = "quick"


class Protocol(BaseModel):
    """One protocol.

    Attributes:
        prompts: how many; None takes the suite's ``samples``, ``records`` one per evaluation
            record.
        prompts_from: ``evaluation``. Captions of private records are private: nothing else is
            accepted.
        draw: ``in_order``: the first caption of each held-out record, then the second ones.
            ``at_random``: from all captions of the split, without replacement.
        seed: of the draw.
        reference: ``rest``: prompts come from the first half of the evaluation records, and what
            lies behind the last that gives one is the reference, so that real images can be
            scored too. ``all``: every evaluation record, as published protocols have it.
        requires: keys of the data set's config and the values that the protocol needs.
        preparation: how images are brought to size, in words; the data set does it.
        metrics: what is computed where ``suite.metrics`` is null, as in every suite here. A list
            in ``suite.metrics`` takes their place. None of them reads private records: that is
            for the owner of the data to ask for, by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    prompts: Annotated[int, Field(ge=1)] | Literal["records"] | None = None
    prompts_from: str = "evaluation"
    draw: Literal["in_order", "at_random"] = "in_order"
    seed: int = 0
    reference: Literal["rest", "all"] = "rest"
    requires: dict[str, Any] = Field(default_factory=dict)
    preparation: str = "as the data set prepares them"
    metrics: tuple[str, ...] = ()

    def count(self, samples: int, records: int) -> int:
        """How many prompts, for a suite's ``samples`` and so many evaluation records.

        Raises:
            UserError: ``samples`` decides, and is not a whole number of at least 1.
        """
        if self.prompts == "records":
            return records
        if self.prompts is not None:
            return self.prompts
        if not isinstance(samples, int) or samples < 1:
            raise UserError(f"suite.samples={samples} must be a whole number, at least 1.")
        return samples

    def check(self, dataset: Mapping[str, Any]) -> None:
        """Compare a data set's config with what the protocol needs.

        Raises:
            UserError: it asks for prompts from private captions, or a value differs.
        """
        if self.prompts_from != "evaluation":
            raise UserError(
                f"Protocol {self.name} takes prompts from {self.prompts_from!r}: captions of "
                "private records are private, and a prompt is shown to everyone; set "
                "prompts_from: evaluation."
            )
        for key, value in self.requires.items():
            if dataset.get(key) != value:
                raise UserError(
                    f"Protocol {self.name} needs dataset.{key}={value}, and "
                    f"{dataset.get('name')} has {dataset.get(key)}; choose another data set or "
                    "suite.protocol."
                )


def load_protocol(name: str) -> Protocol:
    """The protocol of that name in ``configs/protocol``.

    Raises:
        UserError: there is none, or its file is not a protocol.
    """
    try:
        return Protocol.model_validate(plain(load_choice("protocol", name)))
    except ValidationError as error:
        raise UserError(
            f"configs/protocol/{name}.yaml is not a protocol: {one_line(error)}"
        ) from error


def protocol_of(suite: DictConfig) -> Protocol:
    """The protocol that a suite names, ``quick`` if it names none."""
    return load_protocol(suite.get("protocol") or DEFAULT)


def metrics_of(suite: DictConfig, protocol: Protocol) -> Sequence[str]:
    """The protocol's metrics, or those of ``suite.metrics`` if it is a list.

    Raises:
        UserError: neither names a metric.
    """
    given = suite.get("metrics")
    names = list(protocol.metrics if given is None else given)
    if not names:
        raise UserError(
            f"Suite {suite.name} under protocol {protocol.name} has no metric; name some in "
            "suite.metrics."
        )
    return names
