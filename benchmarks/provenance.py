"""What ran and where; the standard library is enough for it."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path


def code_revision() -> str:
    """The git commit, with ``+`` if the working tree differs from it; "unknown" outside a checkout.

    Results do not count: they are what the code writes.
    """
    try:
        commit = _git("describe", "--always", "--abbrev=12", "--exclude=*")
        changes = _git(
            "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)results"
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changes else "")


def _git(*arguments: str) -> str:
    here = Path(__file__).parent
    done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def processor() -> str:
    """The processor's name and its cores."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
