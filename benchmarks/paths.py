"""Places on the user's machine, which records do not tell: they may be shown to everyone."""

from __future__ import annotations

import re
from typing import Any

_PLACE = re.compile(r"(.*_)?(root|dir|path)s?")
"""Keys that name a place."""
_ELSEWHERE = re.compile(r"[/~\\]|[A-Za-z]:[/\\]|\.\.([/\\]|$)|file:")
"""Beginnings of values that leave the working directory: absolute, a home, a drive, a way up."""
_IN_TEXT = re.compile(r"""(?<![\w.:/~])(~|/|[A-Za-z]:\\)[^\s:;,()'"]*[/\\](?=[^\s/\\])""")
"""In a sentence: all of such a path but its last part."""


def without_paths(value: Any) -> Any:
    """A configuration (dictionaries, lists, scalars) without the paths of this machine.

    An entry goes if its key names a place, such as ``root`` or ``cache_dir``, or if its value leads
    out of the working directory. What a published layout has below the root of a data set, such as
    ``annotations/captions_val2014.json``, is the same for everyone and stays.
    """
    if isinstance(value, dict):
        return {
            key: without_paths(item)
            for key, item in value.items()
            if not (_PLACE.fullmatch(str(key)) or _leads_elsewhere(item))
        }
    if isinstance(value, list):
        return [without_paths(item) for item in value if not _leads_elsewhere(item)]
    return value


def shortened(text: str) -> str:
    """A sentence in which a path is only the name of its file."""
    return _IN_TEXT.sub("", text)


def _leads_elsewhere(value: Any) -> bool:
    return isinstance(value, str) and _ELSEWHERE.match(value) is not None
