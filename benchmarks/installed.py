"""Methods that other packages bring, found by their entry points.

A package names each in the group ``wavedp.methods``: the method's name, and the importable folder
that is searched after ``configs``, so that ``method/<name>.yaml`` lies in it. Nothing of a package
is run to find its methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from wavedp.dp.errors import UserError

GROUP = "wavedp.methods"


@dataclass(frozen=True)
class Installed:
    """A method that another package brings.

    Attributes:
        name: of the method and of its config.
        package, version: of the distribution, as pip knows them.
        folder: where ``method/<name>.yaml`` is; None if it is nowhere.
    """

    name: str
    package: str
    version: str
    folder: Path | None


def installed() -> list[Installed]:
    """One for each entry point, in a stable order."""
    found = (_read(entry) for entry in entry_points(group=GROUP))
    return sorted(found, key=lambda method: (method.name, method.package))


def installed_method(name: str, ours: bool) -> Installed | None:
    """The method of that name which a package brings; None if there is none.

    Args:
        ours: whether the project has a method of that name itself.

    Raises:
        UserError: the name stands for several methods, or the config is missing.
    """
    found = [method for method in installed() if method.name == name]
    if len(found) + ours > 1:
        bringers = ["WaveDP"] * ours + [f"{m.package} {m.version}" for m in found]
        raise UserError(
            f"Method {name} is in {' and in '.join(bringers)}: rename the entry point of one, or "
            "uninstall it."
        )
    if found and found[0].folder is None:
        raise UserError(
            f"The package {found[0].package} {found[0].version} brings method {name} without its "
            f"config method/{name}.yaml: install it anew, or mend its entry point."
        )
    return found[0] if found else None


def _read(entry: EntryPoint) -> Installed:
    assert entry.dist is not None
    config = Path("method", f"{entry.name}.yaml")
    places = _places(entry.value.partition(":")[0])
    folder = next((place for place in places if (place / config).is_file()), None)
    return Installed(entry.name, entry.dist.name, entry.dist.version, folder)


def _places(package: str) -> Iterator[Path]:
    """Where a package may lie. Python looks up the outermost one without running anything."""
    outermost, *inner = package.split(".")
    try:
        spec = find_spec(outermost)
    except (ImportError, ValueError):
        return
    for place in (spec and spec.submodule_search_locations) or ():
        yield Path(place, *inner)
