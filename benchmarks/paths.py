"""Places on the user's machine, which records do not tell: they may be shown to everyone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

VARIABLE = "WAVEDP_WEIGHTS"
"""The environment variable with the user's folders of public weights."""

_PLACE = re.compile(r"(.*_)?(root|dir|path)s?")
"""Keys that name a place."""
_ELSEWHERE = re.compile(r"[/~\\]|[A-Za-z]:[/\\]|\.\.([/\\]|$)|file:")
"""Beginnings of values that leave the working directory: absolute, a home, a drive, a way up."""
_IN_TEXT = re.compile(r"(?<![\w.:/~])(file:|~|/|[A-Za-z]:\\)\S*[/\\](?=[^\s/\\])")
"""In a sentence: all of such a path but its last part, as far as it has no spaces."""


def weights_folders() -> list[Path]:
    """The folders of ``WAVEDP_WEIGHTS``, in order."""
    return [Path(p) for p in os.environ.get(VARIABLE, "").split(os.pathsep) if p]


def in_weights(file: str) -> str:
    """Where a file lies in the folders of ``WAVEDP_WEIGHTS``; its name alone if it is in none."""
    found = (folder / file for folder in weights_folders())
    return next((str(path) for path in found if path.is_file()), file)


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


def told(overrides: Sequence[str]) -> list[str]:
    """Overrides of a command line as a record may tell them: three dots for what is a path."""
    split = [override.partition("=") for override in overrides]
    kept = [bool(without_paths({key.rpartition(".")[2]: value})) for key, _, value in split]
    return [
        override if keep or not value else f"{key}=..."
        for override, (key, _, value), keep in zip(overrides, split, kept, strict=True)
    ]


def shortened(text: str, config: Any = None) -> str:
    """A sentence in which a path is only the name of its file.

    Args:
        config: places that it names at any depth are found in the text also where they hold spaces,
            and nothing of them stays; so are the user's home and the working directory.
    """
    places = {str(Path.home()), os.getcwd(), *_places(config)} - {"", "/", "."}
    for place in sorted(places, key=len, reverse=True):  # what lies in another one first
        ends = r"(?![\w-])" if os.sep in place else r"(?=[/\\])"  # "results" is also a word
        text = re.sub(rf"(?<![\w./~-]){re.escape(place)}{ends}", "~", text)
    return _IN_TEXT.sub("", text)


def _places(value: Any, key: str = "") -> Iterator[str]:
    """Folders that a configuration names, as they are written and as they are."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _places(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _places(item, key)
    elif isinstance(value, str):
        names_folder = _PLACE.fullmatch(key) is not None
        if names_folder or _leads_elsewhere(value):
            folder = value if names_folder else os.path.dirname(value)
            whole = os.path.expanduser(folder)
            yield from {folder, os.path.abspath(whole), os.path.realpath(whole)}


def _leads_elsewhere(value: Any) -> bool:
    return isinstance(value, str) and _ELSEWHERE.match(value) is not None
