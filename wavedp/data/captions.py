"""Captions as text: reading, cleaning, and making one from a class label."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wavedp.data.findings import Finding, Kind, Report
from wavedp.data.stored import read_bounded
from wavedp.dp.errors import UserError

MAX_TEXT_BYTES = 2**31
"""The largest text file that is read (COCO's captions are 90 MB)."""


def clean_caption(text: str) -> str:
    """The caption with every run of white space as one space, and none at the ends."""
    return " ".join(text.split())


def clean_captions(texts: Iterable[object], template: str | None = None) -> tuple[str, ...]:
    """All captions of a record, cleaned, without empty ones.

    Args:
        texts: what the source holds; values that are not text (a null) are no caption.
        template: None, or a sentence with ``{label}`` in which every text is put:
            ``"a photo of a {label}"`` makes captions of class labels.
    """
    words = [clean_caption(text) for text in texts if isinstance(text, str)]
    sentences = [template.replace("{label}", word) if template else word for word in words if word]
    return tuple(sentences)


def is_unicode(text: str) -> bool:
    """False for half a surrogate pair, which JSON can hold and no tokenizer can encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_template(template: str | None, setting: str = "dataset.template") -> None:
    """Raises:
    UserError: a template without a place for the label.
    """
    if template is not None and "{label}" not in template:
        raise UserError(
            f"{setting}={template!r} has no {{label}}: write where the class label goes, "
            "e.g. 'a photo of a {label}'."
        )


def read_text(path: Path, report: Report, side: str, remedy: str = "complete the folder") -> str:
    """A UTF-8 text file, a byte order mark tolerated; empty after a report.

    Reports that the file is missing, unreadable or not UTF-8.
    """
    try:
        return read_bounded(path, MAX_TEXT_BYTES, "captions").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8 or copy it again."
        report(Finding(Kind.TEXT, side, (str(path),), text))
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "is missing" if missing else "cannot be read"
        text = f"{path} {reason} ({error.strerror or error}): {remedy}."
        report(Finding(Kind.MISSING if missing else Kind.TEXT, side, (str(path),), text))
    return ""
