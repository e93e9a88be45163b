"""The differentially private training core.

Knows tensors and examples, nothing about images or methods. Importing it needs torch
and numpy only; accountants and the Opacus engine are loaded when they are used.
"""

from wavedp.dp.accounting import Budget, Spent
from wavedp.dp.checkpoint import Checkpoints
from wavedp.dp.errors import UserError
from wavedp.dp.ledger import Ledger
from wavedp.dp.mechanisms import noisy_histogram, noisy_sum
from wavedp.dp.optimizers import DPAdamW
from wavedp.dp.plan import DPPlan, NonPrivatePlan, Plan
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer

__all__ = [
    "Budget",
    "Checkpoints",
    "DPAdamW",
    "DPPlan",
    "Ledger",
    "NonPrivatePlan",
    "Plan",
    "PrivateRecords",
    "Spent",
    "Trainer",
    "UserError",
    "noisy_histogram",
    "noisy_sum",
]
