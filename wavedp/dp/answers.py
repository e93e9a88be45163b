"""Answers: results of accounting on disk, so that no process computes one twice.

Only public numbers are kept. A question is everything that determines the answer; a file holds
one question, its answer and a digest of both. A file that is torn, altered, unreadable or about
another question counts as missing, and where nothing can be written nothing is kept: the worst
that this can do to a run is to let it compute again.

The folder is ``$WAVEDP_CACHE/accounting``, else ``$XDG_CACHE_HOME/wavedp/accounting``, else
``~/.cache/wavedp/accounting``. It can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from wavedp.dp.written import replacing

Question = Mapping[str, Any]
"""JSON-ready."""


def recall(question: Question) -> float | None:
    """The answer kept for exactly this question, or None."""
    # ValueError is text that is not UTF-8 or JSON; RuntimeError a user without a home, or text
    # that nests too deeply.
    with suppress(OSError, ValueError, RuntimeError):
        text = _path(question).read_text(encoding="utf-8")
        found = json.loads(text)
        answer = found.get("answer") if isinstance(found, dict) else None
        if isinstance(answer, float) and text == _sealed(question, answer):
            return answer
    return None


def keep(question: Question, answer: float) -> None:
    """Keep an answer: wholly or not at all."""
    with suppress(OSError, RuntimeError), replacing(_path(question), for_owner=True) as file:
        file.write(_sealed(question, float(answer)).encode())


def folder() -> Path:
    """Where answers are kept.

    Raises:
        RuntimeError: no variable names a place and the user has no home.
    """
    if own := os.environ.get("WAVEDP_CACHE"):
        return Path(own) / "accounting"
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "wavedp" / "accounting"


def _path(question: Question) -> Path:
    return folder() / f"{_digest(question)[:32]}.json"


def _sealed(question: Question, answer: float) -> str:
    content = {"question": question, "answer": answer}
    return json.dumps({**content, "digest": _digest(content)}, sort_keys=True)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
