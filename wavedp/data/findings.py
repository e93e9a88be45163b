"""What can be wrong with a data set: one kind of finding each, in one sentence.

The same checks serve two callers. A loader refuses the first finding (:func:`refuse`), because
training on a damaged set is worse than not training; the doctor collects all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from wavedp.dp.errors import UserError


class Kind(StrEnum):
    """What is wrong. The value is what people read."""

    MISSING = "missing file"
    CORRUPT = "corrupt file"
    TEXT = "unreadable text"
    UNSAFE = "unsafe entry"
    REPEATED = "repeated record"
    CAPTIONLESS = "no caption"
    COUNT = "wrong count"
    SWAPPED = "swapped split"
    LEAKAGE = "leakage"
    EXACT = "exact duplicate"
    NEAR = "near duplicate"
    CAPTIONS = "caption count"
    SMALL = "small image"
    GREY = "greyscale image"
    CACHE = "damaged cache"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, with everything it is wrong with.

    Attributes:
        kind: what it is.
        side: ``private``, ``evaluation``, ``public``, or two of them joined by `` and ``.
        items: the files, records or settings it is about; at least one.
        text: one sentence that names the thing and the remedy.

    Items and text hold names from files that nobody has checked: what is not printable (control
    characters, half surrogates) is escaped, so that a name cannot steer a terminal.
    """

    kind: Kind
    side: str
    items: tuple[str, ...]
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", tuple(printable(item) for item in self.items))
        object.__setattr__(self, "text", printable(self.text))


Report = Callable[[Finding], None]
"""Takes a finding. It may raise, which ends the work, or return, which goes on without it."""


def printable(text: str) -> str:
    """The text with every character that is not printable as its escape sequence."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def refuse(finding: Finding) -> NoReturn:
    """The report of a loader: the first finding is a :class:`UserError`."""
    raise UserError(finding.text)
