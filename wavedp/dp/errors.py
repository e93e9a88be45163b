"""The one error type that a user is meant to read; it may quote what another error says."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend: one sentence that names the thing and the remedy.

    The harness prints the sentence without a traceback and exits with code 2.
    Everything else that is raised is a defect and keeps its traceback.
    """


def one_line(error: BaseException, most: int | None = 300) -> str:
    """The error's text without line breaks, cut after ``most`` characters."""
    return " ".join(str(error).split())[:most]
