"""Configuration: Hydra composes it, this file turns a suite into cells.

The only place, with :mod:`benchmarks.run` and its siblings, that knows Hydra. A suite names
the axes of a grid (data sets, methods, rows, seeds); an axis that the user fixes on the
command line is fixed. ``python -m benchmarks.run suite=quick dataset=coco_mini`` therefore
runs the quick grid on COCO-mini alone.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hydra.utils
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarks.record import Row
from wavedp.dp.errors import UserError, one_line

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
AXES = ("dataset", "method")
# These say where and how a cell runs and by what it is scored, not what it is, so they do not
# change its identity. Metrics can be added to a finished cell: see benchmarks/rescoring.py.
# The seed of a cell is its own, whatever the suite or the command line calls it.
NOT_IDENTITY = ("suite", "hardware", "results_dir", "cache_dir", "force", "seed")


@dataclass(frozen=True)
class Cell:
    """One run: a fully resolved configuration, the row, the epsilon and the seed."""

    config: DictConfig
    row: Row
    epsilon: float | None
    seed: int

    @property
    def label(self) -> str:
        """For people: ``toyfaces / dp_wavelet / epsilon 1 / seed 0``."""
        row = f"epsilon {self.epsilon:g}" if self.row == "private" else self.row
        return f"{self.config.dataset.name} / {self.config.method.name} / {row} / seed {self.seed}"

    def identity(self, weights: dict[str, str]) -> str:
        """File name of the record: readable, and different whenever anything that matters is."""
        config = plain(self.config)
        # All budgets of the grid: which others are asked for says nothing of this cell.
        del config["privacy"]["epsilon"]
        parts = [(k, _wherever_cached(v)) for k, v in config.items() if k not in NOT_IDENTITY]
        # Left out where it is the usual one: so it is for records from before there were others.
        protocol = self.config.suite.get("protocol") or "quick"
        parts += [("protocol", protocol)] if protocol != "quick" else []
        content = json.dumps(
            [parts, self.row, str(self.epsilon), self.seed, weights], sort_keys=True, default=str
        )
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        row = f"eps{self.epsilon:g}" if self.row == "private" else self.row
        return f"{self.config.dataset.name}-{self.config.method.name}-{row}-s{self.seed}-{digest}"


def plain(config: DictConfig) -> dict[str, Any]:
    """A resolved configuration as plain dictionaries and lists."""
    result = OmegaConf.to_container(config, resolve=True)
    assert isinstance(result, dict)
    return {str(k): v for k, v in result.items()}


def _wherever_cached(value: Any) -> Any:
    """With every ``cache_dir`` inside as it is by default: a cache that moves makes no new cell."""
    if not isinstance(value, dict):
        return value
    return {k: ".cache" if k == "cache_dir" else _wherever_cached(v) for k, v in value.items()}


@contextmanager
def _hydra() -> Iterator[None]:
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield


def compose(overrides: Sequence[str]) -> DictConfig:
    """The configuration for some command-line overrides.

    Raises:
        UserError: an unknown name or key (with the nearest known one), or a bad value.
    """
    try:
        with _hydra():
            config = hydra.compose("run", list(overrides))
            OmegaConf.resolve(config)
    except MissingConfigException as error:
        raise UserError(_unknown_choice(error, overrides)) from error
    except (HydraException, OmegaConfBaseException) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"The configuration cannot be read: {first}{_nearest_key(first)}"
        ) from error
    return config


def make(config: DictConfig) -> Any:
    """Instantiate what a config's ``_target_`` names.

    Raises:
        UserError: as the constructor raised it, or the arguments do not fit.
    """
    try:
        return hydra.utils.instantiate(config)
    except InstantiationException as error:
        cause = error.__cause__
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__
        if cause is not None:
            raise cause from error
        raise UserError(f"{config.get('_target_')} cannot be made: {one_line(error)}") from error


def conditioning_of(cell: Cell) -> str:
    """What a cell's method declares to be conditioned on, "text" or "none"; loads nothing."""
    declared: str = hydra.utils.get_class(cell.config.method.generator["_target_"]).conditioning
    return declared


@cache  # Hydra takes its time, and a suite asks for each of its metrics once per cell
def load_choice(group: str, name: str) -> DictConfig:
    """One file of a config group on its own, such as ``metric/fd_toy``; read-only."""
    chosen: DictConfig = compose([f"+{group}={name}"])[group]
    OmegaConf.set_readonly(chosen, True)
    return chosen


def choices(group: str) -> list[str]:
    """Names in a config group."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def _unknown_choice(error: MissingConfigException, overrides: Sequence[str]) -> str:
    for override in overrides:
        place, _, name = override.lstrip("+").partition("=")
        group = place.partition("@")[0]  # dataset@public: a data set, put at another place
        known = choices(group)
        if known and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            return f"Unknown {group} {name!r}: choose one of {', '.join(known)}.{hint}"
    return str(error).splitlines()[0]


def _nearest_key(message: str) -> str:
    return "" if message.endswith(".") else "."


def cells(overrides: Sequence[str]) -> list[Cell]:
    """All cells of the suite that the overrides name, in a stable order."""
    base = compose(overrides)
    fixed = {o.partition("=")[0].lstrip("+") for o in overrides}
    grid = plain(base.suite.grid)
    axes = {axis: [None] if axis in fixed else grid[axis] for axis in AXES}
    seeds = [base.seed] if "seed" in fixed else grid["seed"]
    result: list[Cell] = []
    for dataset in axes["dataset"]:
        for method in axes["method"]:
            chosen = [f"{a}={c}" for a, c in zip(AXES, (dataset, method), strict=True) if c]
            config = compose([*overrides, *chosen])
            for row in grid["row"]:
                for epsilon in _epsilons(config, row):
                    result += [Cell(config, row, epsilon, seed) for seed in seeds]
    return result


def _epsilons(config: DictConfig, row: str) -> list[float | None]:
    if row == "private":
        value = config.privacy.epsilon
        values = list(value) if OmegaConf.is_list(value) else [value]
        # A budget that is named twice is one cell: to run it twice would be two releases.
        return list(dict.fromkeys(float(v) for v in values))
    fixed: dict[str, list[float | None]] = {
        "pretrained": [0.0],
        "non_private": [math.inf],
        "oracle": [None],
    }
    return fixed[row]
