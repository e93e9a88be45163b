"""What an error says, as a part of one sentence."""

from __future__ import annotations


def one_line(error: BaseException, most: int | None = 300) -> str:
    """The error's text without line breaks, cut after ``most`` characters."""
    return " ".join(str(error).split())[:most]
