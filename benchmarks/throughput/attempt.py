"""A row that cannot be measured is a reason in one line, and the other rows do not suffer."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TypeVar

import torch

from wavedp.dp.errors import UserError, one_line

T = TypeVar("T")


def attempt(work: Callable[[], T]) -> T | str:
    """What ``work`` gives, or why it gives nothing."""
    try:
        return work()
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    except (torch.OutOfMemoryError, MemoryError):
        return "out of memory"
    except UserError as error:
        return f"refused: {error}"
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {one_line(error)}"
