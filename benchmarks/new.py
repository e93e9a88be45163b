"""Begin a method: ``python -m benchmarks.new method NAME``.

Writes ``baselines/NAME.py`` and ``configs/method/NAME.yaml``, a whole method that runs as it is:
the baseline ``dp_vae`` under another name, so that all which holds a method holds what is begun
from. CONTRIBUTING.md walks through it.
"""

from __future__ import annotations

import keyword
import re

from benchmarks.config import CONFIGS, choices
from benchmarks.console import console, run_command
from benchmarks.written import write
from wavedp.dp.errors import UserError

ROOT = CONFIGS.parent
PLACES = ("baselines/{}.py", "configs/method/{}.yaml")
EXAMPLE, EXAMPLE_CLASS = "dp_vae", "DPVae"
NOT_NAMES = ("null", "true", "false", "yes", "no", "on", "off", "nan", "inf")
"""YAML or Hydra reads these as something else."""


def main(arguments: list[str]) -> int:
    """Write the two files of the method that the arguments name; returns the exit code."""
    if len(arguments) != 2 or arguments[0] != "method":
        raise UserError("Say what to begin: `python -m benchmarks.new method NAME`.")
    name = arguments[1]
    check_name(name)
    files = skeleton(name)
    for path, text in files.items():
        write(ROOT / path, text)
    console.print(
        f"Wrote {' and '.join(files)}, a small VAE that runs as it is. Make it yours, then\n"
        f"  python -m benchmarks.pretrain method={name}    # if it has public stages\n"
        f"  python -m pytest tests/contract -k {name}\n"
        f"  python -m benchmarks.run suite=smoke method={name}",
        soft_wrap=True,
    )
    return 0


def skeleton(name: str) -> dict[str, str]:
    """The texts of a new method's two files, by their places in the repository."""
    return {
        place.format(name): text.replace(EXAMPLE_CLASS, class_name(name)).replace(EXAMPLE, name)
        for place, text in _example().items()
    }


def class_name(name: str) -> str:
    """``my_method`` to ``MyMethod``."""
    return "".join(part.capitalize() for part in name.split("_"))


def check_name(name: str) -> None:
    """Refuse what no new method can be called.

    Raises:
        UserError: it is not the name of a module, has another meaning, or is taken.
    """
    if not re.fullmatch("[a-z][a-z0-9_]{0,39}", name):
        raise UserError(
            f"{name!r} cannot name a method: take up to 40 lower-case letters, digits and "
            "underscores that begin with a letter, such as my_method."
        )
    taken = {path.stem for path in (CONFIGS / "method").rglob("*")}.union(choices("method"))
    if name in taken or (ROOT / PLACES[0].format(name)).exists():
        raise UserError(f"There is a method called {name!r} already: take another name.")
    words = re.findall(r"\w+", "\n".join(_example().values()))
    if {name, class_name(name)} & {*NOT_NAMES, *keyword.kwlist, *words}:
        raise UserError(
            f"{name!r} or its class {class_name(name)} means something else in Python, in YAML or "
            "in the skeleton: take another name."
        )


def _example() -> dict[str, str]:
    return {p: (ROOT / p.format(EXAMPLE)).read_text(encoding="utf-8") for p in PLACES}


if __name__ == "__main__":
    run_command(main)
