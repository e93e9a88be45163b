"""Setups: what two records must have in common to differ by their seed alone.

Records of one method, row and budget can still come from another number of steps, another delta,
other public weights or other prompts. Those are no seeds of each other and are not averaged.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.record import Record

LEFT_OUT = {
    # The digests of the weights decide what pretraining came to, and the search what was tried.
    "method": ("public", "pretraining", "search", "search_non_private"),
    # One run covers several budgets; noise is drawn anew for every seed.
    "privacy": ("epsilon", "noise_seed", "sampling_seed"),
}
"""Settings of a configuration that are no part of the setup, by section."""

Settings = dict[str, str]
"""Dotted key to value, as JSON."""


def settings(record: Record) -> Settings:
    """The setup of a record, spelled out.

    What is null is left out: older records lack the settings that came later.
    """
    config = record.config
    sections: dict[str, Any] = {
        "dataset": config.get("dataset"),
        **{name: _without(config.get(name), keys) for name, keys in LEFT_OUT.items()},
        # The rest of the hardware changes the time that a run takes, not what it computes.
        "hardware": {"amp": (config.get("hardware") or {}).get("amp")},
        "weights": record.provenance.weights,
        "dataset_version": record.dataset_version,
        "resolution": record.resolution,
        "evaluated": record.evaluated.model_dump() if record.evaluated else None,
    }
    return dict(_flat("", sections))


def evaluation(record: Record) -> str | None:
    """Under what the scores of a record were taken, in words; None where it does not say."""
    how = record.evaluated
    if how is None:
        return None
    return (
        f"protocol {how.protocol}: {how.prompts:,} prompts (SHA-256 {how.prompts_sha256[:16]}…), "
        f"reference {how.reference}, images {how.preparation}"
    )


def _without(section: Mapping[str, Any] | None, keys: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in (section or {}).items() if key not in keys}


def _flat(place: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(f"{place}.{key}" if place else str(key), part)
    elif value is not None:
        yield place, json.dumps(value, sort_keys=True)


def digest(found: Settings) -> str:
    """Eight hex digits that stand for a setup."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Difference:
    """Several setups of one method on one data set, and where they differ."""

    dataset: str
    method: str
    letters: tuple[str, ...]
    keys: dict[str, tuple[str | None, ...]]
    """What each setup has under every key in which they are not alike; None for nothing."""


class Setups:
    """The setups of some records, told apart by letters where a method has more than one.

    Args:
        records: all of the data sets concerned, as letters follow the order in which the setups
            of a method were first run there.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._known: dict[tuple[str, str], dict[str, Settings]] = {}
        # Failed records last: they may belong to the setup of others.
        for record in sorted(records, key=lambda r: (r.status == "failed", *_age(r))):
            known = self._known.setdefault((record.dataset, record.method), {})
            known.setdefault(self.of(record), settings(record))

    def of(self, record: Record) -> str:
        """The digest of a record's setup.

        A failed record was not evaluated and may have found no weights: it belongs to the first
        setup that is like it in everything else.
        """
        mine = settings(record)
        if record.status == "failed":
            unknown = _unknown(record)
            for name, other in self._known.get((record.dataset, record.method), {}).items():
                if {k: v for k, v in other.items() if not k.startswith(unknown)} == mine:
                    return name
        return digest(mine)

    def suffix(self, record: Record) -> str:
        """`` (a)``, `` (b)``, ... beside what a record is; empty where there is one setup."""
        known = list(self._known[record.dataset, record.method])
        if len(known) < 2:
            return ""
        return f" ({_letter(known, known.index(self.of(record)))})"

    def differences(self) -> list[Difference]:
        """Where the setups of a method differ, for each that has several."""
        return [
            _difference(dataset, method, known)
            for (dataset, method), known in sorted(self._known.items())
            if len(known) > 1
        ]


def _age(record: Record) -> tuple[str, str]:
    return record.provenance.created, record.cell


def _unknown(record: Record) -> tuple[str, ...]:
    """Where the keys begin of which a record says nothing."""
    known = {"evaluated.": record.evaluated, "weights.": record.provenance.weights}
    return tuple(place for place, value in known.items() if not value)


def _letter(known: list[str], place: int) -> str:
    letters = string.ascii_lowercase
    return letters[place] if place < len(letters) else known[place]


def _difference(dataset: str, method: str, known: Mapping[str, Settings]) -> Difference:
    setups = list(known.values())
    rows = {
        key: tuple(setup.get(key) for setup in setups)
        for key in sorted({key for setup in setups for key in setup})
    }
    return Difference(
        dataset=dataset,
        method=method,
        letters=tuple(_letter(list(known), place) for place in range(len(known))),
        keys={key: values for key, values in rows.items() if len(set(values)) > 1},
    )
