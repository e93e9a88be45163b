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
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import hydra.utils
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from benchmarks.installed import Installed, installed, installed_method
from benchmarks.paths import in_weights
from benchmarks.record import Row
from wavedp.dp.errors import UserError, one_line

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
AXES = ("dataset", "method")
GRID = ("suite=", "suite.", "seed=")
"""How overrides begin that decide which cells there are."""
METHOD_KEYS = ("name", "generator._target_", "weights", "finetuning")
"""What no method's config can do without."""
# These say where and how a cell runs and by what it is scored, not what it is, so they do not
# change its identity. Metrics can be added to a finished cell: see benchmarks/rescoring.py.
# The seed of a cell is its own, whatever the suite or the command line calls it.
NOT_IDENTITY = (
    *("suite", "hardware", "results_dir", "cache_dir", "keep_weights", "dry_run", "force"),
    *("seed", "worker"),
)
NEEDS = "needs"
"""Where a method's config says how to get the published files it reads: see benchmarks/needs.py."""
UNTRAINED = {"steps": 2, "expected_batch": 2, "micro_batch": 1}
"""The plan of a run with random weights, as far as a method has such settings."""
OF_OTHERS = ("non_private", "search", "search_non_private")
"""What a method's config says of other cells: settings of the row of that name, and what else is
tried of a setting."""


def _at_most(most: Any, number: Any) -> Any:
    # What is no number is left to the check of that setting, which can say more.
    return min(most, number) if isinstance(number, int) else most


def _steps_in(seconds: Any, records_per_second: float, batch: int) -> int:
    if not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise UserError(f"finetuning_seconds={seconds} must be a positive number of seconds.")
    return max(1, round(seconds * records_per_second / batch))


# For configs: ${at_most:500,${dataset.private_records}} is 500, or N where that is less.
OmegaConf.register_new_resolver("at_most", _at_most, replace=True)
# ${steps_in:1500,108,250}: steps of 250 records that take 1,500 s, of 108 records each.
OmegaConf.register_new_resolver("steps_in", _steps_in, replace=True)
OmegaConf.register_new_resolver("in_weights", in_weights, replace=True)


@dataclass(frozen=True)
class Cell:
    """One run: a fully resolved configuration, the row, the epsilon and the seed."""

    config: DictConfig
    row: Row
    epsilon: float | None
    seed: int
    choice: str = ""
    """The method as an override names it, such as ``paper/dp_ldm``."""

    @property
    def label(self) -> str:
        """For people: ``toyfaces / dp_wavelet / epsilon 1 / seed 0``."""
        row = f"epsilon {self.epsilon:g}" if self.row == "private" else self.row
        return f"{self.config.dataset.name} / {self.config.method.name} / {row} / seed {self.seed}"

    @property
    def untrained(self) -> bool:
        """Whether weights are random: see benchmarks/untrained.py."""
        return bool(self.config.get("untrained", False))

    @property
    def smaller(self) -> dict[str, Any]:
        """Sizes of published networks that take the place of their own where weights are random.

        Raises:
            UserError: ``untrained`` is neither true or false nor such sizes.
        """
        asked = self.config.get("untrained", False)
        if isinstance(asked, bool):
            return {}
        if OmegaConf.is_dict(asked) and all(OmegaConf.is_dict(sizes) for sizes in asked.values()):
            return plain(asked)
        raise UserError(
            f"untrained={asked} must be true, false, or sizes of published networks such as "
            "{t5: {num_layers: 2}}."
        )

    @cached_property
    def method(self) -> DictConfig:
        """The method as this cell runs it: without noise, with its config's ``non_private``.

        A rate that is right for noisy gradients is not so without noise, and the row is there to
        show what noise costs, not what a wrong rate does.

        Raises:
            UserError: ``non_private`` names a setting that the method has not.
        """
        method: DictConfig = self.config.method
        own = method.get("non_private") if self.row == "non_private" else None
        plan = {k: v for k, v in UNTRAINED.items() if k in method.finetuning}
        short = {"finetuning": plan} if self.untrained else {}
        if not own and not short:
            return method
        try:
            merged = OmegaConf.merge(method, own or {}, short)
        except OmegaConfBaseException as error:
            first = str(error).splitlines()[0]
            raise UserError(
                f"non_private of method {method.name} does not fit: {first}."
            ) from error
        assert isinstance(merged, DictConfig)
        return merged

    def identity(self, weights: dict[str, str]) -> str:
        """File name of the record: readable, and different whenever anything that matters is."""
        config = plain(self.config)
        # All budgets of the grid: which others are asked for says nothing of this cell.
        del config["privacy"]["epsilon"]
        if not self.untrained:  # a name of its own, and no record of before is renamed
            config.pop("untrained", None)
        for key in (NEEDS, *OF_OTHERS):
            if key != self.row:
                config["method"].pop(key, None)
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

    That of a method which another package brings says which: ``method.package``, its name and
    version. So they are part of a cell's identity, of its setup and of its record.

    Raises:
        UserError: an unknown name or key (with the nearest known one), or a bad value.
    """
    package = _package(overrides)
    try:
        with _hydra():
            config = hydra.compose("run", [*overrides, *_searched(package)])
            if package:
                with open_dict(config.method):
                    config.method.package = {"name": package.package, "version": package.version}
            OmegaConf.resolve(config)
            missing = [key for key in METHOD_KEYS if OmegaConf.select(config.method, key) is None]
    except MissingConfigException as error:
        raise UserError(_unknown_choice(error, overrides)) from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"A config is not YAML in UTF-8, mend it: {one_line(error)}") from error
    except (HydraException, OmegaConfBaseException) as error:
        first = str(error).strip().splitlines()[0].rstrip(".")
        meant = _nearest_key(first, overrides)
        raise UserError(f"The configuration cannot be read: {first}.{meant}") from error
    if missing:
        raise UserError(
            f"The config of method {_chosen(overrides) or config.method.get('name')} lacks "
            f"{', '.join(missing)}: CONTRIBUTING.md shows a whole one."
        )
    return config


def _chosen(overrides: Sequence[str]) -> str | None:
    """The method that the overrides choose; None where it is the usual one."""
    chosen = [o.removeprefix("method=") for o in overrides if o.startswith("method=")]
    return chosen[-1] if chosen else None


def _package(overrides: Sequence[str]) -> Installed | None:
    """What brings the method that the overrides choose, if it is not one of ours."""
    name = _chosen(overrides)
    return installed_method(name, name in _own("method")) if name else None


def _searched(package: Installed | None) -> list[str]:
    """Hydra's override that adds a package's configs; ours come first, so none is replaced."""
    if package is None:
        return []
    folder = str(package.folder).replace("'", r"\'")
    return [f"hydra.searchpath=['file://{folder}']"]


def make(config: DictConfig) -> Any:
    """Instantiate what a config's ``_target_`` names.

    Raises:
        UserError: as the constructor raised it, or the arguments do not fit.
    """
    try:
        return hydra.utils.instantiate(config)
    except InstantiationException as error:
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, UserError):
                raise cause from error
        # Of code that cannot be imported Hydra tells the place alone, not what is missing.
        told = next((cause for cause in causes if isinstance(cause, ImportError)), error)
        raise UserError(f"{config.get('_target_')} cannot be made: {one_line(told)}") from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    while error.__cause__ is not None:
        error = error.__cause__
        yield error


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
    """Names in a config group; methods that other packages bring are among them."""
    others = {method.name for method in installed()} if group == "method" else set()
    return sorted(others.union(_own(group)))


def _own(group: str) -> list[str]:
    return [path.stem for path in (CONFIGS / group).glob("*.yaml")]


def unknown(what: str, name: str, known: Sequence[str]) -> str:
    """The sentence for a name that is none of those that are known; it names the nearest."""
    near = difflib.get_close_matches(name, known, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"Unknown {what} {name!r}: choose one of {', '.join(known)}.{hint}"


def _unknown_choice(error: MissingConfigException, overrides: Sequence[str]) -> str:
    for override in overrides:
        place, _, name = override.lstrip("+").partition("=")
        group = place.partition("@")[0]  # dataset@public: a data set, put at another place
        known = choices(group)
        if known and name not in known:
            return unknown(group, name, known)
    return str(error).splitlines()[0]


def _nearest_key(message: str, overrides: Sequence[str]) -> str:
    """What may have been meant by a key that the configuration has not, and how to add one."""
    found = re.search(r"^Could not override '(.+)'$", message)
    if found is None:
        return ""
    key = found[1]
    section: Any = compose([o for o in overrides if o.partition("=")[0] != key])
    right: list[str] = []
    for name in key.split("."):
        if not OmegaConf.is_dict(section):
            return f" {'.'.join(right)} has no settings of its own."
        if name not in section:
            break
        section, right = section[name], [*right, name]
    else:
        return ""
    near = difflib.get_close_matches(name, [str(known) for known in section], 1)
    hint = f" Did you mean {'.'.join([*right, near[0]])}?" if near else ""
    return f"{hint} A setting that no config has is added as +{key}=..."


def cells(overrides: Sequence[str]) -> list[Cell]:
    """All cells of the suite that the overrides name, in a stable order."""
    # Settings of a data set or a method may fit those of the grid alone, not the usual ones.
    base = compose([o for o in overrides if o.lstrip("+~").startswith(GRID)])
    fixed = {o.partition("=")[0].lstrip("+") for o in overrides}
    grid = plain(base.suite.grid)
    axes = {axis: [None] if axis in fixed else grid[axis] for axis in AXES}
    seeds = [base.seed] if "seed" in fixed else grid["seed"]
    result: list[Cell] = []
    for dataset in axes["dataset"]:
        for method in axes["method"]:
            chosen = [f"{a}={c}" for a, c in zip(AXES, (dataset, method), strict=True) if c]
            config = compose([*overrides, *chosen])
            choice = method or _chosen(overrides) or config.method.name
            for row in grid["row"]:
                for epsilon in _epsilons(config, row):
                    result += [Cell(config, row, epsilon, seed, choice) for seed in seeds]
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
