"""Words and numbers as the report prints them, and what the records say about each metric."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.record import Record
from benchmarks.report.frame import LineKey, metric_names
from benchmarks.report.marks import NOT_PRIVATE, Reading, reading, shown_name

ARROWS = {"lower": "↓", "higher": "↑", "zero": "→0"}
NAMES = ("Wavelet", "LDM", "LoRA", "LlamaGen", "MERF", "VAE", "Evolution")
SPELLINGS = {name.lower(): name for name in NAMES}
"""As the papers write them; after DP, with a hyphen."""
REPRODUCIBLE = "‡"
INCOMPLETE = "*"
FEWER = "§"
"""Beside a mean over fewer seeds than the others of its line."""


@dataclass(frozen=True)
class Metric:
    """What the records of one dataset say about one metric."""

    name: str
    direction: str
    floor: float | None
    """What real images score against the same reference."""
    n_samples: tuple[int, ...]
    n_reference: tuple[int, ...]
    protocols: tuple[str, ...]
    reading: Reading
    unlike: str | None = ""
    """The published measure that it must not be taken for; None if a record does not say."""
    reasons: tuple[str, ...] = ()
    """Why it was not computed, in the cells where it was not."""

    @property
    def shown(self) -> str:
        """The name with its mark: for every place where a reader meets its numbers."""
        return shown_name(self.name, self.reading)

    @property
    def title(self) -> str:
        """The shown name, and the arrow of its direction."""
        return f"{self.shown} {ARROWS[self.direction]}"

    def better(self, one: float, other: float) -> bool:
        """True if ``one`` is the better score."""
        return self.cost(one) < self.cost(other)

    def cost(self, score: float) -> float:
        """A number that is lower for a better score."""
        return {"lower": score, "higher": -score, "zero": abs(score)}[self.direction]


def metrics_of(records: Sequence[Record]) -> list[Metric]:
    """The metrics of these records (of one dataset), in the order they are first named."""
    return [_metric(name, records) for name in metric_names(records)]


def _metric(name: str, records: Sequence[Record]) -> Metric:
    scores = [record.metrics[name] for record in records if name in record.metrics]
    absent = [record.not_computed[name] for record in records if name in record.not_computed]
    floors = [score.floor for score in scores if score.floor is not None]
    return Metric(
        name=name,
        direction=(scores[0] if scores else absent[0]).direction,
        floor=math.fsum(floors) / len(floors) if floors else None,
        n_samples=tuple(sorted({score.n_samples for score in scores})),
        n_reference=tuple(sorted({s.n_reference for s in scores if s.n_reference is not None})),
        protocols=tuple(sorted({score.protocol for score in scores})),
        reading=reading(scores),
        unlike=_unlike([score.unlike for score in scores]),
        reasons=tuple(sorted({clean(score.reason) for score in absent})),
    )


def _unlike(said: Sequence[str | None]) -> str | None:
    """What all scores of a metric say; None if one does not say, or they differ."""
    if not said:
        return ""
    return said[0] if len(set(said)) == 1 else None


def datasets(records: Iterable[Record]) -> list[str]:
    """The datasets, sorted."""
    return sorted({record.dataset for record in records})


def label(name: str) -> str:
    """A configured name for the eye: ``dp_full_finetune`` becomes ``DP full finetune``.

    Words without a vowel are taken for initials and set in capitals; ``dp_lora`` is DP-LoRA.
    """
    words = [w.upper() if not re.search("[aeiouy]", w) else w for w in name.split("_") if w]
    text = " ".join(SPELLINGS.get(word.lower(), word) for word in words)
    text = re.sub(rf"\bDP (?=(?:{'|'.join(SPELLINGS.values())})\b)", "DP-", text)
    return clean(text[:1].upper() + text[1:])


def row_label(row: str, epsilon: float | None) -> str:
    """What a line of a comparison is: ``pretrained``, ``ε = 10``, ``ε = ∞``, ``oracle†``.

    The oracle is made of real held-out images, so all its numbers are evaluation, not private.
    """
    if row == "oracle":
        return f"{row}{NOT_PRIVATE}"
    if row == "pretrained" or epsilon is None or math.isnan(epsilon):
        return row.replace("_", " ")
    return f"ε = {epsilon_text(epsilon)}"


def line_label(key: LineKey) -> str:
    """:func:`row_label` of a line, with what tells the setups of its method apart."""
    return row_label(key.row, key.epsilon) + key.suffix


def epsilon_text(epsilon: float) -> str:
    """An epsilon with at most four significant digits."""
    return "∞" if math.isinf(epsilon) else f"{epsilon:.4g}"


def number(value: float | None, digits: int = 4) -> str:
    """A number with significant digits, thousands separated; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0 or abs(value) < 1e-4:
        return f"{value:.{digits}g}"
    return f"{value:,.{_decimals(value, digits)}f}"


def plus_minus(mean: float, half: float) -> str:
    """``12.3 ± 1.1``: two significant digits of the half-width; only the mean without one."""
    if math.isnan(half) or not math.isfinite(mean):
        return number(mean)
    if half <= 1e-9 * abs(mean):  # equal scores, but for rounding
        return f"{number(mean)} ± 0"
    decimals = min(_decimals(half, 2), 6)
    return f"{mean:,.{decimals}f} ± {half:,.{decimals}f}"


def _decimals(value: float, digits: int) -> int:
    # Rounded first: 9.96 to two digits is 10, which has one decimal fewer.
    exponent = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    return max(digits - 1 - exponent, 0)


def clean(text: str) -> str:
    """Text on one line without control characters, so that it cannot steer a terminal."""
    kept = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(kept.split())


def slug(name: str) -> str:
    """A name that is safe as part of a file name."""
    return re.sub(r"[^\w-]", "_", name)


def joined(values: Iterable[object], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    words = [str(value) for value in values]
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
