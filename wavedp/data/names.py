"""Names of files in lists that nobody has checked: do they stay where they belong?"""

from __future__ import annotations


def is_plain(name: str) -> bool:
    """A file name that stays in its folder on every system."""
    return is_inside(name) and "/" not in name


def is_inside(name: str) -> bool:
    """A relative path, with forward slashes, that stays below its folder on every system."""
    parts = name.split("/")
    return not {"", ".", ".."} & set(parts) and not {"\\", "\0"} & set(name)
